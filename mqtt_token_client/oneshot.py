"""OneShot: something that happens once, for threads and for event loops to wait for."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from .clock import monotonic

_LONGEST_WAIT = 0.5  # seconds


def wait_for(event: threading.Event, timeout: float | None) -> bool:
    """Like ``event.wait(timeout)``, and Ctrl-C always ends it.

    Python looks for signals between its instructions. One that comes after the last of them and before the lock blocks
    is seen at the end of the wait; the same is true of one that the kernel gives to another thread. So the main thread,
    where signal handlers run, waits in parts.
    """
    if threading.current_thread() is not threading.main_thread():
        return event.wait(timeout)
    ends = math.inf if timeout is None else monotonic() + timeout
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

    def wait(self, timeout: float | None = None) -> bool:
        """Wait so many seconds at most; whether it has happened."""
        return wait_for(self._event, timeout)

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have a function called when it happens, on that thread, or at once if it has happened already."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()
