"""One client's connection: connect, rotate, back off, resume. It is driven by readiness and deadlines.

Every way to connect is the same attempt: a token and an open socket are made ready by a worker, CONNECT goes out, the
broker accepts. What differs is whether a connection is up meanwhile. If none is, the attempt is a first connect or a
reconnect. If one is, the attempt is a rotation:

    handover    New PUBLISHes are held, the rest goes on. Once the broker has read what the first connection carries,
                CONNECT goes out on the second; the broker accepts the token and takes the session over. What it sent on
                the first connection before that is read to the end, then the second one is the connection. If it
                refuses the token, the first one just goes on.
    reconnect   Where the take-over would fire the will, the first connection is ended by DISCONNECT before CONNECT
                goes out on the second, which is open and past its TLS handshake by then.

If the first connection breaks in the middle of it, the attempt goes on as a reconnect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from socket import socket

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
from .dial import Address, dial
from .engine import PINGREQ_PACKET, Connack, Disconnect, Packet, Pingresp
from .link import Link
from .loop import Loop, Timer
from .outbox import Outgoing
from .patience import Patience, is_near_its_end
from .refusals import Fault, advice, connack_fault, disconnect_fault, reason_name
from .session import Session
from .settings import CredentialsSource, Settings

log = logging.getLogger("mqtt_token_client.mqtt")

# Seconds, all of them.
_FLUSH_TIME = 5.0  # for the first connection to send what is waiting before a rotation
_END_TIME = 2.0  # for the broker to close a connection after DISCONNECT
_CONNACK_TIME = 15.0
# For the broker to read what the first connection carries, before it may read CONNECT on the second. One that is near
# answers a PINGREQ at once, or is busy and has not read it yet; one that is far is not waited for a whole round trip:
# both connections are equally long, so a head start is enough.
_SETTLE_TIME_NEAR, _SETTLE_TIME_FAR, _NEAR = 0.1, 0.008, 0.015
_QUIET_TIME = 1.0  # a connection that sent nothing for so long has nothing on its way
_LAST_WORDS_TIME = 0.5  # for the end of the first connection to arrive once the second one is accepted
_LAST_WORDS_TIME_IN_VAIN = 0.05  # the same, of a broker that left the first connection open the last time


class _Stage(Enum):
    OPENING = auto()  # a worker gets the token and the socket
    HOLDING = auto()  # what waits on the first connection is being sent
    SETTLING = auto()  # PINGREQ went out on the first connection: the broker reads what went out before it
    ENDING = auto()  # DISCONNECT went out on the first connection, its end is awaited
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
    ended: tuple[str, int | None] | None = None  # how the rotation ended the first connection: a loss if it fails
    asked_at: float = 0.0  # when CONNECT went out
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
        self._receive_maximum: int | None = None
        self._attempt: _Attempt | None = None
        self._held_since: float | None = None
        self._round_trip = 0.0  # from the last CONNECT to its CONNACK
        self._leaves_first_open = False  # as MQTT does not allow [MQTT-3.1.4-2]
        self._retry: Timer | None = None
        self._broker = 0

        self._patience = Patience(settings.backoff)
        self._wanted: Token | None = None
        self._pump_due = False
        self._closing: Callable[[], None] | None = None
        self._goodbye: Timer | None = None
        self._said_goodbye = False

    @property
    def state(self) -> str:
        """``connected``, ``rotating``, ``connecting``, ``waiting`` (for the next try) or ``closed``."""
        if self._link is not None:
            return "connected" if self._held_since is None else "rotating"
        if self._attempt is not None:
            return "connecting" if self._attempt.kind is None else "rotating"
        return "waiting" if self._retry is not None else "closed"

    @property
    def _address(self) -> Address:
        return self._settings.brokers[self._broker]

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

        def prepare() -> tuple[Credentials, socket]:
            credentials = self._tokens.credentials(refused)
            return credentials, dial(address, self._settings.context if address.tls else None, self._settings.proxy)

        self._loop.run_blocking(prepare, lambda opened, error: self._opened(attempt, opened, error))

    def _opened(self, attempt: _Attempt, opened: tuple[Credentials, socket] | None, error: Exception | None) -> None:
        if attempt is not self._attempt:
            if opened is not None:
                opened[1].close()
            return
        if opened is None:
            self._fail(error or RuntimeError("nothing was opened"))
            return
        attempt.credentials, sock = opened
        if self._link is not None and attempt.credentials.token == self._token:  # there is no other yet
            sock.close()
            self._wanted = None
            self._end_attempt()
            self._close_when_empty()
            return
        attempt.link = Link(self._loop, sock, self._settings.engine(), self)
        if self._link is None:
            self._send_connect(attempt)
            return
        attempt.kind = "reconnect" if self._settings.takeover_fires_will else "handover"
        attempt.stage = _Stage.HOLDING
        self._held_since = elapsed()
        self._deadline(attempt, _FLUSH_TIME, self._leave_first)
        self._leave_first_when_flushed(attempt)

    def _leave_first_when_flushed(self, attempt: _Attempt) -> None:
        if self._link is not None:
            self._link.flush()
            if self._link.flushed:
                self._leave_first(attempt)

    def _leave_first(self, attempt: _Attempt) -> None:
        if attempt.kind == "reconnect" and self._link is not None:
            attempt.stage = _Stage.ENDING
            self._deadline(attempt, _END_TIME, lambda _: self._first_ended("the broker left the connection open", None))
            self._link.end()
        elif self._link is not None and self._link.quiet_for < _QUIET_TIME:
            attempt.stage = _Stage.SETTLING
            self._deadline(
                attempt, _SETTLE_TIME_NEAR if self._round_trip < _NEAR else _SETTLE_TIME_FAR, self._send_connect
            )
            self._link.write(PINGREQ_PACKET)
            self._link.flush()
        else:
            self._send_connect(attempt)

    def _send_connect(self, attempt: _Attempt) -> None:
        link, credentials = attempt.link, attempt.credentials
        if link is None or credentials is None:
            return
        if link.closed:
            self._fail(BrokerUnreachable(f"{self._address}: the connection broke before CONNECT"))
            return
        attempt.stage = _Stage.CONNECTING
        self._deadline(attempt, _CONNACK_TIME, lambda _: self._fail(BrokerUnreachable("the broker sent no CONNACK")))
        try:
            packet = self._settings.connect(link.engine, credentials)
        except Exception as error:  # noqa: BLE001 - a user's profile may give what CONNECT cannot hold
            self._fail(error)
            return
        attempt.asked_at = elapsed()
        link.write(packet)
        link.flush()

    def _answered(self, attempt: _Attempt, packets: list[Packet]) -> None:
        connack = packets[0]
        if not isinstance(connack, Connack):
            self._fail(ProtocolError("the broker's first packet was no CONNACK"))
        elif connack.reason:
            self._refuse(attempt, connack.reason)
        else:
            attempt.accepted, attempt.backlog = connack, packets[1:]
            self._round_trip = elapsed() - attempt.asked_at
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
        self._session.counters.connects += 1
        if self._settings.protocol == 5:
            self._receive_maximum = accepted.properties.get("receive_maximum", 65_535)  # section 3.2.2.3.3
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

    def _refuse(self, attempt: _Attempt, reason: int) -> None:
        fault = connack_fault(reason)
        if fault is Fault.TOKEN and attempt.credentials is not None:
            delay = self._patience.after_refusal(attempt.credentials.token)
            self._abandon(attempt, delay)
            self._emit(events.TokenRefused(reason, reason_name(reason), self._patience.refusals, delay))
            self._try_again(delay)
            return
        text = f"{self._address} refused the connection: {reason_name(reason)}"
        if fault is Fault.OURS:
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
            self._broker = (self._broker + 1) % len(self._settings.brokers)
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
        if token is not None and (fault is Fault.TOKEN or (reason is None and is_near_its_end(token))):
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
                if isinstance(packet, Disconnect):
                    link.close()
                    self._first_ended(f"the broker ended the connection: {reason_name(packet.reason)}", packet.reason)
                elif isinstance(packet, Pingresp) and self._attempt and self._attempt.stage is _Stage.SETTLING:
                    self._send_connect(self._attempt)
                else:
                    self._session.receive(link, packet)
            self._go_on()
        elif attempt is not None and link is attempt.link and attempt.stage is _Stage.CONNECTING:
            self._answered(attempt, packets)

    def link_writable(self, link: Link[Outgoing]) -> None:
        if link is self._link:
            self._go_on()

    def link_wrote(self, item: Outgoing) -> None:
        self._session.written(item)

    def link_closed(self, link: Link[Outgoing], cause: str) -> None:
        attempt = self._attempt
        if link is self._link:
            self._first_ended(cause, None)
        elif attempt is not None and link is attempt.link and attempt.stage is not _Stage.ENDING:  # seen at its end
            self._fail(BrokerUnreachable(f"{self._address}: {cause} before CONNACK"))

    def _go_on(self) -> None:
        """The connection has room, or an answer may have made some."""
        if self._attempt is not None and self._attempt.stage is _Stage.HOLDING:
            self._leave_first_when_flushed(self._attempt)
        else:
            self._pump()
            self._close_when_empty()

    def _pump_now(self) -> None:
        self._pump_due = False
        self._pump()

    def _pump(self) -> None:
        if self._link is not None and self._held_since is None:
            self._session.send(self._link, self._receive_maximum)

    # The end

    def _close_when_empty(self) -> None:
        if self._closing is None or len(self._session.outbox):
            return
        # Any later and the session is between two connections.
        if self._attempt is None or self._attempt.stage is _Stage.OPENING:
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
