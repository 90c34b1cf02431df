"""LeftLoops: the messages at which loops over ``messages()`` were left, by ``break`` or an exception."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sized

from ..mqtt.codec.message import Message
from .unclaimed import KEPT_SECONDS

Taken = tuple[int, Message]  # with the number of its arrival


class LeftLoops:
    """The messages of one block at which its loops were left. Nobody knows yet whether they count as processed: if an
    exception has left the loop, it may be about to leave the block as well. They do when the block begins another
    loop, or when loops of other tasks have gone on for some seconds. Runs on the event loop.

    Args:
        processed: gets each message that counts as processed.
        others: the loops that go on.
    """

    def __init__(self, processed: Callable[[Message], None], others: Sized) -> None:
        self._processed = processed
        self._others = others
        self._taken: deque[Taken] = deque()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, taken: Taken) -> None:
        """A loop was left. May be called on any thread and at any point, as by the garbage collector."""
        self._taken.append(taken)
        if threading.get_ident() == self._thread and self._loop.is_running():
            self._loop.call_soon(self._watch)  # a timer cannot be set at any point

    def take(self) -> list[Taken]:
        """Remove the messages and return them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return [self._taken.popleft() for _ in range(len(self._taken))]

    def end(self) -> None:
        """The messages count as processed."""
        for _number, message in self.take():
            self._processed(message)

    def _watch(self) -> None:
        if self._taken and self._timer is None:
            self._timer = self._loop.call_later(KEPT_SECONDS, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if len(self._others):  # without them the program may still be processing what it took
            self.end()
