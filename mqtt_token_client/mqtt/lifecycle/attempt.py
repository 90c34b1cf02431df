"""One attempt to get onto a token: from credentials and an open socket to the broker's answer.

Every way is the same attempt: a token and an open socket are made ready by a worker, CONNECT goes out, the broker
accepts. What differs is whether a connection is up meanwhile. If none is, the attempt is a first connect or a
reconnect. If one is, the attempt is a rotation:

    handover    PINGREQ goes out on the first connection: once it is answered, the broker has read all that was sent
                before it. Then a second PINGREQ goes out, nothing new after it, and CONNECT goes out on the second
                connection; the broker accepts the token and takes the session over. What it sent on the first
                connection before that is read to the end, then the second one is the connection. What was sent of
                QoS 0 between the two PINGREQs is sent again if the second has no answer by then. If the broker refuses
                the token, the first connection just goes on.
    re-authentication   Where the broker took the token by an Authentication Method of MQTT 5, AUTH carries the new one
                over the connection that is up, which just goes on (section 4.12.1). If that has no answer, or a broker
                ends the connection with the first token all the same, it is a handover from then on.
    reconnect   Where the take-over would fire the will, the first connection is ended by DISCONNECT before CONNECT
                goes out on the second, which is open and past its TLS handshake by then.

If the first connection breaks in the middle of it, the attempt goes on as a reconnect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from socket import socket
from typing import TYPE_CHECKING, Protocol

from ... import events
from ...clock import monotonic
from ...errors import BrokerUnreachable, ProtocolError
from ...profiles import Credentials
from ..codec.packets import CONTINUE_AUTHENTICATION, RE_AUTHENTICATE, Auth, Connack, Packet
from ..runtime.base import Runtime, Timer
from ..session.delivery import Outgoing
from ..session.session import Session
from ..transport.connection import NetworkConnection
from .reauthentication import auth_packet
from .settings import Settings

if TYPE_CHECKING:
    from ..codec.codec import Codec

# Seconds, all of them.
_SETTLE_TIME = 5.0  # for the broker to answer the PINGREQ before a handover
# For the broker to read the rest of what the first connection carries. One that is near is waited for, busy or not. One
# that is far is not: both connections are equally long, so a head start is enough.
_HEAD_START, _HEAD_START_NEAR, _NEAR = 0.005, 0.1, 0.015
_AUTH_TIME = 10.0  # for the broker to answer AUTH
_AUTH_STEPS = 3  # in which the broker may ask for the token, at each authentication
_FLUSH_TIME = 5.0  # for the first connection to send what is waiting before a reconnect
_END_TIME = 2.0  # for the broker to close the first connection after DISCONNECT
_CONNACK_TIME = 15.0
_QUIET_TIME = 1.0  # a connection that sent nothing for so long has nothing on its way
_LAST_WORDS_TIME = 0.5  # for the end of the first connection to arrive once the second one is accepted
_LAST_WORDS_TIME_IN_VAIN = 0.05  # the same, of a broker that left the first connection open the last time


@dataclass(slots=True)
class BrokerTraits:
    """What the attempts of a client have learnt of its broker."""

    round_trip: float = math.inf  # the shortest that was seen
    leaves_first_open: bool = False  # after a take-over, as MQTT does not allow [MQTT-3.1.4-2]


class _Stage(Enum):
    OPENING = auto()  # a worker gets the token and the socket
    REAUTHENTICATING = auto()  # AUTH went out on the connection that is up; all goes on
    SETTLING = auto()  # handover: PINGREQ went out on the first connection; all goes on
    HOLDING = auto()  # nothing new is sent; what the first connection carries gets to the broker
    ENDING = auto()  # reconnect: DISCONNECT went out on the first connection, its end is awaited
    CONNECTING = auto()  # CONNECT went out, CONNACK is awaited
    DRAINING = auto()  # accepted; the last words of the first connection are awaited


class AttemptOwner(Protocol):
    """Who is told what comes of an attempt."""

    def accepted(self, connack: Connack, packets: list[Packet]) -> None:
        """The broker accepted; these packets came with its answer."""

    def reauthentication_failed(self) -> None:
        """It does not come to an end with this broker."""

    def refused(self, reason: int, server: str | None) -> None:
        """The broker refused, and perhaps named another server."""

    def failed(self, error: Exception) -> None:
        """There is no connection, for another reason."""

    def first_ended(self, cause: str, reason: int | None) -> None:
        """The first connection is over; the attempt goes on."""


class Attempt:
    """One attempt. All of it runs on the network thread.

    Args:
        first: the connection that is up, if one is.

    Attributes:
        kind: of rotation; None while it is none.
        link: the second connection, once it is open.
        credentials: what CONNECT or AUTH carries, once they are there.
        ended: how the rotation ended the first connection: that is a loss if the attempt fails.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        session: Session,
        habits: BrokerTraits,
        first: NetworkConnection[Outgoing] | None,
        owner: AttemptOwner,
    ) -> None:
        self.kind: events.RotationKind | None = None
        self.link: NetworkConnection[Outgoing] | None = None
        self.credentials: Credentials | None = None
        self.ended: tuple[str, int | None] | None = None
        self._runtime = runtime
        self._settings = settings
        self._session = session
        self._habits = habits
        self._first = first
        self._owner = owner
        self._stage = _Stage.OPENING
        self._answer: tuple[Connack, list[Packet]] | None = None
        self._held_since: float | None = None
        self._broker, self._connect = "", b""
        self._asked_at = 0.0  # when the first PINGREQ before a handover went out
        self._ping = 0  # the number of the latest PINGREQ
        self._steps = 0  # in which the broker has asked for the token
        self._timer: Timer | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing new is to be sent."""
        return self._held_since is not None

    @property
    def held_for(self) -> float:
        """Seconds since nothing new was sent."""
        return 0.0 if self._held_since is None else monotonic() - self._held_since

    @property
    def reauthenticating(self) -> bool:
        """Whether the broker has been asked to take the new token in place."""
        return self._stage is _Stage.REAUTHENTICATING

    @property
    def ends_first(self) -> bool:
        """Whether the first connection is to end by now, or may."""
        return self._stage in (_Stage.ENDING, _Stage.CONNECTING, _Stage.DRAINING)

    @property
    def may_be_left(self) -> bool:
        """Whether the session is wholly on the first connection still."""
        return self._stage in (_Stage.OPENING, _Stage.REAUTHENTICATING)

    def end(self) -> None:
        """Do no more."""
        if self._stage is _Stage.CONNECTING:
            self._session.in_doubt()
        if self._timer is not None:
            self._timer.cancel()
        self._held_since = None
        self._ping = 0
        self._session.confirmed()

    def abandon(self) -> None:
        """Close the second connection. The broker may have accepted it already, and drops the will at DISCONNECT."""
        if self.link is not None:
            if self._stage is _Stage.CONNECTING:
                self.link.end()
            self.link.close()

    def conclude(self) -> None:
        """Wait no longer for the last words of the first connection, if the second one is accepted."""
        if self._stage is _Stage.DRAINING and self._answer is not None:
            self._owner.accepted(*self._answer)

    def _deadline(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._runtime.call_later(seconds, then)

    # Over a second connection

    def connect(self, sock: socket, engine: Codec, connect: bytes, broker: str) -> None:
        """Get the credentials, which CONNECT carries, accepted over this socket to a broker."""
        self._broker, self._connect = broker, connect
        self.link = NetworkConnection(self._runtime, sock, engine, self)
        if self._first is None:
            self._send_connect()
        elif self._settings.takeover_fires_will:
            self.kind = "reconnect"
            self._stage = _Stage.HOLDING
            self._held_since = monotonic()
            self._deadline(_FLUSH_TIME, self._end_first)
            self.first_progressed()
        else:
            self.kind = "handover"
            self._settle(self._first)

    def _settle(self, first: NetworkConnection[Outgoing]) -> None:
        """Let the broker read what the first connection carries before it may read CONNECT on the second. It does not
        tell which messages of QoS 0 it has not read by then.
        """
        if not first.backlog and monotonic() - first.keepalive.last_out >= _QUIET_TIME:
            self._send_connect()
            return
        self._stage = _Stage.SETTLING
        self._asked_at = monotonic()
        self._deadline(_SETTLE_TIME, self._hold)
        self._session.keep_written()
        self._send_ping(first)

    def _hold(self) -> None:
        """Send nothing new for a moment: a broker that is busy with the first connection may be late to end it, and
        serve both (RabbitMQ), which changes the order of messages.
        """
        self._stage = _Stage.HOLDING
        self._held_since = monotonic()
        near = self._habits.round_trip < _NEAR
        self._deadline(_HEAD_START_NEAR if near else _HEAD_START, self._send_connect)
        if self._first is not None:
            self._send_ping(self._first)

    def _send_ping(self, first: NetworkConnection[Outgoing]) -> None:
        self._ping += 1
        number = self._ping
        first.keepalive.ping(lambda: self._ping_answered(number))

    def _end_first(self) -> None:
        if self._first is not None:
            self._stage = _Stage.ENDING
            self._deadline(_END_TIME, lambda: self._owner.first_ended("the broker left the connection open", None))
            self._first.end()

    def _send_connect(self) -> None:
        if self.link is None:
            return
        if self.link.closed:
            self._owner.failed(BrokerUnreachable(f"{self._broker}: the connection broke before CONNECT"))
            return
        self._stage = _Stage.CONNECTING
        if self._first is not None and self._held_since is None:
            self._held_since = monotonic()
        self._deadline(_CONNACK_TIME, lambda: self._owner.failed(self._no_connack()))
        self.link.write(self._connect)
        self.link.flush()

    def _no_connack(self) -> BrokerUnreachable:
        return BrokerUnreachable(
            f"{self._broker}: no CONNACK within {_CONNACK_TIME:g} s; is it MQTT that is spoken there?"
        )

    def _answered(self, link: NetworkConnection[Outgoing], packets: list[Packet]) -> None:
        connack = packets[0]
        if isinstance(connack, Auth) and connack.reason == CONTINUE_AUTHENTICATION:
            self._give_token(link)
            return
        if not isinstance(connack, Connack):
            self._owner.failed(ProtocolError("the broker's first packet was no CONNACK"))
            return
        self._stage = _Stage.DRAINING
        if connack.reason:
            self._owner.refused(connack.reason, connack.properties.get("server_reference"))
        elif self._first is None:
            self._owner.accepted(connack, packets[1:])
        else:
            # What the broker sent on the first connection comes before what it sends on the second.
            self._answer = (connack, packets[1:])
            link.pause_reading()
            patience = _LAST_WORDS_TIME_IN_VAIN if self._habits.leaves_first_open else _LAST_WORDS_TIME
            self._deadline(patience, self.conclude)
            self._first.read()

    # Over the connection that is up

    def reauthenticate(self) -> None:
        """Have the broker take the new token in place."""
        if self._first is not None:
            self.kind = "re-authentication"
            self._stage = _Stage.REAUTHENTICATING
            self._deadline(_AUTH_TIME, self._owner.reauthentication_failed)
            self._send_auth(self._first, RE_AUTHENTICATE)

    def give_token(self) -> None:
        """AUTH with Continue authentication on the first connection: the broker wants the token once more."""
        if self._first is not None:
            self._give_token(self._first)

    def _give_token(self, link: NetworkConnection[Outgoing]) -> None:
        self._steps += 1
        if self._steps <= _AUTH_STEPS:
            self._send_auth(link, CONTINUE_AUTHENTICATION)
        elif self.reauthenticating:
            self._owner.reauthentication_failed()
        else:
            self._owner.failed(ProtocolError("the broker asks for the token again and again"))

    def _send_auth(self, link: NetworkConnection[Outgoing], reason: int) -> None:
        if self.credentials is not None:
            link.write(auth_packet(link.engine, reason, self.credentials))
            link.flush()

    # What happens on the first connection

    def _ping_answered(self, number: int) -> None:
        """The broker answered a PINGREQ on the first connection."""
        if number != self._ping:  # an earlier one, or one of an attempt that has ended
            return
        if self._stage is _Stage.SETTLING:
            self._habits.round_trip = min(self._habits.round_trip, monotonic() - self._asked_at)
            self._hold()
        else:
            self._session.confirmed()
            if self._stage is _Stage.HOLDING:
                self._send_connect()

    def first_progressed(self) -> None:
        """The first connection may have sent what was waiting."""
        if self.kind == "reconnect" and self._stage is _Stage.HOLDING and self._first is not None:
            self._first.flush()
            if not self._first.backlog:
                self._end_first()

    def first_closed(self, cause: str, reason: int | None) -> None:
        """The first connection is over."""
        self._first = None
        if self._stage is _Stage.DRAINING:
            self.conclude()
        elif self._stage is _Stage.ENDING:
            self.ended = ("it was ended for a rotation that failed", None)
            self._send_connect()
        elif self._stage is _Stage.CONNECTING:
            self.ended = (cause, reason)
        else:
            self.kind = None  # a loss, and no rotation any more
            if self._stage is not _Stage.OPENING:
                self._send_connect()

    # What the second connection tells

    def packets_arrived(self, link: NetworkConnection[Outgoing], packets: list[Packet]) -> None:
        if self._stage is _Stage.CONNECTING:
            self._answered(link, packets)

    def connection_writable(self, link: NetworkConnection[Outgoing]) -> None:
        pass

    def connection_wrote(self, items: list[Outgoing]) -> None:
        pass

    def connection_closed(self, link: NetworkConnection[Outgoing], cause: str, reason: int | None) -> None:  # noqa: ARG002 - ConnectionListener's
        if self._stage is _Stage.ENDING:  # seen again when CONNECT is due
            return
        if reason is not None:
            self._owner.refused(reason, None)
        else:
            self._owner.failed(BrokerUnreachable(f"{self._broker}: {cause} before CONNACK"))
