"""How long to wait before trying again: exponential with full jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import ConfigurationError


def uniform(lowest: float, highest: float) -> float:
    """A random number between two, so that devices that fail together do not come back together."""
    return random.uniform(lowest, highest)  # noqa: S311 - hides nothing


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between failed attempts, each a random part of a bound that doubles (full jitter).

    Args:
        initial: bound of the first delay, in seconds.
        maximum: bound that no delay passes, in seconds.
        stable_after: a connection that lived this many seconds counts as a success: the next delay is the first again.

    Raises:
        ConfigurationError: the numbers do not make a sequence.
    """

    initial: float = 1.0
    maximum: float = 120.0
    stable_after: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum:
            raise ConfigurationError(
                f"backoff: 0 < initial <= maximum is needed, not initial={self.initial}, maximum={self.maximum}"
            )
        if self.stable_after < 0:
            raise ConfigurationError(f"backoff: stable_after is seconds, 0 or more, not {self.stable_after}")

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        bound = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 60))
        return uniform(0.0, bound)

    def slow_delay(self) -> float:
        """Seconds to wait when only a person can mend the cause: about the longest delay, never none."""
        return uniform(self.maximum / 2, self.maximum)
