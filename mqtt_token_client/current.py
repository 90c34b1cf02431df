"""Current: the runtime whose callback is running on the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol


class CallsSoon(Protocol):
    """What of a runtime is needed where runtimes are not known; see ``mqtt/runtime/base.py``."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback at the end of this turn, after those that were given before it."""


class _Current(threading.local):
    runtime: CallsSoon | None = None


current = _Current()
"""``current.runtime`` is the runtime whose callback is running on the calling thread; None if none is."""
