"""The connection that is up: its packets reach the session, and messages go out over it."""

from __future__ import annotations

from typing import Protocol

from ...clock import monotonic
from ...errors import ProtocolError
from ...profiles import Credentials
from ...token import Token
from ..codec.message import Message
from ..codec.packets import DISCONNECT, Acknowledgement, Auth, Connack, Disconnect, Packet, Pingresp
from ..session.delivery import Outgoing
from ..session.limits import Limits
from ..session.reports import Blame
from ..session.session import Session
from ..transport import Loss
from ..transport.connection import NetworkConnection
from .attempt import Attempt
from .recovery import describe
from .retry import expires_soon

_YOUNG = 30.0  # seconds
_AUTH_OVERHEAD = 15  # bytes at most, beside the method and the data


class CurrentOwner(Protocol):
    """Gets what happens on the current connection and does not concern the session."""

    attempt: Attempt

    def progressed(self) -> None:
        """The connection has room for more, or an answer may have made room."""

    def connection_ended(self, loss: Loss) -> None:
        """The connection has ended, or the broker has said that it ends; the owner retires it."""

    def token_denied(self, token: Token) -> None:
        """The broker denied something because this token has expired."""

    def reauthenticated(self, token: Token) -> None:
        """The broker accepted a new token."""


class CurrentConnection:
    """A connection that the broker accepted.

    Args:
        connection: the network connection.
        token: that the broker accepted.
        limits: that its CONNACK announced.
        session: of the client.
        owner: of this object.

    Attributes:
        token: the one that the broker accepted last.
        unanswered: the token of an AUTH that got no answer in time.
    """

    def __init__(
        self,
        connection: NetworkConnection[Outgoing],
        token: Token,
        limits: Limits,
        session: Session,
        owner: CurrentOwner,
    ) -> None:
        self.connection = connection
        self.token = token
        self.limits = limits
        self.unanswered: Token | None = None
        self._began = monotonic()
        self._session = session
        self._owner = owner

    def send(self) -> bool:
        """Send from the outbox. Returns whether more is to be sent after the other connections had their turn."""
        return self._session.send(self.connection, self.limits)

    def retire(self, loss: Loss | None = None) -> Blame:
        """Close the connection. The next one finishes what it did not.

        Args:
            loss: how it ended, if nobody planned that.
        """
        self.connection.close()
        return self._session.connection_lost(self.connection, loss, early=self.is_young)

    @property
    def is_young(self) -> bool:
        """Whether it has just begun, so that the broker may have ended it because of what was sent at once."""
        return monotonic() < self._began + _YOUNG

    def fits(self, credentials: Credentials) -> bool:
        """Whether AUTH with these is no larger than the broker accepts [MQTT-3.2.2-15]."""
        size = _AUTH_OVERHEAD + len(credentials.auth_method or "") + len(credentials.auth_data or b"")
        return self.limits.packet_size is None or size <= self.limits.packet_size

    # Called by the network connection

    def packets_arrived(self, connection: NetworkConnection[Outgoing], packets: list[Packet]) -> None:
        receive_message, receive_acknowledgement = self._session.receive_message, self._session.receive_acknowledgement
        try:
            for packet in packets:
                if connection.closed:
                    return
                if isinstance(packet, Message):
                    receive_message(connection, packet)
                elif isinstance(packet, Acknowledgement) and packet.reason < 0x80:
                    receive_acknowledgement(connection, packet)
                else:
                    self._rare_packet_arrived(packet)
        except ProtocolError as error:
            connection.fail(error)
            return
        self._owner.progressed()

    def _rare_packet_arrived(self, packet: Packet) -> None:
        if isinstance(packet, Disconnect):
            meaning = describe(DISCONNECT, packet.reason, packet.server, packet.text)
            cause = f"the broker ended the connection: {meaning}"
            self._owner.connection_ended(Loss(cause, packet.reason, by_broker=True))
        elif isinstance(packet, Auth | Connack):
            self._authentication_answered(packet)
        elif expires_soon(self.token) and self._session.denied(packet):
            self._owner.token_denied(self.token)
        elif not isinstance(packet, Message | Pingresp):  # a PINGRESP that answers no PINGREQ is ignored
            self._session.receive(self.connection, packet)

    def _authentication_answered(self, answer: Auth | Connack) -> None:
        if self.unanswered is not None and isinstance(answer, Auth):
            if not answer.reason:  # the broker accepted the token after all
                self._owner.reauthenticated(self.unanswered)
        elif not self.connection.ended and not self._owner.attempt.authentication_answered(answer):
            self.connection.fail(ProtocolError("the broker sent a packet that is out of place"))

    def connection_writable(self, connection: NetworkConnection[Outgoing]) -> None:  # noqa: ARG002
        self._owner.progressed()

    def connection_wrote(self, items: list[Outgoing]) -> None:
        self._session.written(items)

    def connection_closed(self, connection: NetworkConnection[Outgoing], loss: Loss) -> None:  # noqa: ARG002
        self._owner.connection_ended(loss)
