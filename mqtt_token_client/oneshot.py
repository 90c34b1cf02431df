"""OneShot: something that happens once, for threads and for event loops to wait for."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from typing import Any

from .clock import monotonic
from .errors import ConfigurationError

_LONGEST_WAIT = 0.5  # seconds


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


def wait_for(event: threading.Event, timeout: float = math.inf) -> bool:
    """Like ``event.wait(timeout)``, but it also accepts infinity, and Ctrl-C always ends it.

    Python looks for signals between its instructions. One that comes after the last of them and before the lock blocks
    is seen at the end of the wait; the same is true of one that the kernel gives to another thread. So the main thread,
    where signal handlers run, waits in parts.
    """
    if threading.current_thread() is not threading.main_thread():
        return event.wait(None if timeout == math.inf else timeout)
    ends = monotonic() + timeout
    while not event.wait(min(_LONGEST_WAIT, max(0.0, ends - monotonic()))):
        if monotonic() >= ends:
            return False
    return True


class OneShot:
    """Something that happens once. Any thread may wait for it, or have a callback called."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """It has happened."""
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    @property
    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._event.is_set()

    def __await__(self) -> Generator[Any, None, None]:
        """Wait on an event loop."""
        if not self._event.is_set():
            from .loop_bridge import wait_on_loop  # it loads asyncio

            yield from wait_on_loop(self.add_callback, self._forget)

    def wait(self, timeout: float = math.inf) -> bool:
        """Wait so many seconds at most; return whether it has happened."""
        return wait_for(self._event, timeout)

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have a function called when it happens, on that thread, or at once if it has happened already."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def _forget(self, callback: Callable[[], None]) -> None:
        """Do not call it any more: waits that are cancelled would leave one each."""
        with self._lock:
            self._callbacks = [one for one in self._callbacks if one is not callback]
