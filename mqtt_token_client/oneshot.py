"""OneShot: something that happens once, for threads and for event loops to wait for."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

from .clock import monotonic
from .errors import ConfigurationError

_LONGEST_WAIT = 0.5  # seconds

_Callback = TypeVar("_Callback", bound=Callable[..., object])


def check_timeout(timeout: float | None, where: str) -> float:
    """Return the seconds that a caller allows; infinity for None, which sets no limit.

    Raises:
        ConfigurationError: it is not a number, or a negative one; ``where`` names the method.
    """
    return math.inf if timeout is None else check_seconds(timeout, where)


def check_seconds(seconds: float, where: str) -> float:
    """Return a timeout that has to be a number; infinity if it is longer than the system can wait.

    Raises:
        ConfigurationError: it is not a number, or a negative one; ``where`` names the method.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise ConfigurationError(f"{where}: timeout must be seconds, 0 or more, got {seconds!r}")
    return float(seconds) if seconds < threading.TIMEOUT_MAX else math.inf


def take_first(callbacks: list[_Callback]) -> _Callback | None:
    """Remove the first callback from a list and return it; None if there is none left. Where several threads do this,
    each callback is called once.
    """
    try:
        return callbacks.pop(0)
    except IndexError:
        return None


def wait_for(
    add: Callable[[Callable[..., None]], object], forget: Callable[[Callable[..., None]], object], timeout: float
) -> bool:
    """Wait until something calls the callback that ``add`` is given, so many seconds at most; return whether it did.
    ``forget`` takes the callback back. Ctrl-C always ends it.

    It waits for a bare lock, as a signal handler that runs in the middle of this may wait, too: it would wait forever
    for a thread that needs the lock inside a :class:`threading.Event`, which the interrupted wait may hold.
    """
    lock = threading.Lock()
    lock.acquire()

    def release(*_: object) -> None:
        lock.release()

    add(release)
    try:
        return _acquire(lock, timeout)
    finally:
        forget(release)


def _acquire(lock: threading.Lock, timeout: float) -> bool:
    """Python looks for signals between its instructions. One that comes after the last of them and before the lock
    blocks is seen at the end of the wait; the same is true of one that the kernel gives to another thread. So the main
    thread, where signal handlers run, waits in parts.
    """
    if threading.current_thread() is not threading.main_thread():
        return lock.acquire(timeout=-1 if timeout == math.inf else max(0.0, timeout))
    ends = monotonic() + timeout
    while not lock.acquire(timeout=min(_LONGEST_WAIT, max(0.0, ends - monotonic()))):
        if monotonic() >= ends:
            return False
    return True


class OneShot:
    """Something that happens once. Any thread may wait for it, or have a callback called; so may a signal handler, in
    the middle of whatever the main thread does, as nothing here holds a lock.

    Attributes:
        is_set: whether it has happened.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: list[Callable[[], object]] = []

    def set(self) -> None:
        """It has happened."""
        self.is_set = True
        self._call_back()

    def _call_back(self) -> None:
        while (callback := take_first(self._callbacks)) is not None:
            callback()

    def __await__(self) -> Generator[Any, None, None]:
        """Wait on an event loop."""
        if not self.is_set:
            from .loop_bridge import wait_on_loop  # it loads asyncio

            yield from wait_on_loop(self.add_callback, self._forget)

    def wait(self, timeout: float = math.inf) -> bool:
        """Wait so many seconds at most; return whether it has happened."""
        return self.is_set or wait_for(self.add_callback, self._forget, timeout)

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Have a function called when it happens, on that thread, or at once if it has happened already."""
        self._callbacks.append(callback)
        if self.is_set:
            self._call_back()

    def _forget(self, callback: Callable[[], object]) -> None:
        """Do not call it any more: waits that are cancelled would leave one each."""
        with suppress(ValueError):
            self._callbacks.remove(callback)
