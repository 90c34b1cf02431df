"""Connect: CONNECT goes out over an open transport, and the broker answers.

This is a whole attempt where no connection is up, and the last part of a handover and of a reconnect:

    OPEN      the transport is open, CONNECT was not sent: a rotation prepares the current connection first
    AWAITING  CONNECT was sent, CONNACK is awaited. With an Authentication Method of MQTT 5 the broker may ask for the
              token by AUTH before (section 4.12)
    ANSWERED  CONNACK was received
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from ...errors import BrokerUnreachable, ProtocolError
from ...profiles import Credentials
from ..codec.bodies import reason_string
from ..codec.packets import CONTINUE_AUTHENTICATION, Auth, Connack, Disconnect, Packet
from ..runtime.base import Runtime
from ..session.delivery import Outgoing
from ..session.session import Session
from ..transport import Loss
from ..transport.connection import NetworkConnection
from ..transport.happy_eyeballs import avoid, peer
from .attempt import Attempt, ConnectListener, Deadline, Rejection
from .opening import Opened

_OTHER_PORT = "; perhaps this port speaks TLS (mqtts://) or WebSocket (ws://)"
_CONNACK_TIME = 15.0  # seconds for the broker to answer CONNECT
AUTH_STEPS = 3  # how often the broker may ask for the token in one authentication


class State(Enum):
    OPEN = auto()
    AWAITING = auto()
    ANSWERED = auto()


class Connect(Attempt):
    """One CONNECT and its answer.

    Args:
        runtime: drives it.
        session: is informed if the broker may have begun a new session unnoticed.
        opened: the transport and the packet.
        broker: its URL, for messages.
        listener: gets the result. A rotation puts itself in its place.
        gave_up: called if the attempt ends after CONNECT was sent and before an answer, so that the broker may still
            handle it.

    Attributes:
        connection: the new network connection.
        credentials: what CONNECT carries.
        sock: the socket underneath.
    """

    def __init__(
        self,
        runtime: Runtime,
        session: Session,
        opened: Opened,
        broker: str,
        listener: ConnectListener,
        gave_up: Callable[[], None],
    ) -> None:
        self.connection: NetworkConnection[Outgoing] = NetworkConnection(runtime, opened.sock, opened.codec, self)
        self.credentials = opened.credentials
        self.sock = opened.sock
        self._peer = peer(opened.sock)
        self.listener = listener
        self._session = session
        self._packet = opened.packet
        self._broker = broker
        self._gave_up = gave_up
        self._state = State.OPEN
        self._deadline = Deadline(runtime)
        self._auth_steps = 0

    def send(self) -> None:
        """Send CONNECT."""
        assert self._state is State.OPEN
        if self.connection.closed:
            self.listener.failed(BrokerUnreachable(f"{self._broker}: the connection broke before CONNECT"))
            return
        self._state = State.AWAITING
        self._deadline.set(_CONNACK_TIME, self._no_answer)
        self.connection.write(self._packet)
        self.connection.flush()

    def _no_answer(self) -> None:
        avoid(self._peer)
        text = f"{self._broker}: no CONNACK within {_CONNACK_TIME:g} s; check that this port speaks MQTT"
        self.listener.failed(BrokerUnreachable(text))

    def _answered(self, answer: Packet, more: list[Packet]) -> None:
        if isinstance(answer, Auth) and answer.reason == CONTINUE_AUTHENTICATION:
            self._continue()
        elif isinstance(answer, Disconnect) and answer.reason >= 0x80:  # in the place of CONNACK, but with a reason
            self.listener.rejected(Rejection(self.credentials.token, answer.reason, answer.server, answer.text))
        elif not isinstance(answer, Connack):
            self.listener.failed(ProtocolError("the first packet of the broker was not CONNACK"))
        else:
            self._state = State.ANSWERED
            self._deadline.cancel()
            if answer.reason:
                server, text = answer.properties.get("server_reference"), reason_string(answer.properties)
                self.listener.rejected(Rejection(self.credentials.token, answer.reason, server, text))
            else:
                self.listener.accepted(self, answer, more)

    def _continue(self) -> None:
        self._auth_steps += 1
        if self.credentials.auth_method is None:
            self.listener.failed(ProtocolError("the broker sent AUTH, and CONNECT named no Authentication Method"))
        elif self._auth_steps > AUTH_STEPS:
            self.listener.failed(ProtocolError("the broker asked for the token again and again"))
        else:
            send_auth(self.connection, CONTINUE_AUTHENTICATION, self.credentials)

    @property
    def awaiting(self) -> bool:
        """Whether CONNECT was sent and not answered."""
        return self._state is State.AWAITING

    def retire(self) -> None:
        """Close the connection, after DISCONNECT was sent on it."""
        self.connection.close()

    def close(self, *, disconnect: bool = False) -> None:
        if disconnect and self.awaiting:
            self.connection.end()
        self.connection.close()

    def end(self) -> None:
        if self._state is State.AWAITING:
            self._session.in_doubt()
            self._gave_up()
        self._deadline.cancel()

    # Called by the new connection

    def packets_arrived(self, connection: NetworkConnection[Outgoing], packets: list[Packet]) -> None:  # noqa: ARG002
        if self._state is State.AWAITING:  # a broker that speaks before CONNECT is not heard
            self._answered(packets[0], packets[1:])

    def connection_writable(self, connection: NetworkConnection[Outgoing]) -> None:
        """Do nothing: CONNECT is all that is sent."""

    def connection_wrote(self, items: list[Outgoing]) -> None:
        """Do nothing: no message is sent."""

    def connection_closed(self, connection: NetworkConnection[Outgoing], loss: Loss) -> None:  # noqa: ARG002
        if loss.reason is not None:
            self.listener.rejected(Rejection(self.credentials.token, loss.reason))
        else:
            avoid(self._peer)
            hint = _OTHER_PORT if self._broker.startswith("mqtt:") else ""
            when = "" if "CONNACK" in loss.cause else " before CONNACK"
            self.listener.failed(BrokerUnreachable(f"{self._broker}: {loss.cause}{when}{hint}"))


def unanswered(attempt: Attempt) -> Connect | None:
    """Return the part of an attempt that has sent CONNECT, if that was not answered."""
    connect = getattr(attempt, "connect", attempt)
    return connect if isinstance(connect, Connect) and connect.awaiting else None


def send_auth(connection: NetworkConnection[Outgoing], reason: int, credentials: Credentials) -> None:
    """Send AUTH with the token. CONNECT named an Authentication Method, without which there is no AUTH."""
    assert credentials.auth_method is not None
    connection.write(connection.engine.authenticate(reason, credentials.auth_method, credentials.auth_data or b""))
    connection.flush()
