"""ExitGuard: a process that ends waits for an answer that must not be lost."""

from __future__ import annotations

import atexit
import time

from ..clock import monotonic

_LONGEST_WAIT = 60.0  # seconds
_POLL_INTERVAL = 0.02  # seconds

_held: set[ExitGuard] = set()


class ExitGuard:
    """Keeps the process from ending for a minute at most, while it is held: from when a refresh token may be used up
    until its successor is stored. Without it, a person would have to approve again.

    Args:
        needed: whether there is anything to lose.
    """

    def __init__(self, *, needed: bool) -> None:
        self._needed = needed

    def __enter__(self) -> ExitGuard:
        if self._needed:
            _held.add(self)
        return self

    def release(self) -> None:
        """Let the process end. May be called more than once."""
        _held.discard(self)

    def __exit__(self, *_: object) -> None:
        self.release()


@atexit.register
def _wait_for_guards() -> None:
    deadline = monotonic() + _LONGEST_WAIT
    while _held and monotonic() < deadline:
        time.sleep(_POLL_INTERVAL)  # the interpreter runs this when no thread could be joined any more
