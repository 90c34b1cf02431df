"""Room: publishers that wait until the outbox has room for another message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import OutboxFull
from ..mqtt.session.delivery import Delivery
from ..oneshot import OneShot


class Room:
    """Lets publishers wait, in the order in which they came. Runs on the event loop.

    Args:
        when_room: calls a function once there may be room.
    """

    def __init__(self, when_room: Callable[[Callable[[], None]], None]) -> None:
        self._when_room = when_room
        self._turn = asyncio.Lock()  # has the publisher whose turn it is
        self._loop: asyncio.AbstractEventLoop | None = None  # of the lock, which cannot be used on another one

    async def publish(self, publish: Callable[[], Delivery]) -> Delivery:
        """Call ``publish`` until it no longer raises OutboxFull, and return what it returns."""
        if not self._turn.locked():
            try:
                return publish()
            except OutboxFull:
                pass
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._turn = loop, asyncio.Lock()
        async with self._turn:
            while True:
                try:
                    return publish()
                except OutboxFull:
                    room = OneShot()
                    self._when_room(room.set)
                    await room
