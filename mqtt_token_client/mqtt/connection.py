"""One client's connection: connect, rotate, back off, resume. It is driven by readiness and deadlines.

Every way to connect is the same attempt: a token and an open socket are made ready by a worker, CONNECT goes out, the
broker accepts. What differs is whether a connection is up meanwhile. If none is, the attempt is a first connect or a
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

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from socket import socket
from ssl import SSLSession

from .. import events
from ..clock import elapsed
from ..errors import (
    BrokerRefused,
    BrokerUnreachable,
    ConfigurationError,
    MqttTokenError,
    ProtocolError,
    TokenError,
    TokenUnchanged,
)
from ..profiles import Credentials
from ..token import Token
from .brokers import Brokers
from .dial import Address, dial
from .engine import (
    CONTINUE_AUTHENTICATION,
    RE_AUTHENTICATE,
    Acknowledgement,
    Auth,
    Connack,
    Disconnect,
    Packet,
    Pingresp,
)
from .limits import Limits
from .link import Link
from .loop import Loop, Timer
from .message import Message
from .outbox import Outgoing
from .patience import Patience, is_near_its_end
from .reauthentication import Reauthentication, auth_packet
from .refusals import NOT_AUTHORIZED, Fault, advice, connack_fault, disconnect_fault, reason_name
from .session import Session
from .settings import CredentialsSource, Settings

log = logging.getLogger("mqtt_token_client.mqtt")

# Seconds, all of them.
_SETTLE_TIME = 5.0  # for the broker to answer the PINGREQ before a handover
# For the broker to read the rest of what the first connection carries. One that is near is waited for, busy or not. One
# that is far is not: both connections are equally long, so a head start is enough.
_HEAD_START, _HEAD_START_NEAR, _NEAR = 0.005, 0.1, 0.015
_AUTH_TIME = 10.0  # for the broker to answer AUTH
_AUTH_STEPS = 3  # in which the broker may ask for the token, at each authentication
_FLUSH_TIME = 5.0  # for the first connection to send what is waiting before a reconnect
_END_TIME = 2.0  # for the broker to close a connection after DISCONNECT
_CONNACK_TIME = 15.0
_QUIET_TIME = 1.0  # a connection that sent nothing for so long has nothing on its way
_LAST_WORDS_TIME = 0.5  # for the end of the first connection to arrive once the second one is accepted
_LAST_WORDS_TIME_IN_VAIN = 0.05  # the same, of a broker that left the first connection open the last time


class _Stage(Enum):
    OPENING = auto()  # a worker gets the token and the socket
    REAUTHENTICATING = auto()  # AUTH went out on the connection that is up; all goes on
    SETTLING = auto()  # handover: PINGREQ went out on the first connection; all goes on
    HOLDING = auto()  # nothing new is sent; what the first connection carries gets to the broker
    ENDING = auto()  # reconnect: DISCONNECT went out on the first connection, its end is awaited
    CONNECTING = auto()  # CONNECT went out, CONNACK is awaited
    DRAINING = auto()  # accepted; the last words of the first connection are awaited


@dataclass(slots=True, eq=False)
class _Attempt:
    stage: _Stage = _Stage.OPENING
    link: Link[Outgoing] | None = None
    credentials: Credentials | None = None
    accepted: Connack | None = None
    backlog: list[Packet] = field(default_factory=list)
    kind: events.RotationKind | None = None  # None while there was no connection to rotate
    asked_at: float = 0.0  # when the first PINGREQ before a handover went out
    ping: int = 0  # the number of the last PINGREQ
    steps: int = 0  # in which the broker has asked for the token
    ended: tuple[str, int | None] | None = None  # how the rotation ended the first connection: a loss if it fails
    timer: Timer | None = None


class Connection:
    """The state machine. Everything but :meth:`wake` runs on the network thread."""

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        tokens: CredentialsSource,
        session: Session,
        emit: Callable[[events.Event], None],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._tokens = tokens
        self._session = session
        self._emit = emit

        self._link: Link[Outgoing] | None = None
        self._token: Token | None = None  # the one that the link was accepted with
        self._in_place = Reauthentication()
        self._round_trip = math.inf  # the shortest that was seen
        self._limits = Limits()
        self._attempt: _Attempt | None = None
        self._held_since: float | None = None
        self._leaves_first_open = False  # as MQTT does not allow [MQTT-3.1.4-2]
        self._retry: Timer | None = None
        self._brokers = Brokers(settings.brokers)
        self._tls_sessions: dict[Address, SSLSession] = {}

        self._patience = Patience(settings.backoff)
        self._wanted: Token | None = None
        self._pump_due = False
        self._closing: Callable[[], None] | None = None
        self._goodbye: Timer | None = None
        self._said_goodbye = False

    @property
    def state(self) -> str:
        """``connected``, ``rotating``, ``connecting``, ``waiting`` (for the next try) or ``closed``."""
        if self._attempt is not None and self._attempt.kind is not None:
            return "rotating"
        if self._link is not None:
            return "connected"
        if self._attempt is not None:
            return "connecting"
        return "waiting" if self._retry is not None else "closed"

    @property
    def _address(self) -> Address:
        return self._brokers.current

    # Commands

    def start(self) -> None:
        """Connect, and stay connected."""
        self._begin()

    def rotate(self, token: Token) -> None:
        """Move onto a new token, if the connection is not on it already."""
        self._wanted = token
        if self._link is not None and self._attempt is None and self._retry is None and token != self._token:
            self._patience.count_anew_if_stable()
            self._begin()

    def wake(self) -> None:
        """Something waits in the outbox, or the subscriptions have changed. May be called from any thread."""
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump_now)

    def close(self, timeout: float, done: Callable[[], None]) -> None:
        """Give the outbox ``timeout`` seconds, then DISCONNECT; ``done`` is called when all is closed."""
        self._closing = done
        self._goodbye = self._loop.call_later(timeout, self._say_goodbye)
        self._close_when_empty()

    # An attempt

    def _begin(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        attempt = self._attempt = _Attempt()
        refused, address = self._patience.refused, self._address
        in_place = self._link is not None and self._in_place.possible

        def prepare() -> tuple[Credentials, socket | None]:
            credentials = attempt.credentials = self._tokens.credentials(refused)
            if in_place:
                return credentials, None
            return credentials, dial(
                address,
                self._settings.context if address.tls else None,
                self._settings.proxy,
                credentials.headers,
                keepalive=self._settings.keepalive,
                session=self._tls_sessions.get(address),
            )

        self._loop.run_blocking(prepare, lambda opened, error: self._opened(attempt, opened, error))

    def _opened(
        self, attempt: _Attempt, opened: tuple[Credentials, socket | None] | None, error: Exception | None
    ) -> None:
        if attempt is not self._attempt:
            if opened is not None and opened[1] is not None:
                opened[1].close()
            return
        if isinstance(error, BrokerRefused):  # the token, in a header of the WebSocket upgrade
            self._refuse(attempt, error.reason, None)
            return
        if opened is None:
            self._fail(error or RuntimeError("nothing was opened"))
            return
        attempt.credentials, sock = opened
        if self._link is not None and attempt.credentials.token == self._token:  # there is no other yet
            if sock is not None:
                sock.close()
            self._wanted = None
            self._end_attempt()
            self._close_when_empty()
            return
        if sock is None:
            self._reauthenticate(attempt, self._link)
            return
        attempt.link = Link(self._loop, sock, self._settings.engine(first=not self._session.counters.connects), self)
        if self._link is None:
            self._send_connect(attempt)
            return
        if self._settings.takeover_fires_will:
            attempt.kind = "reconnect"
            attempt.stage = _Stage.HOLDING
            self._held_since = elapsed()
            self._deadline(attempt, _FLUSH_TIME, self._end_first)
            self._end_first_when_flushed(attempt)
        else:
            attempt.kind = "handover"
            self._settle(attempt, self._link)

    def _reauthenticate(self, attempt: _Attempt, link: Link[Outgoing] | None) -> None:
        """Give the broker the new token on the connection that is up."""
        if link is None:
            self._begin()
            return
        if attempt.credentials is None or not self._in_place.suits(attempt.credentials):
            self._hand_over_instead(attempt)
            return
        attempt.kind = "re-authentication"
        attempt.stage = _Stage.REAUTHENTICATING
        self._deadline(attempt, _AUTH_TIME, self._hand_over_instead)
        self._send_auth(attempt, link, RE_AUTHENTICATE)

    def _send_auth(self, attempt: _Attempt, link: Link[Outgoing], reason: int) -> None:
        if attempt.credentials is not None:
            link.write(auth_packet(link.engine, reason, attempt.credentials))
            link.flush()

    def _asked_for_token(self, attempt: _Attempt, link: Link[Outgoing]) -> None:
        """AUTH with Continue authentication: the broker wants the token by itself, or once more."""
        attempt.steps += 1
        if attempt.steps <= _AUTH_STEPS:
            self._send_auth(attempt, link, CONTINUE_AUTHENTICATION)
        elif attempt.stage is _Stage.REAUTHENTICATING:
            self._hand_over_instead(attempt)
        else:
            self._fail(ProtocolError("the broker asks for the token again and again"))

    def _hand_over_instead(self, _attempt: _Attempt) -> None:
        """Re-authentication does not come to an end with this broker."""
        self._in_place.failed()
        self._end_attempt()
        self._begin()

    def _reauthenticated(self, attempt: _Attempt) -> None:
        """AUTH with Success: the connection is on the new token."""
        if attempt.credentials is None:
            return
        self._end_attempt()
        if self._token is not None:
            self._in_place.succeeded(self._token)
        self._token = attempt.credentials.token
        self._patience.rotated()
        self._session.counters.rotations += 1
        self._emit(events.Rotated("re-authentication", 0.0))
        if self._link is not None:
            self._session.token_renewed(self._link)
        if self._wanted is not None:
            self.rotate(self._wanted)
        self._close_when_empty()

    def _settle(self, attempt: _Attempt, first: Link[Outgoing]) -> None:
        """Let the broker read what the first connection carries before it may read CONNECT on the second. It does not
        tell which messages of QoS 0 it has not read by then.
        """
        if first.flushed and first.quiet_for >= _QUIET_TIME:
            self._send_connect(attempt)
            return
        attempt.stage = _Stage.SETTLING
        attempt.asked_at = elapsed()
        self._deadline(attempt, _SETTLE_TIME, self._hold)
        self._session.outbox.keep_written()
        attempt.ping = first.ping()

    def _first_read_all(self, attempt: _Attempt) -> None:
        """The last PINGREQ on the first connection is answered."""
        if attempt.stage is _Stage.SETTLING:
            self._round_trip = min(self._round_trip, elapsed() - attempt.asked_at)
            self._hold(attempt)
        else:
            self._session.confirmed()
            if attempt.stage is _Stage.HOLDING:
                self._send_connect(attempt)

    def _hold(self, attempt: _Attempt) -> None:
        """Send nothing new for a moment: a broker that is busy with the first connection may be late to end it, and
        serve both (RabbitMQ), which changes the order of messages.
        """
        attempt.stage = _Stage.HOLDING
        self._held_since = elapsed()
        near = self._round_trip < _NEAR
        self._deadline(attempt, _HEAD_START_NEAR if near else _HEAD_START, self._send_connect)
        if self._link is not None:
            attempt.ping = self._link.ping()

    def _end_first_when_flushed(self, attempt: _Attempt) -> None:
        if self._link is not None:
            self._link.flush()
            if self._link.flushed:
                self._end_first(attempt)

    def _end_first(self, attempt: _Attempt) -> None:
        if self._link is not None:
            attempt.stage = _Stage.ENDING
            self._deadline(attempt, _END_TIME, lambda _: self._first_ended("the broker left the connection open", None))
            self._link.end()

    def _send_connect(self, attempt: _Attempt) -> None:
        link, credentials = attempt.link, attempt.credentials
        if link is None or credentials is None:
            return
        if link.closed:
            self._fail(BrokerUnreachable(f"{self._address}: the connection broke before CONNECT"))
            return
        attempt.stage = _Stage.CONNECTING
        if self._link is not None and self._held_since is None:
            self._held_since = elapsed()
        self._deadline(attempt, _CONNACK_TIME, lambda _: self._fail(BrokerUnreachable("the broker sent no CONNACK")))
        try:
            packet = self._settings.connect(link.engine, credentials)
        except Exception as error:  # noqa: BLE001 - a user's profile may give what CONNECT cannot hold
            self._fail(error)
            return
        link.write(packet)
        link.flush()

    def _answered(self, attempt: _Attempt, packets: list[Packet]) -> None:
        connack = packets[0]
        if isinstance(connack, Auth) and connack.reason == CONTINUE_AUTHENTICATION and attempt.link is not None:
            self._asked_for_token(attempt, attempt.link)
        elif not isinstance(connack, Connack):
            self._fail(ProtocolError("the broker's first packet was no CONNACK"))
        elif connack.reason:
            self._refuse(attempt, connack.reason, connack.properties.get("server_reference"))
        else:
            attempt.accepted, attempt.backlog = connack, packets[1:]
            if self._link is None:
                self._adopt(attempt)
                return
            # What the broker sent on the first connection comes before what it sends on the second.
            attempt.stage = _Stage.DRAINING
            if attempt.link is not None:
                attempt.link.pause_reading()
            patience = _LAST_WORDS_TIME_IN_VAIN if self._leaves_first_open else _LAST_WORDS_TIME
            self._deadline(attempt, patience, self._adopt)
            self._link.read()

    def _adopt(self, attempt: _Attempt) -> None:
        """The second connection becomes the connection."""
        link, accepted, credentials = attempt.link, attempt.accepted, attempt.credentials
        if link is None or accepted is None or credentials is None:
            return
        self._leaves_first_open = self._link is not None
        self._retire_link()
        self._end_attempt()
        known = self._session.counters.connects > 0
        self._link, self._token = link, credentials.token
        self._in_place.connected(credentials)
        self._session.counters.connects += 1
        self._limits = Limits.of(accepted, self._settings.protocol)
        if link.tls_session is not None:
            self._tls_sessions[self._address] = link.tls_session
        link.keep_alive(accepted.properties.get("server_keep_alive", self._settings.keepalive))
        if not accepted.session_present:
            self._session.lost()
        gap = self._release()
        if attempt.kind is None:
            self._patience.connected(credentials.token)
            self._emit(events.Connected(str(self._address), accepted.session_present))
        else:
            self._patience.rotated()
            self._session.counters.rotations += 1
            self._emit(events.Rotated(attempt.kind, gap))
        if known and not accepted.session_present and self._settings.session_expiry:
            self._emit(events.SessionLost(self._session.outbox.inflight))
        self._session.subscribe(link)
        self._pump()
        if attempt.backlog:
            self.packets_arrived(link, attempt.backlog)
        link.resume_reading()
        if self._wanted is not None:
            self.rotate(self._wanted)
        self._close_when_empty()

    # What goes wrong

    def _refuse(self, attempt: _Attempt, reason: int, server: str | None) -> None:
        fault = connack_fault(reason)
        if fault is Fault.TOKEN and attempt.credentials is not None:
            delay = self._patience.after_refusal(attempt.credentials.token)
            self._abandon(attempt, delay)
            self._emit(events.TokenRefused(reason, reason_name(reason), max(1, self._patience.refusals), delay))
            self._try_again(delay)
            return
        text = f"{self._address} refused the connection: {reason_name(reason)}"
        if server is not None:
            text += f"; it names {server!r} instead: give that as broker"
        elif fault is Fault.OURS:
            text += f"; {advice(reason)}"
        self._fail(BrokerRefused(text, reason=reason, permanent=fault is Fault.OURS))

    def _fail(self, error: Exception) -> None:
        """The attempt in hand failed."""
        attempt = self._attempt
        if attempt is None:
            return
        if not isinstance(error, MqttTokenError):
            log.error("an attempt to connect failed unexpectedly", exc_info=error)
            error = ConfigurationError(f"connecting failed with {type(error).__name__}; see the log")
        if isinstance(error, TokenUnchanged):
            self._patience.refused = None  # there is no other; the broker may take it by then
        if isinstance(error, TokenError):
            delay = self._tokens.retry_in()
        else:
            delay = self._patience.after_failure(permanent=error.permanent)
        self._abandon(attempt, delay)
        failed = events.ConnectFailed if self._link is None else events.RotationFailed
        self._emit(failed(error, delay))
        if self._link is None:
            self._brokers.failed()
        self._try_again(delay)

    def _abandon(self, attempt: _Attempt, delay: float) -> None:
        if attempt.link is not None:
            attempt.link.close()
        self._end_attempt()
        self._release()
        if attempt.ended is not None:
            cause, reason = attempt.ended
            self._emit(events.Disconnected(cause, reason, delay))
        elif self._link is not None:
            self._pump()

    def _first_ended(self, cause: str, reason: int | None) -> None:
        """The connection ended; whether that was planned depends on the attempt."""
        if self._said_goodbye:
            self._closed()
            return
        token = self._token
        self._retire_link()
        attempt = self._attempt
        if attempt is None:
            self._lost(cause, reason, token)
        elif attempt.stage is _Stage.REAUTHENTICATING:
            self._end_attempt()
            refused = reason is not None and disconnect_fault(reason) is Fault.TOKEN
            if not refused:
                self._in_place.failed()
            self._lost(cause, reason, attempt.credentials.token if refused and attempt.credentials else None)
        elif attempt.stage is _Stage.DRAINING:
            self._adopt(attempt)
        elif attempt.stage is _Stage.ENDING:
            attempt.ended = ("it was ended for a rotation that failed", None)
            self._send_connect(attempt)
        elif attempt.stage is _Stage.CONNECTING:
            attempt.ended = (cause, reason)
        else:
            attempt.kind = None  # a loss, and no rotation any more
            self._emit(events.Disconnected(cause, reason, 0.0))
            if attempt.stage is not _Stage.OPENING:
                self._send_connect(attempt)

    def _lost(self, cause: str, reason: int | None, token: Token | None) -> None:
        self._patience.count_anew_if_stable()
        fault = Fault.BROKER if reason is None else disconnect_fault(reason)
        if self._in_place.was_in_vain():
            delay = 0.0
        elif token is not None and (fault is Fault.TOKEN or (reason is None and is_near_its_end(token))):
            delay = self._patience.after_refusal(token)
        else:
            delay = self._patience.after_failure()
        self._emit(events.Disconnected(cause, reason, delay))
        self._try_again(delay)

    def _try_again(self, delay: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._close_when_empty()
        if not self._said_goodbye:
            self._retry = self._loop.call_later(delay, self._begin)

    def _retire_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._session.connection_lost(self._link)
            self._link = self._token = None

    def _end_attempt(self) -> None:
        if self._attempt is not None and self._attempt.timer is not None:
            self._attempt.timer.cancel()
        self._attempt = None
        self._session.confirmed()

    def _release(self) -> float:
        """End the hold, and tell how long it was."""
        held, self._held_since = self._held_since, None
        return 0.0 if held is None else elapsed() - held

    def _deadline(self, attempt: _Attempt, seconds: float, then: Callable[[_Attempt], None]) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.timer = self._loop.call_later(seconds, lambda: then(attempt))

    # What a link tells

    def packets_arrived(self, link: Link[Outgoing], packets: list[Packet]) -> None:
        attempt = self._attempt
        if link is self._link:
            for packet in packets:
                if link.closed:
                    return
                if isinstance(packet, Message) or (isinstance(packet, Acknowledgement) and not packet.reason):
                    self._session.receive(link, packet)
                else:
                    self._packet_arrived(link, packet)
            self._go_on()
        elif attempt is not None and link is attempt.link and attempt.stage is _Stage.CONNECTING:
            self._answered(attempt, packets)

    def _packet_arrived(self, link: Link[Outgoing], packet: Packet) -> None:
        """What is not of every day."""
        if isinstance(packet, Disconnect):
            link.close()
            self._first_ended(f"the broker ended the connection: {reason_name(packet.reason)}", packet.reason)
        elif isinstance(packet, Auth | Connack):
            self._authentication_answered(link, packet)
        elif isinstance(packet, Pingresp):
            link.pongs += 1
            if self._attempt is not None and link.pongs == self._attempt.ping:
                self._first_read_all(self._attempt)
        elif self._token is not None and is_near_its_end(self._token) and self._session.denied(packet):
            self._token_denied(self._token)
        else:
            self._session.receive(link, packet)

    def _token_denied(self, token: Token) -> None:
        """The broker keeps the connection of a token that has ended, and denies what is asked over it."""
        if self._patience.refused != token:
            delay = self._patience.after_refusal(token)
            self._emit(events.TokenRefused(NOT_AUTHORIZED, reason_name(NOT_AUTHORIZED), self._patience.refusals, delay))
            if self._attempt is None:
                self._try_again(delay)

    def _authentication_answered(self, link: Link[Outgoing], answer: Auth | Connack) -> None:
        attempt = self._attempt
        if (
            attempt is None
            or attempt.stage is not _Stage.REAUTHENTICATING
            or not (answer.reason or isinstance(answer, Auth))
        ):
            link.close()
            self._first_ended("the broker sent a packet that has no place here", None)
        elif answer.reason == CONTINUE_AUTHENTICATION:
            self._asked_for_token(attempt, link)
        elif answer.reason:  # MQTT 5 has DISCONNECT for that; Mosquitto sends CONNACK
            link.close()
            self._first_ended(f"the broker refused the new token: {reason_name(answer.reason)}", answer.reason)
        else:
            self._reauthenticated(attempt)

    def link_writable(self, link: Link[Outgoing]) -> None:
        if link is self._link:
            self._go_on()

    def link_wrote(self, items: list[Outgoing]) -> None:
        self._session.written(items)

    def link_closed(self, link: Link[Outgoing], cause: str, reason: int | None) -> None:
        attempt = self._attempt
        if link is self._link:
            self._first_ended(cause, reason)
        elif attempt is not None and link is attempt.link and attempt.stage is not _Stage.ENDING:  # seen at its end
            if reason is not None:
                self._refuse(attempt, reason, None)
            else:
                self._fail(BrokerUnreachable(f"{self._address}: {cause} before CONNACK"))

    def _go_on(self) -> None:
        """The connection has room, or an answer may have made some."""
        attempt = self._attempt
        if attempt is not None and attempt.kind == "reconnect" and attempt.stage is _Stage.HOLDING:
            self._end_first_when_flushed(attempt)
        else:
            self._pump()
            self._close_when_empty()

    def _pump_now(self) -> None:
        self._pump_due = False
        self._pump()

    def _pump(self) -> None:
        if self._link is not None and self._held_since is None:
            self._session.send(self._link, self._limits)

    # The end

    def _close_when_empty(self) -> None:
        if self._closing is None or len(self._session.outbox):
            return
        # Any later and the session is between two connections.
        if self._attempt is None or self._attempt.stage in (_Stage.OPENING, _Stage.REAUTHENTICATING):
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._attempt is not None and self._attempt.stage is _Stage.DRAINING:
            self._adopt(self._attempt)  # the broker listens to the second connection by now
        if self._said_goodbye:
            return
        self._said_goodbye = True
        for timer in (self._goodbye, self._retry):
            if timer is not None:
                timer.cancel()
        if self._attempt is not None and self._attempt.link is not None:
            self._attempt.link.close()
        self._end_attempt()
        if self._link is None:
            self._closed()
        else:
            # The broker closes; if we did, with something unread, TCP could drop DISCONNECT and fire the will.
            self._goodbye = self._loop.call_later(_END_TIME, self._closed)
            self._link.end()

    def _closed(self) -> None:
        done, self._closing = self._closing, None
        if done is None:
            return
        if self._goodbye is not None:
            self._goodbye.cancel()
        self._retire_link()
        abandoned = self._session.outbox.close()
        if abandoned:
            self._emit(events.MessagesAbandoned(abandoned))
        done()
