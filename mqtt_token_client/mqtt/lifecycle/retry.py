"""RetryState: what failed in a row, which token was rejected, and when the next attempt begins because of that."""

from __future__ import annotations

import math

from ...backoff import Backoff, uniform
from ...clock import monotonic, wall
from ...token import Token

_MAX_ABSENCE = 3600.0  # seconds until a client comes back to a session that another one has taken over
_TAKE_OVERS_FORGOTTEN = 86_400.0  # seconds after which a take-over counts as the first one again

_NEAR_EXPIRY = 30.0  # a close without a reason so many seconds before a token expires, or in the last tenth of its
# lifetime, counts as caused by that

# Brokers check nbf and iat to the second (RFC 7519 sections 4.1.5 and 4.1.6). To one whose clock is behind, a young
# token is not valid yet, and a newer one even less: the same one is presented again. The same helps where a broker has
# just started and has no keys yet. If the broker has accepted another one that was as young, its clock is probably
# right: one new token is tried first. One is tried too if the clock of this device was set: what it signed before has
# the wrong times, as a device without a clock chip signs before NTP answers.
_YOUNG = 60.0  # seconds since the request for the token
_CLOCK_STEP = 1.0  # seconds: the times in a token are whole ones
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0  # seconds
_RENEWED_AT, _LONGEST_PATIENCE = 2 / 3, 3600.0  # of a token's lifetime, and seconds: then another is requested
_CLOCK_SET = 5.0  # seconds by which the wall clock moved against the monotonic one; NTP corrects less gradually
_PASSING = 60.0  # seconds of rejections in a row that may pass by themselves

_ENDED_AT_ONCE = 3  # connections in a row, before another client with the same identifier is suspected


class RetryState:
    """Failures and rejected tokens in a row, and the delays that follow from them.

    Args:
        backoff: makes the delays.

    Attributes:
        rejected: the token that must not be presented again.
        rejections: in a row, of one token or of several.
    """

    def __init__(self, backoff: Backoff) -> None:
        self.rejected: Token | None = None
        self.rejections = 0
        self._backoff = backoff
        self._failures = 0
        self._stable_at = 0.0
        self._rejected_since = 0.0
        self._replaced = 0  # how many of the rejected tokens another one was requested for
        self._accepted: Token | None = None  # the last one that the broker accepted
        self._youngest = math.inf  # the age at which one was accepted, in seconds, if its time could be checked
        self._too_early: Token | None = None  # rejected, and perhaps only because of that
        self._wait = 0.0  # until it is presented again
        self._ended_at_once = 0
        self._denied: Token | None = None  # the last one that a request over the connection was denied for
        self._take_overs = 0, 0.0  # in a row, and when the last one was
        self._wall_offset = wall() - monotonic()

    def connected(self, token: Token) -> None:
        """A connection is up where none was: it counts as a success once it has been up for a while."""
        self._token_accepted(token)
        self._stable_at = monotonic() + min(self._backoff.stable_after, token.lifetime / 2)

    def rotated(self, token: Token) -> None:
        """The broker accepted a new token while a connection was up: a success."""
        self._failures = self.rejections = self._replaced = 0
        self._token_accepted(token)

    def _token_accepted(self, token: Token) -> None:
        self.rejected = None
        self._accepted = token
        if _has_time(token):
            self._youngest = min(self._youngest, monotonic() - token.since)

    def reset_if_stable(self) -> None:
        """Forget the failures if the connection was up long enough to count as a success."""
        if monotonic() >= self._stable_at:
            self._failures = self.rejections = self._replaced = 0

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
        before, last = self._take_overs
        if now > last + _TAKE_OVERS_FORGOTTEN:
            before = 0
        self._take_overs = before + 1, now
        bound = min(self._backoff.maximum * 2.0 ** min(before, 60), _MAX_ABSENCE)
        return uniform(bound / 2, bound)

    def after_rejection(self, token: Token, *, presented: bool = True, elsewhere: bool = False) -> float:
        """Count the rejection of a token; return the seconds until a new one is presented: none at first, then a
        back-off; or until the same one is presented again, if it may not be valid yet.

        Args:
            token: that was rejected.
            presented: whether the broker rejected it when it was presented. Otherwise it is that of the connection that
                was up: one that has been rejected since then is newer, and stays rejected.
            elsewhere: whether another broker is next, which has not rejected it.
        """
        if not self.rejections:
            self._rejected_since = monotonic()
        self.rejections += 1
        if elsewhere:
            return 0.0
        if presented and self._may_be_too_early(token):
            return self._wait
        if self.rejected is None or presented:
            self.rejected = token
        self._replaced += 1
        return 0.0 if self._replaced == 1 else self._backoff.delay(self._replaced - 1)

    def _may_be_too_early(self, token: Token) -> bool:
        """Whether to present a token again, after ``_wait`` seconds."""
        if self._clock_was_set():
            return False
        age = monotonic() - token.since
        if token != self._too_early:
            if age >= _YOUNG or token == self._accepted or not _has_time(token):
                return False
            if not self._replaced and age + _CLOCK_STEP >= self._youngest:
                return False
            self._too_early, self._wait = token, _FIRST_WAIT / 2
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
        return age + self._wait < min(token.lifetime * _RENEWED_AT, _LONGEST_PATIENCE)

    def _clock_was_set(self) -> bool:
        """Whether this device's clock was set since this was asked last, or since the start."""
        before, self._wall_offset = self._wall_offset, wall() - monotonic()
        return abs(self._wall_offset - before) > _CLOCK_SET

    @property
    def rejected_for_long(self) -> bool:
        """Whether one more rejection shows that they do not pass by themselves, as they have gone on for so long."""
        return self.rejections > 0 and monotonic() >= self._rejected_since + _PASSING

    def ended_at_once(self, *, without_cause: bool) -> bool:
        """Count a connection that the broker ended soon after it had accepted it. Return whether so many ended
        ``without_cause`` that another client probably uses the same client identifier.
        """
        self._ended_at_once = self._ended_at_once + 1 if without_cause else 0
        return self._ended_at_once >= _ENDED_AT_ONCE

    def is_first_denial(self, token: Token) -> bool:
        """Whether nothing else was denied over a connection because of this token; asked once for each denial."""
        first, self._denied = token != self._denied, token
        return first


def _has_time(token: Token) -> bool:
    return not token.claims.keys().isdisjoint(("iat", "nbf"))


def expires_soon(token: Token) -> bool:
    """Whether a connection that ends now without a reason ends because this token expires."""
    return token.expires_in < min(_NEAR_EXPIRY, token.lifetime / 10)
