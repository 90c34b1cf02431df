"""LeftLoops: the messages at which loops over ``messages()`` were left, by ``break`` or an exception."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sized
from typing import Any
from weakref import ref

from ..mqtt.codec.message import Message
from .unclaimed import KEPT_SECONDS

Taken = tuple[int, Message]  # with the number of its arrival
TaskRef = ref[asyncio.Task[Any]]  # a task keeps alive what it has left, if it has failed


class LeftLoops:
    """The messages of one block at which its loops were left. Nobody knows yet whether they count as processed: if an
    exception has left the loop, it may be about to leave the block as well. They do when their task begins another
    loop, or any task if theirs finished normally, or when loops of other tasks have gone on for some seconds. Runs on
    the event loop.

    Args:
        processed: gets each message that counts as processed.
        others: the loops that go on.
    """

    def __init__(self, processed: Callable[[Message], None], others: Sized) -> None:
        self._processed = processed
        self._others = others
        self._taken: deque[tuple[Taken, TaskRef | None]] = deque()  # and who has
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def loop_is_closed(self) -> bool:
        """Whether the event loop of the block was closed."""
        return self._loop.is_closed()

    def add(self, taken: Taken, task: TaskRef | None) -> None:
        """A loop was left. May be called on any thread and at any point, as by the garbage collector."""
        self._taken.append((taken, task))
        if threading.get_ident() == self._thread and self._loop.is_running():
            self._loop.call_soon(self._watch)  # a timer cannot be set at any point

    def take(self) -> list[Taken]:
        """Remove the messages and return them."""
        self._stop_timer()
        return [self._taken.popleft()[0] for _ in range(len(self._taken))]

    def begin(self) -> TaskRef | None:
        """The current task begins a loop. Return a reference to it."""
        task = asyncio.current_task()
        for _ in range(len(self._taken)):
            taken, other = self._taken.popleft()
            if _may_fail(None if other is None else other(), task):
                self._taken.append((taken, other))
            else:
                self._processed(taken[1])
        if not self._taken:
            self._stop_timer()
        return None if task is None else ref(task)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        if self._taken and self._timer is None:
            self._timer = self._loop.call_later(KEPT_SECONDS, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if not len(self._others):  # the program may still be processing what it took
            self._watch()
            return
        for _number, message in self.take():
            self._processed(message)


def _may_fail(task: asyncio.Task[Any] | None, current: asyncio.Task[Any] | None) -> bool:
    """Whether an exception of a task may be about to leave the block."""
    if task is None or task is current:
        return False
    # task.exception() would count as a look at it: asyncio would not log it any more.
    return not task.done() or task.cancelled() or getattr(task, "_exception", None) is not None
