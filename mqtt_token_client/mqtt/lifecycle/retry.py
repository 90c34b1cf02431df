"""When to try again: what failed in a row, which token was refused, and whether a connection has proved itself."""

from __future__ import annotations

from ...backoff import Backoff, uniform
from ...clock import monotonic
from ...token import Token

_LONGEST_ABSENCE = 3600.0  # seconds, after which a client comes back to a session that another has taken over
_FORGOTTEN = 86_400.0  # seconds, after which a take-over is the first again

_NEAR_THE_END = 30.0  # a bare close this many seconds before a token's end, or in its last tenth, is taken for its end

# Some issuers write nbf, and brokers check it to the second: by a clock that is a little behind, a new token's time has
# not come yet (RFC 7519 section 4.1.5).
_YOUNG, _ITS_TIME_COMES = 5.0, 2.0  # seconds


class RetryState:
    """The failures and the refused tokens in a row, and the delays that follow from them."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._stable_at = 0.0
        self.refusals = 0
        self.refused: Token | None = None  # not to be presented again
        self._too_early: Token | None = None  # refused once, and perhaps only because of that
        self._take_overs = 0
        self._taken_over_at = 0.0

    def connected(self, token: Token) -> None:
        """A first connection, or one after a loss: it counts as a success once it has lived for a while."""
        self.refused = None
        self._stable_at = monotonic() + min(self._backoff.stable_after, token.lifetime / 2)

    def rotated(self) -> None:
        """The broker took a new token while the connection was up: a success."""
        self._failures = self.refusals = 0
        self.refused = None

    def count_anew_if_stable(self) -> None:
        """Begin to count anew if the connection has lived long enough to count as a success."""
        if monotonic() >= self._stable_at:
            self._failures = self.refusals = 0

    def after_failure(self, *, permanent: bool = False) -> float:
        """Seconds until the next try, after what is not the token's fault."""
        if permanent:
            return self._backoff.slow_delay()
        self._failures += 1
        return self._backoff.delay(self._failures)

    def after_take_over(self) -> float:
        """Seconds until the session is taken back from another client with the same identifier. One of the two loses
        its connection each time, so they come back ever later, however long they were connected.
        """
        now = monotonic()
        if now > self._taken_over_at + _FORGOTTEN:
            self._take_overs = 0
        self._taken_over_at = now
        self._take_overs += 1
        bound = min(self._backoff.maximum * 2.0 ** min(self._take_overs - 1, 60), _LONGEST_ABSENCE)
        return uniform(bound / 2, bound)

    def after_refusal(self, token: Token, *, presented: bool = True) -> float:
        """Seconds until a new token is tried: none at first, then a back-off; or until the same one is, whose time may
        not have come. One that was not ``presented`` is that of the connection that was up: any that has been refused
        since then is newer, and stays refused.
        """
        if token != self._too_early and "nbf" in token.claims and monotonic() - token.since < _YOUNG:
            self._too_early = token
            return _ITS_TIME_COMES
        if self.refused is None or presented:
            self.refused = token
        self.refusals += 1
        return 0.0 if self.refusals == 1 else self._backoff.delay(self.refusals - 1)


def is_near_its_end(token: Token) -> bool:
    """Whether a connection that ends without a reason ended because its token did."""
    return token.expires_in < min(_NEAR_THE_END, token.lifetime / 10)
