"""OneShot: something that happens once, for threads and for event loops to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable


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
        return self._event.wait(timeout)

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have a function called when it happens, on that thread, or at once if it has happened already."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()
