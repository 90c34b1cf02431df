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
        self._waiting = 0  # publishers; between two turns the lock is free for a moment
        self._loop: asyncio.AbstractEventLoop | None = None  # of the lock, which cannot be used on another one

    async def publish(self, publish: Callable[[], Delivery]) -> Delivery:
        """Call ``publish`` until it no longer raises OutboxFull, and return what it returns."""
        if not self._waiting or self._loop is not asyncio.get_running_loop():
            try:
                return publish()
            except OutboxFull:
                pass
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._turn, self._waiting = loop, asyncio.Lock(), 0
        self._waiting += 1
        try:
            return await self._when_it_is_its_turn(publish)
        finally:
            if self._loop is loop:
                self._waiting -= 1

    async def _when_it_is_its_turn(self, publish: Callable[[], Delivery]) -> Delivery:
        async with self._turn:
            while True:
                try:
                    return publish()
                except OutboxFull:
                    room = OneShot()
                    self._when_room(room.set)
                    await room
