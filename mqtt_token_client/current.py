"""Current: what the calling thread is in the middle of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol


class CallsSoon(Protocol):
    """What of a runtime is needed where runtimes are not known; see ``mqtt/runtime/base.py``."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback at the end of this turn, after those that were given before it."""


class _Current(threading.local):
    """Of each thread.

    Attributes:
        runtime: whose callback is running; None if none is.
        holds_lock: whether it holds a lock that the network thread may wait for.
    """

    runtime: CallsSoon | None = None
    holds_lock: bool = False

    @property
    def in_handler(self) -> bool:
        """Whether the network thread may wait for the caller, which then must not wait for it: a handler, or a signal
        handler that interrupts whoever holds that lock.
        """
        return self.runtime is not None or self.holds_lock


current = _Current()
