"""What a client knows of re-authentication with its broker (MQTT 5 section 4.12.1), and has learnt the hard way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...clock import monotonic
from ...profiles import Credentials
from ...token import Token
from ..codec.reason_codes import BAD_METHOD, PROTOCOL_ERROR

if TYPE_CHECKING:
    from ..codec.codec import Codec

_ACCIDENTS = 2  # in a row, which are none
_AROUND_THE_END = 2.0  # seconds: a connection that ends so near to a token's end does so because of it


class Reauthentication:
    """Whether the connection that is up can get a new token in place."""

    def __init__(self) -> None:
        self._method: str | None = None  # that CONNECT named
        self._failures = 0  # in a row
        self._not_here = False  # on the connection that is up
        self._first_token_ends: float | None = None  # of a connection that has got another since

    @property
    def possible(self) -> bool:
        return self._method is not None and self._failures < _ACCIDENTS and not self._not_here

    def connected(self, credentials: Credentials) -> None:
        """A new connection is up."""
        self._method, self._first_token_ends = credentials.auth_method, None
        self._not_here = False

    def suits(self, credentials: Credentials) -> bool:
        """Whether these have the method that the connection began with [MQTT-4.12.1-1]."""
        return credentials.auth_method is not None and credentials.auth_method == self._method

    def succeeded(self, before: Token) -> None:
        """The broker took a new token in place of that one."""
        self._failures = 0
        if self._first_token_ends is None:
            self._first_token_ends = before.since + before.lifetime

    def not_here(self) -> None:
        """It is not to be tried on this connection."""
        self._not_here = True

    def unanswered(self) -> None:
        """The broker does not answer, or the connection ended without a word: an accident perhaps, or its way to say
        that it does not know AUTH.
        """
        self.not_here()
        self._failures += 1

    def ended(self, reason: int | None) -> None:
        """The connection ended before AUTH was answered, and the token was not at fault."""
        if reason is None:
            self.unanswered()
        elif reason in (PROTOCOL_ERROR, BAD_METHOD):
            self._failures = _ACCIDENTS

    def was_in_vain(self) -> bool:
        """Whether the connection has just ended because the token did that it was opened with: that is learnt."""
        ends, self._first_token_ends = self._first_token_ends, None
        in_vain = ends is not None and abs(monotonic() - ends) < _AROUND_THE_END
        if in_vain:
            self._failures = _ACCIDENTS
        return in_vain


def auth_packet(engine: Codec, reason: int, credentials: Credentials) -> bytes:
    """AUTH with the token."""
    return engine.authenticate(reason, credentials.auth_method or "", credentials.auth_data or b"")
