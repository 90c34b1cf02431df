"""When a token is renewed, and when again after a failure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..backoff import Backoff, uniform
from ..errors import ConfigurationError, MqttTokenError
from ..token import Token


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """When a token is renewed.

    Args:
        fraction: the part of its life after which the renewal begins.
        jitter: the part of its life by which, at most, the renewal begins earlier, at random, so that devices that
            started together do not ask together.
        backoff: the delays between failed tries.

    Raises:
        ConfigurationError: the numbers leave no life before or after the renewal.
    """

    fraction: float = 2 / 3
    jitter: float = 1 / 20
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        numbers = isinstance(self.fraction, int | float) and isinstance(self.jitter, int | float)
        if not (numbers and 0 <= self.jitter < self.fraction < 1):
            raise ConfigurationError(
                f"renewal: 0 <= jitter < fraction < 1 is needed, not fraction={self.fraction!r}, jitter={self.jitter!r}"
            )
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(f"renewal: backoff is a Backoff, not {type(self.backoff).__name__}")

    def due(self, token: Token) -> float:
        """When to renew a token, as a reading of :func:`~mqtt_token_client.clock.monotonic`; infinite for one without
        an end.
        """
        early = uniform(0.0, self.jitter)
        return token.since + token.lifetime * (self.fraction - early)

    def delay(self, error: MqttTokenError, failures: int) -> float:
        """Seconds to wait after ``error``, the last of so many failures in a row; at least what the server asked."""
        wait = self.backoff.slow_delay() if error.permanent else self.backoff.delay(failures)
        # At the very time that the server names all would come at once: the back-off spreads them from there on.
        return wait + (getattr(error, "retry_after", None) or 0.0)
