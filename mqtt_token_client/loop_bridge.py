"""LoopBridge: how other threads call functions on an asyncio event loop.

``loop.call_soon_threadsafe`` costs a system call and wakes the loop. Here one of these calls brings everything that was
given since the loop looked last: thirty acknowledgements that arrive together wake it once. The network thread wakes it
at the end of its turn: earlier, the loop would take the interpreter from it, find the first of thirty and sleep again.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Generator
from typing import Any
from weakref import WeakKeyDictionary

from .current import current


class LoopBridge:
    """Calls functions on one event loop. Does not keep the loop alive.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the loop, after those that were given before. Any thread may call this method; once the
        loop is closed it does nothing.
        """
        self._waiting.append((function, arguments))
        if not self._woken:
            self._woken = True
            runtime = current.runtime
            if runtime is None:
                self._wake()
            else:
                runtime.call_soon(self._wake)

    def _wake(self) -> None:
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # it is closed
            loop = None
        if loop is None:
            self._waiting.clear()
            self._woken = False

    def _run(self) -> None:
        self._woken = False
        waiting = self._waiting
        try:
            for _ in range(len(waiting)):
                function, arguments = waiting.popleft()
                function(*arguments)
        finally:
            if waiting and not self._woken:  # one of them raised; the loop reports that
                self._woken = True
                self._wake()


_bridges: WeakKeyDictionary[AbstractEventLoop, LoopBridge] = WeakKeyDictionary()


def bridge_to(loop: AbstractEventLoop) -> LoopBridge:
    """Return the bridge that everybody on this loop shares."""
    bridge = _bridges.get(loop)
    return _bridges.setdefault(loop, LoopBridge(loop)) if bridge is None else bridge


def wait_on_loop(add_callback: Callable[[Any], object], forget: Callable[[Any], object]) -> Generator[Any, None, None]:
    """Wait on the running loop, by ``yield from`` or ``await``, until the callback that is given to ``add_callback`` is
    called, on whatever thread. If the wait is cancelled, the callback is given to ``forget``.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    bridge = bridge_to(loop)

    def happened(*_: object) -> None:
        bridge.call(_resolve, future)

    add_callback(happened)
    try:
        yield from future
    except BaseException:
        forget(happened)
        raise


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
