"""The clocks of a device, as the library reads them: they jump when a test says so."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Self

from .. import clock
from ..mqtt.runtime.thread import acquire_network_thread, release_network_thread


class DeviceClock:
    """A context manager: until it exits, the library reads these clocks. The servers judge tokens by the right time;
    the broker's messages and the codes of a device login expire in a jump, too.

    A timer that is due after a jump runs at once, as on a device that wakes from suspend. While a client still works at
    the end, the time that has passed stays passed: a clock that went back by hours would hold up its timers for hours.
    """

    def __init__(self) -> None:
        self._suspended = getattr(vars(clock)["time"], "suspended", 0.0)
        self._jumped = 0.0
        self._off = 0.0

    def __enter__(self) -> Self:
        vars(clock)["time"] = SimpleNamespace(
            time=lambda: time.time() + self._jumped + self._off,
            clock_gettime=lambda clock_id: time.clock_gettime(clock_id) + self._suspended,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._jumped = self._off = 0.0
        if any(thread.name.startswith("mqtt-token-") for thread in threading.enumerate()):
            vars(clock)["time"].suspended = self._suspended
        else:
            vars(clock)["time"] = time

    def jump(self, *, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0) -> None:
        """Let time pass in which the device was suspended."""
        passed = 3600 * hours + 60 * minutes + seconds
        self._suspended += passed
        self._jumped += passed
        acquire_network_thread().call_soon(lambda: None)  # it sleeps until a reading of the clock that has passed
        release_network_thread()

    def set_wrong(self, *, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0) -> None:
        """Let the wall clock be ahead by so much, or behind, as that of a device without a clock chip."""
        self._off = 3600 * hours + 60 * minutes + seconds
