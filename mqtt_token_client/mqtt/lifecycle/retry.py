"""RetryState: what failed in a row, which token was rejected, and when the next attempt begins because of that."""

from __future__ import annotations

from ...backoff import Backoff, uniform
from ...clock import monotonic
from ...token import Token

_MAX_ABSENCE = 3600.0  # seconds until a client comes back to a session that another one has taken over
_TAKE_OVERS_FORGOTTEN = 86_400.0  # seconds after which a take-over counts as the first one again

_NEAR_EXPIRY = 30.0  # a close without a reason so many seconds before a token expires, or in the last tenth of its
# lifetime, counts as caused by that

# Some issuers write nbf, and brokers check it to the second. If the broker's clock is a little behind, a new token is
# not valid yet (RFC 7519 section 4.1.5).
_NBF_GRACE, _NBF_RETRY = 5.0, 2.0  # seconds


class RetryState:
    """Failures and rejected tokens in a row, and the delays that follow from them.

    Args:
        backoff: makes the delays.

    Attributes:
        rejected: the token that must not be presented again.
        rejections: of tokens in a row.
    """

    def __init__(self, backoff: Backoff) -> None:
        self.rejected: Token | None = None
        self.rejections = 0
        self._backoff = backoff
        self._failures = 0
        self._stable_at = 0.0
        self._too_early: Token | None = None  # rejected once, and perhaps only because of that
        self._denied: Token | None = None  # the last one that a request over the connection was denied for
        self._take_overs = 0
        self._taken_over_at = 0.0

    def connected(self, token: Token) -> None:
        """A connection is up where none was: it counts as a success once it has been up for a while."""
        self.rejected = None
        self._stable_at = monotonic() + min(self._backoff.stable_after, token.lifetime / 2)

    def rotated(self) -> None:
        """The broker accepted a new token while a connection was up: a success."""
        self._failures = self.rejections = 0
        self.rejected = None

    def reset_if_stable(self) -> None:
        """Forget the failures if the connection was up long enough to count as a success."""
        if monotonic() >= self._stable_at:
            self._failures = self.rejections = 0

    def cause_found(self) -> None:
        """The failures had a cause that is removed: begin with short delays again."""
        self._failures = 0

    def after_failure(self, *, permanent: bool = False) -> float:
        """Count a failure that is not due to the token; return the seconds until the next attempt."""
        if permanent:
            return self._backoff.slow_delay()
        self._failures += 1
        return self._backoff.delay(self._failures)

    def after_take_over(self) -> float:
        """Return the seconds until the session is taken back from another client with the same client identifier. One
        of the two loses its connection each time, so they come back ever later, however long they were connected.
        """
        now = monotonic()
        if now > self._taken_over_at + _TAKE_OVERS_FORGOTTEN:
            self._take_overs = 0
        self._taken_over_at = now
        self._take_overs += 1
        bound = min(self._backoff.maximum * 2.0 ** min(self._take_overs - 1, 60), _MAX_ABSENCE)
        return uniform(bound / 2, bound)

    def after_rejection(self, token: Token, *, presented: bool = True) -> float:
        """Count the rejection of a token; return the seconds until a new one is presented: none at first, then a
        back-off; or until the same one is presented again, if it may not have been valid yet.

        A token that was not ``presented`` is that of the connection that was up: one that has been rejected since then
        is newer, and stays rejected.
        """
        if token != self._too_early and "nbf" in token.claims and monotonic() - token.since < _NBF_GRACE:
            self._too_early = token
            return _NBF_RETRY
        if self.rejected is None or presented:
            self.rejected = token
        self.rejections += 1
        return 0.0 if self.rejections == 1 else self._backoff.delay(self.rejections - 1)

    def is_first_denial(self, token: Token) -> bool:
        """Whether nothing else was denied over a connection because of this token; asked once for each denial."""
        first, self._denied = token != self._denied, token
        return first


def expires_soon(token: Token) -> bool:
    """Whether a connection that ends now without a reason ends because this token expires."""
    return token.expires_in < min(_NEAR_EXPIRY, token.lifetime / 10)
