"""One client's connection: connect, rotate, back off, resume. It is driven by readiness and deadlines.

There is the link that is up, if one is, and at most one attempt to get onto a token, which see. Whatever becomes of an
attempt, the next one begins when a token is due or the back-off says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from socket import socket
from ssl import SSLSession

from ... import events
from ...errors import BrokerRefused, ConfigurationError, MqttTokenError, TokenError, TokenUnchanged
from ...profiles import Credentials
from ...token import Token
from ..codec.codec import Codec
from ..codec.message import Message
from ..codec.packets import (
    CONNACK,
    CONTINUE_AUTHENTICATION,
    DISCONNECT,
    Acknowledgement,
    Auth,
    Connack,
    Disconnect,
    Packet,
    Pingresp,
)
from ..codec.reason_codes import NOT_AUTHORIZED, TAKEN_OVER, Action, action_for, advice, reason_name
from ..runtime.base import Runtime, Timer
from ..session.delivery import Outgoing
from ..session.limits import Limits
from ..session.session import Session
from ..transport.address import Address
from ..transport.brokers import Brokers
from ..transport.connection import NetworkConnection
from ..transport.open import open_transport
from .attempt import Attempt, BrokerTraits
from .connect_packet import connect_packet
from .reauthentication import Reauthentication
from .retry import RetryState, is_near_its_end
from .settings import CredentialsSource, Settings

log = logging.getLogger("mqtt_token_client.mqtt")

_END_TIME = 2.0  # seconds for the broker to close a connection after DISCONNECT

_Line = tuple[socket, Codec, bytes]  # open and ready for CONNECT, which is the last


class Connection:
    """The state machine. Everything but :meth:`wake` runs on the network thread."""

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        tokens: CredentialsSource,
        session: Session,
        emit: Callable[[events.Event], None],
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._tokens = tokens
        self._session = session
        self._emit = emit

        self._link: NetworkConnection[Outgoing] | None = None
        self._token: Token | None = None  # the one that the link was accepted with
        self._denied: Token | None = None  # the one that something was denied for last
        self._limits = Limits()
        self._attempt: Attempt | None = None
        self._retry: Timer | None = None
        self._lacks_token = False  # that is what the retry waits for
        self._patience = RetryState(settings.backoff)
        self._wanted: Token | None = None

        self._brokers = Brokers(settings.brokers)
        self._habits = BrokerTraits()
        self._in_place = Reauthentication()
        self._unanswered: tuple[NetworkConnection[Outgoing], Token] | None = None  # AUTH got no answer in time
        self._tls_sessions: dict[Address, SSLSession] = {}

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

    # Commands

    def start(self) -> None:
        """Connect, and stay connected."""
        self._begin()

    def rotate(self, token: Token) -> None:
        """Move onto a new token, if the connection is not on it already."""
        self._wanted = token
        if self._attempt is not None or token == self._token:
            return
        if self._lacks_token or (self._link is not None and self._retry is None):
            self._patience.count_anew_if_stable()
            self._begin()

    def wake(self) -> None:
        """Something waits in the outbox, or the subscriptions have changed. May be called from any thread."""
        if not self._pump_due:
            self._pump_due = True
            self._runtime.call_soon(self._pump_now)

    def close(self, timeout: float, done: Callable[[], None]) -> None:
        """Give the outbox ``timeout`` seconds, then DISCONNECT; ``done`` is called when all is closed."""
        self._closing = done
        self._goodbye = self._runtime.call_later(timeout, self._say_goodbye)
        self._close_when_empty()

    # An attempt

    def _begin(self) -> None:
        self._lacks_token = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        attempt = Attempt(self._runtime, self._settings, self._session, self._habits, self._link, self)
        self._attempt = attempt
        refused, address = self._patience.refused, self._brokers.current
        in_place = self._link is not None and self._in_place.possible
        first = not self._session.known

        def prepare() -> tuple[Credentials, _Line | None]:
            credentials = attempt.credentials = self._tokens.credentials(refused)
            if in_place:
                return credentials, None
            engine = Codec(self._settings.protocol, self._settings.max_packet_size)
            # checked before a socket is opened
            connect = connect_packet(engine, self._settings, credentials, address, first=first)
            sock = open_transport(
                address,
                self._settings.context if address.tls else None,
                self._settings.proxy,
                credentials.headers,
                keepalive=self._settings.keepalive,
                session=self._tls_sessions.get(address),
            )
            return credentials, (sock, engine, connect)

        self._runtime.run_blocking(prepare, lambda opened, error: self._opened(attempt, opened, error))

    def _opened(
        self, attempt: Attempt, opened: tuple[Credentials, _Line | None] | None, error: Exception | None
    ) -> None:
        if attempt is not self._attempt:
            if opened is not None and opened[1] is not None:
                opened[1][0].close()
            return
        if isinstance(error, BrokerRefused):  # the token, in a header of the WebSocket upgrade
            self.refused(error.reason, None)
            return
        if opened is None:
            self.failed(error or RuntimeError("nothing was opened"))
            return
        credentials, line = opened
        if self._link is not None and credentials.token == self._token:  # there is no other yet
            if line is not None:
                line[0].close()
            self._wanted = None
            self._end_attempt()
            self._close_when_empty()
        elif line is not None:
            attempt.connect(*line, str(self._brokers.current))
        elif self._link is None:  # lost meanwhile
            self._begin()
        elif self._in_place.suits(credentials):
            attempt.reauthenticate()
        else:
            self._in_place.not_here()
            self._hand_over()

    def _end_attempt(self) -> None:
        if self._attempt is not None:
            self._attempt.end()
            self._attempt = None

    # What comes of it

    def accepted(self, connack: Connack, packets: list[Packet]) -> None:
        """The second connection becomes the connection."""
        attempt = self._attempt
        if attempt is None or attempt.link is None or attempt.credentials is None:
            return
        kind, link, credentials, gap = attempt.kind, attempt.link, attempt.credentials, attempt.held_for
        self._habits.leaves_first_open = self._link is not None
        self._retire_link()
        self._end_attempt()
        known = self._session.known
        self._link, self._token = link, credentials.token
        link.owner = self
        self._in_place.connected(credentials)
        self._limits = Limits.of(connack, self._settings.protocol)
        tls_session = link.new_tls_session
        if tls_session is not None:
            self._tls_sessions[self._brokers.current] = tls_session
        link.keepalive.start(connack.properties.get("server_keep_alive", self._settings.keepalive))
        self._session.connected(session_present=connack.session_present, rotated=kind is not None)
        if kind is None:
            self._patience.connected(credentials.token)
            self._emit(events.Connected(str(self._brokers.current), connack.session_present))
        else:
            self._rotated(kind, gap)
        # Who wants no session is told at a rotation only, which loses what comes in that moment.
        if known and not connack.session_present and (self._settings.session_expiry or kind is not None):
            self._emit(events.SessionLost(self._session.stats.inflight))
        self._pump()
        if packets:
            self.packets_arrived(link, packets)
        link.resume_reading()
        if self._wanted is not None:
            self.rotate(self._wanted)
        self._close_when_empty()

    def _reauthenticated(self) -> None:
        """The connection is on a new token."""
        self._rotated("re-authentication", 0.0)
        self._session.token_renewed()
        if self._wanted is not None:
            self.rotate(self._wanted)
        self._close_when_empty()

    def _rotated(self, kind: events.RotationKind, gap: float) -> None:
        self._patience.rotated()
        self._emit(events.Rotated(kind, gap))

    def reauthentication_failed(self) -> None:
        """A handover instead, and from now on if it was not the first time."""
        attempt = self._attempt
        if self._link is not None and attempt is not None and attempt.credentials is not None:
            self._unanswered = self._link, attempt.credentials.token
        self._in_place.unanswered()
        self._hand_over()

    def _answered_late(self, answer: Auth, token: Token) -> None:
        """The broker accepted the token after all: the handover is no longer needed, unless its CONNECT was sent."""
        if answer.reason == 0:
            self._unanswered, self._token = None, token
            if self._attempt is not None and not self._attempt.ends_first:
                self._attempt.abandon()
                self._end_attempt()
                self._reauthenticated()

    def _hand_over(self) -> None:
        self._end_attempt()
        self._begin()

    def refused(self, reason: int, server: str | None) -> None:
        """The broker refused the connection, and perhaps named another server."""
        attempt, whose = self._attempt, action_for(CONNACK, reason)
        if whose is Action.NEW_TOKEN and attempt is not None and attempt.credentials is not None:
            delay = self._patience.after_refusal(attempt.credentials.token)
            self._abandon(attempt, delay)
            self._emit(events.TokenRefused(reason, reason_name(reason), max(1, self._patience.refusals), delay))
            if self._link is None and self._patience.refusals > 1:
                self._brokers.failed()
            self._try_again(delay)
            return
        text = f"{self._brokers.current} refused the connection: {_in_words(CONNACK, reason, server)}"
        self.failed(BrokerRefused(text, reason=reason, permanent=whose is Action.GIVE_UP))

    def failed(self, error: Exception) -> None:
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
        self._lacks_token = isinstance(error, TokenError)

    def _abandon(self, attempt: Attempt, delay: float) -> None:
        if attempt.link is not None:
            attempt.link.close()
        self._end_attempt()
        if attempt.ended is not None:
            cause, reason = attempt.ended
            self._emit(events.Disconnected(cause, reason, delay))
        elif self._link is not None:
            self._pump()

    def first_ended(self, cause: str, reason: int | None) -> None:
        """The connection ended; whether that was planned depends on the attempt."""
        if self._said_goodbye:
            self._closed()
            return
        token = self._token
        self._retire_link()
        attempt = self._attempt
        if attempt is None:
            self._lost(cause, reason, token)
        elif attempt.reauthenticating:
            self._end_attempt()
            refused = reason is not None and action_for(DISCONNECT, reason) is Action.NEW_TOKEN
            if not refused:
                self._in_place.ended(reason)
            presented = attempt.credentials.token if refused and attempt.credentials else None
            self._lost(cause, reason, presented, presented=True)
        else:
            if not attempt.ends_first:
                self._emit(events.Disconnected(cause, reason, 0.0))
            attempt.first_closed(cause, reason)

    def _lost(self, cause: str, reason: int | None, token: Token | None, *, presented: bool = False) -> None:
        self._patience.count_anew_if_stable()
        whose = Action.RETRY if reason is None else action_for(DISCONNECT, reason)
        if self._in_place.was_in_vain():
            delay = 0.0
        elif reason == TAKEN_OVER:
            delay = self._patience.after_take_over()
        elif token is not None and (whose is Action.NEW_TOKEN or (reason is None and is_near_its_end(token))):
            delay = self._patience.after_refusal(token, presented=presented)
        else:
            delay = self._patience.after_failure()
        self._emit(events.Disconnected(cause, reason, delay))
        self._try_again(delay)

    def _try_again(self, delay: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._close_when_empty()
        if not self._said_goodbye:
            self._retry = self._runtime.call_later(delay, self._begin)

    def _retire_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._session.connection_lost(self._link)
            self._link = self._token = None

    # What the link tells

    def packets_arrived(self, link: NetworkConnection[Outgoing], packets: list[Packet]) -> None:
        for packet in packets:
            if link.closed:
                return
            if isinstance(packet, Message):
                self._session.receive_message(link, packet)
            elif isinstance(packet, Acknowledgement) and not packet.reason:
                self._session.receive(link, packet)
            else:
                self._packet_arrived(link, packet)
        self._go_on()

    def _packet_arrived(self, link: NetworkConnection[Outgoing], packet: Packet) -> None:
        """What is not of every day."""
        if isinstance(packet, Disconnect):
            link.close()
            told = _in_words(DISCONNECT, packet.reason, packet.server)
            self.first_ended(f"the broker ended the connection: {told}", packet.reason)
        elif isinstance(packet, Auth | Connack):
            self._authentication_answered(link, packet)
        elif self._token is not None and is_near_its_end(self._token) and self._session.denied(packet):
            self._token_denied(self._token)
        elif not isinstance(packet, Message | Pingresp):  # a PINGRESP that answers no PINGREQ is ignored
            self._session.receive(link, packet)

    def _token_denied(self, token: Token) -> None:
        """The broker keeps the connection of a token that has ended, and denies what is asked over it."""
        if self._denied != token:
            self._denied = token
            delay = self._patience.after_refusal(token, presented=False)
            self._emit(events.TokenRefused(NOT_AUTHORIZED, reason_name(NOT_AUTHORIZED), self._patience.refusals, delay))
            if self._attempt is None:
                self._try_again(delay)

    def _authentication_answered(self, link: NetworkConnection[Outgoing], answer: Auth | Connack) -> None:
        attempt = self._attempt
        if self._unanswered is not None and link is self._unanswered[0] and isinstance(answer, Auth):
            self._answered_late(answer, self._unanswered[1])
            return
        # AUTH goes on or succeeds; the other one may only refuse.
        fits = answer.reason in (0, CONTINUE_AUTHENTICATION) if isinstance(answer, Auth) else answer.reason >= 0x80
        if attempt is None or not attempt.reauthenticating or not fits:
            link.close()
            self.first_ended("the broker sent a packet that has no place here", None)
        elif answer.reason == CONTINUE_AUTHENTICATION:
            attempt.give_token()
        elif answer.reason:  # MQTT 5 has DISCONNECT for that; Mosquitto sends CONNACK
            link.close()
            self.first_ended(f"the broker refused the new token: {reason_name(answer.reason)}", answer.reason)
        elif attempt.credentials is not None:
            self._end_attempt()
            if self._token is not None:
                self._in_place.succeeded(self._token)
            self._token = attempt.credentials.token
            self._reauthenticated()

    def connection_writable(self, link: NetworkConnection[Outgoing]) -> None:  # noqa: ARG002 - ConnectionListener's
        self._go_on()

    def connection_wrote(self, items: list[Outgoing]) -> None:
        self._session.written(items)

    def connection_closed(self, link: NetworkConnection[Outgoing], cause: str, reason: int | None) -> None:
        if link is self._link:
            self.first_ended(cause, reason)

    def _go_on(self) -> None:
        """The connection has room, or an answer may have made some."""
        if self._attempt is not None:
            self._attempt.first_progressed()
        self._pump()
        self._close_when_empty()

    def _pump_now(self) -> None:
        self._pump_due = False
        self._pump()

    def _pump(self) -> None:
        if self._link is None or (self._attempt is not None and self._attempt.holds):
            return
        if self._session.send(self._link, self._limits):
            self.wake()

    # The end

    def _close_when_empty(self) -> None:
        if self._closing is None or self._session.queued:
            return
        # Any later and the session is between two connections.
        if self._attempt is None or self._link is None or self._attempt.may_be_left:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._attempt is not None:
            self._attempt.conclude()  # the broker listens to the second connection by now
        if self._said_goodbye:
            return
        self._said_goodbye = True
        for timer in (self._goodbye, self._retry):
            if timer is not None:
                timer.cancel()
        if self._attempt is not None:
            self._attempt.abandon()
        self._end_attempt()
        if self._link is None:
            self._closed()
        else:
            # The broker closes; if we did, with something unread, TCP could drop DISCONNECT and fire the will.
            self._goodbye = self._runtime.call_later(_END_TIME, self._closed)
            self._link.end()

    def _closed(self) -> None:
        done, self._closing = self._closing, None
        if done is None:
            return
        if self._goodbye is not None:
            self._goodbye.cancel()
        self._retire_link()
        abandoned = self._session.close()
        if abandoned:
            self._emit(events.MessagesAbandoned(abandoned))
        done()


def _in_words(packet: int, reason: int, server: str | None) -> str:
    """What a CONNACK or DISCONNECT means, and what a person can do about it."""
    if server is not None:
        return f"{reason_name(reason)}; it names {server!r} instead: give that as broker"
    return (
        f"{reason_name(reason)}; {advice(reason)}"
        if action_for(packet, reason) is Action.GIVE_UP
        else reason_name(reason)
    )
