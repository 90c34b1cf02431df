"""Closings: the calls of ``disconnect()`` that are under way, and the ``connect()`` that comes after them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from .own_loop import OwnLoop

_LAST_STEPS = 5.0  # seconds for handlers to end


class Closings:
    """The calls of ``disconnect()`` of one client that are under way. Runs on the event loop.

    Args:
        own_loop: of the client.

    Attributes:
        interrupted: whether one was under way when its event loop was closed.
    """

    def __init__(self, own_loop: OwnLoop) -> None:
        self.interrupted = False
        own_loop.when_replaced(self._forget)
        self._calls: set[asyncio.Future[None]] = set()  # that are under way; each is done at its end
        self._late: WeakSet[asyncio.Future[None]] = WeakSet()  # tasks of handlers that have had their time
        self._next: Callable[[], object] | None = None

    async def run(
        self, close: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]], *, hurry: Callable[[], object]
    ) -> None:
        """Disconnect the client by running a coroutine to its end, and forget what was to happen afterwards. If the
        coroutine's task is cancelled, as at the end of ``asyncio.run``, another one begins.

        Args:
            close: makes the coroutine. Its argument is done once the caller is cancelled.
            hurry: called when the caller is cancelled, which takes effect when the coroutine has finished.
        """
        self._next, self.interrupted = None, False
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.add(call)
        try:
            await self._to_the_end(close, hurry)
        finally:
            self._ended(call)

    async def _to_the_end(
        self, close: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]], hurry: Callable[[], object]
    ) -> None:
        cancelled: asyncio.CancelledError | None = None
        caller = asyncio.current_task()
        assert caller is not None
        before = caller.cancelling()
        loop = asyncio.get_running_loop()
        hurried: asyncio.Future[None] = loop.create_future()
        while True:
            task = loop.create_task(close(hurried), name="mqtt-token-disconnect")
            while not task.done():
                try:
                    await asyncio.shield(task)
                except asyncio.CancelledError as error:
                    if task.cancelled() and caller.cancelling() == before:  # only the task was cancelled
                        break
                    cancelled = error
                    if not hurried.done():
                        hurried.set_result(None)
                    if not task.done():  # else a connect() that came after it may have begun
                        hurry()
            if not task.cancelled():
                break
            hurry()
        if cancelled is not None:
            raise cancelled

    async def wait(self, ends: float | None) -> bool:
        """Wait until no call is under way, or until a time on the loop's clock; return whether none is."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                while self._calls:
                    await asyncio.wait(self._calls)
        return not self._calls

    def then(self, function: Callable[[], object]) -> None:
        """Call a function when the calls that are under way have ended, unless another one begins before that."""
        self._next = function

    async def ended(self, handlers: Iterable[asyncio.Task[None]], hurried: asyncio.Future[None]) -> None:
        """Wait until the tasks of handlers finish, but not much longer once ``hurried`` is done, and only once: one of
        them may wait for the task that disconnects the client.
        """
        running: set[asyncio.Future[None]] = {task for task in handlers if task not in self._late}
        while running and not hurried.done():
            done, _ = await asyncio.wait({hurried, *running}, return_when=asyncio.FIRST_COMPLETED)
            running -= done
        if running:
            _, late = await asyncio.wait(running, timeout=_LAST_STEPS)
            self._late.update(late)

    def _forget(self) -> None:
        """The event loop was closed."""
        self.interrupted = self.interrupted or bool(self._calls)
        self._calls.clear()
        self._next = None

    def _ended(self, call: asyncio.Future[None]) -> None:
        if call not in self._calls or call.get_loop().is_closed():
            return
        self._calls.remove(call)
        call.set_result(None)
        if self._next is not None and not self._calls:
            function, self._next = self._next, None
            function()
