"""RenewalPolicy: when a token is renewed, and when again after a failure."""

from __future__ import annotations

import math

from ..backoff import Backoff, uniform
from ..clock import monotonic
from ..errors import ConfigurationError, MqttTokenError
from ..token import Token
from ..value import Value

_LATEST = 0.9  # the part of its lifetime after which a token is renewed in any case


class RenewalPolicy(Value):
    """When a token is renewed.

    Args:
        fraction: the part of its lifetime after which the renewal begins.
        jitter: the part of its lifetime by which, at most, the renewal begins earlier, at random, so that devices that
            started together do not ask together.
        backoff: the delays between failed attempts.

    Raises:
        ConfigurationError: the numbers leave no time before or after the renewal.
    """

    fraction: float = 2 / 3
    jitter: float = 1 / 20
    backoff: Backoff = Backoff()

    def __post_init__(self) -> None:
        numbers = isinstance(self.fraction, int | float) and isinstance(self.jitter, int | float)
        if not (numbers and 0 <= self.jitter < self.fraction < 1):
            raise ConfigurationError(
                "renewal must have 0 <= jitter < fraction < 1, "
                f"got fraction={self.fraction!r} and jitter={self.jitter!r}"
            )
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(f"renewal: backoff must be a Backoff, got {type(self.backoff).__name__}")

    def due(self, token: Token) -> float:
        """When to renew a token, as a reading of :func:`~mqtt_token_client.clock.monotonic`: at once if its age is
        unknown, never (infinity) if it does not expire. It is renewed before its refresh token expires, too.
        """
        if not token.age_known:
            return token.since
        early = uniform(0.0, self.jitter)
        return token.since + token.renewable_for * (self.fraction - early)

    def due_late(self, token: Token) -> float:
        """When to renew a token that could not be stored: nearly as late as possible, as the next one may not be stored
        either.
        """
        return self.latest(token) if token.age_known else self.due_again(token)

    def latest(self, token: Token) -> float:
        """When to renew a token at the latest, as if it had been issued when it was loaded if its age is unknown."""
        return token.since + max(self.fraction, _LATEST) * token.renewable_for

    def due_again(self, token: Token) -> float:
        """When to ask again after the source returned the token that it had returned before."""
        if token.age_known:
            now = monotonic()
            return now + self.fraction * (token.since + token.renewable_for - now)
        # It may expire at any time: look twice in the part of a lifetime that is left for retries.
        return monotonic() + (1 - self.fraction) / 2 * token.lifetime

    def delay(self, error: MqttTokenError, failures: int) -> float:
        """Return the seconds to wait after ``error``, the last of ``failures`` in a row; at least ``Retry-After``."""
        wait = self.backoff.slow_delay() if error.permanent else self.backoff.delay(failures)
        # All clients would come back at the time that the server names, so the back-off is added to it.
        return wait + _asked_for(error)


def _asked_for(error: MqttTokenError) -> float:
    """Return for how many seconds an error asks to wait, which may be that of a user's source."""
    seconds = getattr(error, "retry_after", None)
    return float(seconds) if isinstance(seconds, int | float) and 0 < seconds < math.inf else 0.0
