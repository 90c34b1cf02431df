"""Backoff: how long to wait before the next attempt, exponential with full jitter."""

from __future__ import annotations

import random

from .errors import ConfigurationError
from .value import Value


def uniform(lowest: float, highest: float) -> float:
    """Return a random number, so that devices that fail at the same time do not come back at the same time."""
    return random.uniform(lowest, highest)  # noqa: S311 - not for a secret


class Backoff(Value):
    """Delays between failed attempts, each a random part of a limit that doubles (full jitter).

    Args:
        initial: the limit of the first delay, in seconds.
        maximum: the limit of all delays, in seconds.
        stable_after: a connection that was up for this many seconds counts as a success: the next delay is the first
            again.

    Raises:
        ConfigurationError: a number is out of range.
    """

    initial: float = 1.0
    maximum: float = 120.0
    stable_after: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum:
            raise ConfigurationError(
                f"backoff must have 0 < initial <= maximum, got initial={self.initial} and maximum={self.maximum}"
            )
        if self.stable_after < 0:
            raise ConfigurationError(f"backoff: stable_after must be at least 0 seconds, got {self.stable_after}")

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row (at least 1)."""
        limit = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 60))
        return uniform(0.0, limit)

    def slow_delay(self) -> float:
        """Return the seconds to wait if only a person can fix the cause: half of the maximum to all of it."""
        return uniform(self.maximum / 2, self.maximum)
