"""What a client learns about its broker, connection by connection."""

from __future__ import annotations

import math
from socket import socket
from typing import TYPE_CHECKING

from ...clock import monotonic
from ...profiles import Credentials
from ...token import Token
from ..codec.packets import PROTOCOL_ERROR
from ..codec.reason_codes import BAD_METHOD, PACKET_TOO_LARGE
from ..transport.address import Address

if TYPE_CHECKING:
    from .broker_tls import BrokerTls

_MAX_FAILURES = 2  # of re-authentication in a row; fewer may be accidents
_AROUND_EXPIRY = 2.0  # seconds: a connection that ends so close to a token's expiry ends because of it


class ReauthenticationSupport:
    """Whether the current connection can get a new token by AUTH (MQTT 5 section 4.12.1)."""

    def __init__(self) -> None:
        self._method: str | None = None  # of CONNECT
        self._failures = 0  # in a row
        self._disabled = False  # on the current connection
        self._first_expiry: float | None = None  # of the token in CONNECT, if another has replaced it

    @property
    def possible(self) -> bool:
        return self._method is not None and self._failures < _MAX_FAILURES and not self._disabled

    def connected(self, credentials: Credentials) -> None:
        """A new connection is up."""
        self._method, self._first_expiry = credentials.auth_method, None
        self._disabled = False

    def matches(self, credentials: Credentials) -> bool:
        """Whether the method is that of CONNECT [MQTT-4.12.1-1]."""
        return credentials.auth_method is not None and credentials.auth_method == self._method

    def succeeded(self, before: Token) -> None:
        """The broker accepted a new token in the place of ``before``."""
        self._failures = 0
        if self._first_expiry is None:
            self._first_expiry = before.since + before.lifetime

    def disable_for_connection(self) -> None:
        """Do not try it on the current connection any more."""
        self._disabled = True

    def unanswered(self) -> None:
        """The broker did not answer, or ended the connection without a reason: this may be an accident, or the way in
        which it shows that it does not know AUTH.
        """
        self.disable_for_connection()
        self._failures += 1

    def ended(self, reason: int | None) -> None:
        """The connection ended before AUTH was answered, and not because of the token."""
        if reason is None:
            self.unanswered()
        elif reason in (PROTOCOL_ERROR, BAD_METHOD, PACKET_TOO_LARGE):
            self._failures = _MAX_FAILURES

    def expired_anyway(self) -> bool:
        """Whether the connection has just ended because the token of CONNECT expired, though the broker had accepted
        another since: then re-authentication is not used any more.
        """
        expiry, self._first_expiry = self._first_expiry, None
        expired = expiry is not None and abs(monotonic() - expiry) < _AROUND_EXPIRY
        if expired:
            self._failures = _MAX_FAILURES
        return expired


class BrokerTraits:
    """How the broker has behaved.

    Attributes:
        round_trip: seconds, the shortest that was seen.
        leaves_old_connection_open: after a session was taken over, against [MQTT-3.1.4-3].
        reauthentication: whether it works.
        tls: which TLS context it accepts.
    """

    def __init__(self, tls: BrokerTls) -> None:
        self.round_trip = math.inf
        self.leaves_old_connection_open = False
        self.reauthentication = ReauthenticationSupport()
        self.tls = tls

    def connected(self, address: Address, credentials: Credentials, sock: socket) -> None:
        """The broker accepted a new connection, over this socket."""
        self.reauthentication.connected(credentials)
        self.tls.accepted(address, sock)
