"""ConnectionManager: one client's connection, for as long as the client is connected or wants to be.

There is the current connection, if one is up, and at most one attempt to get onto a token: to connect, or to move the
current connection onto a new token. Whatever becomes of an attempt, the next one begins when there is a new token or
when the back-off says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from ... import events
from ...profiles import Credentials
from ...token import Token
from ..codec.packets import Connack, Packet
from ..runtime.base import Runtime, coalesced
from ..session.limits import Limits
from ..session.session import Session
from ..transport import Loss
from ..transport.address import Brokers
from .attempt import Attempt, Rejection
from .broker_tls import BrokerTls
from .closing import Closing
from .connect import Connect, unanswered
from .current import CurrentConnection
from .handover import Handover
from .opening import Opened, Opening, open_connection
from .reauthenticate import Reauthenticate
from .reconnect import Reconnect
from .recovery import Recovery
from .retry import RetryState
from .settings import CredentialsSource, Settings, Turn
from .traits import BrokerTraits

if TYPE_CHECKING:
    from .observer import Observer

_NO_ATTEMPT = Attempt()


class ConnectionManager:
    """Connects, and stays connected. ``wake`` may be called on any thread, everything else on the runtime's.

    Args:
        runtime: drives it.
        settings: of the client.
        source: makes the credentials.
        session: outlives the connections.
        observer: gets each change.

    Attributes:
        attempt: the one that is under way.
        wake: call it when a message waits in the outbox or the subscriptions have changed.
    """

    def __init__(
        self, runtime: Runtime, settings: Settings, source: CredentialsSource, session: Session, observer: Observer
    ) -> None:
        self.runtime = runtime
        self.attempt = _NO_ATTEMPT
        self.wake = coalesced(runtime, self.progressed)
        self._settings = settings
        self._source = source
        self._session = session
        self._observer = observer
        self._brokers = Brokers(settings.brokers)
        tls = BrokerTls(runtime, settings.tls, self.rotate, observer.report)
        self._traits = BrokerTraits(tls)
        self._retry = RetryState(settings.backoff)
        self._recovery = Recovery(runtime, self._retry, self._brokers, tls, source, observer, self.begin)
        self._current: CurrentConnection | None = None
        self._wanted: Token | None = None  # the newest token
        self._closing: Closing | None = None
        self._turn: Turn | None = None  # of a rotation that is under way, or waits for it

    @property
    def state(self) -> str:
        """``connected``, ``rotating``, ``connecting``, ``waiting`` (for the next attempt) or ``closed``."""
        if self.attempt.kind is not None:
            return "rotating"
        if self._current is not None:
            return "connected"
        if self.attempt is not _NO_ATTEMPT:
            return "connecting"
        return "waiting" if self._recovery.waiting else "closed"

    def rotate(self, token: Token | None = None) -> None:
        """Move onto a new token, or onto renewed TLS files, unless the connection is on them already, or is left."""
        self.runtime.check_thread()
        self._wanted = token or self._wanted
        up_to_date = self._wanted in (None, self._current and self._current.token) and not self._traits.tls.outdated
        leaves = self._closing is not None and self._closing.disconnecting
        if self.attempt is not _NO_ATTEMPT or up_to_date or leaves:
            return
        if (token and self._recovery.lacks_token) or (self._current is not None and not self._recovery.waiting):
            self._retry.reset_if_stable()
            self.begin()

    def close(self, timeout: float, done: Callable[[], None]) -> None:
        """Give the outbox ``timeout`` seconds, or none if called again with 0; then disconnect, and call ``done``."""
        self.runtime.check_thread()
        if self._closing is not None:
            if not timeout:
                self._closing.disconnect()
            return
        self._closing = Closing(self.runtime, self, timeout, done)  # type: ignore[abstract]  # it needs one method
        self.progressed()  # a signal handler may have called this in the middle of publish(), before that woke anybody

    # An attempt

    def begin(self) -> None:
        """Begin an attempt; a rotation begins when it is its turn."""
        self.runtime.check_thread()
        assert self.attempt is _NO_ATTEMPT
        self._recovery.cancel()
        opening = self.attempt = Opening(self.runtime, self)

        def start() -> None:
            opening.wanted = self._wanted
            tls, rejected = self._traits.tls, self._retry.rejected
            if self._current is not None and self._traits.reauthentication.possible and not tls.outdated:
                opening.obtain(functools.partial(self._source.credentials, rejected))
            else:
                to = functools.partial(open_connection, self._settings, self._source, self._brokers.current, tls)
                opening.open(functools.partial(to, rejected=rejected, first=not self._session.known))

        self._turn = None if self._current is None else self._source.take_turn(self._current.token, start)
        if self._turn is None:
            start()

    def opened(self, opened: Opened) -> None:
        """Send CONNECT, or prepare the current connection for that."""
        current = self._current
        up_to_date = current is not None and opened.credentials.token == current.token
        if up_to_date and not self._traits.tls.renews(opened.sock):
            opened.sock.close()
            self._go_on(self._end_attempt().wanted)
            return
        connect = Connect(self.runtime, self._session, opened, str(self._brokers.current), self, self._recovery.gave_up)
        if current is None:
            self.attempt = connect
            connect.send()
        elif self._settings.takeover_fires_will(current.limits.session_expiry):
            reconnect = self.attempt = Reconnect(self.runtime, current.connection, connect, self)
            reconnect.start()
        else:
            old = current.connection
            handover = self.attempt = Handover(self.runtime, self._session, self._traits, old, connect, self)
            handover.start()

    def obtained(self, credentials: Credentials) -> None:
        """Send AUTH, if it can be sent."""
        current = self._current
        if current is not None and credentials.token == current.token:
            self._go_on(self._end_attempt().wanted)
        elif current is not None and self._traits.reauthentication.matches(credentials) and current.fits(credentials):
            attempt = self.attempt = Reauthenticate(self.runtime, current.connection, credentials, self)
            attempt.start()
        else:  # the connection is lost, or the method is another one
            self._traits.reauthentication.disable_for_connection()
            self._end_attempt()
            self.begin()

    def _end_attempt(self, *, close: bool = False) -> Attempt:
        attempt, self.attempt = self.attempt, _NO_ATTEMPT
        attempt.end()
        if close:
            attempt.close()
        if self._turn is not None:
            self._turn.end()
        return attempt

    def accepted(self, connect: Connect, connack: Connack, packets: list[Packet]) -> None:
        """The new connection becomes the current one."""
        kind, gap = self.attempt.kind, self.attempt.gap
        old, self._current = self._current, None
        self._traits.leaves_old_connection_open = old is not None
        if old is not None:
            old.retire()
        known, broker = self._session.known, str(self._brokers.current)
        connection, token = connect.connection, connect.credentials.token
        current = CurrentConnection(connection, token, Limits.of(connack, self._settings.protocol), self._session, self)
        self._end_attempt()
        connection.owner = self._current = current
        self._traits.connected(self._brokers.accepted(), connect.credentials, connect.sock)
        connection.keepalive.start(connack.properties.get("server_keep_alive", self._settings.keepalive))
        self._session.connected(connection, broker, session_present=connack.session_present, rotated=kind is not None)
        if kind is None:
            self._retry.connected(token)
            self._observer.up(broker, session_present=connack.session_present)
        else:
            self._retry.rotated(token)
            self._observer.rotated(kind, gap)
        # To a client that wants no session this is reported at a rotation only, where messages are lost by it.
        if known and not connack.session_present and (self._settings.session_expiry or kind is not None):
            self._observer.report(events.SessionLost(self._session.stats.inflight))
        self.progressed()
        if packets:
            current.packets_arrived(connection, packets)
        connection.resume_reading()
        self._go_on()

    def rejected(self, rejection: Rejection) -> None:
        attempt = self._end_attempt(close=True)
        self._recovery.rejected(rejection, up=self._current is not None, loss=attempt.loss)
        self.progressed()

    def failed(self, error: Exception) -> None:
        self._recovery.failed(error, up=self._current is not None, loss=self._end_attempt(close=True).loss)
        self.progressed()

    def reauthenticated(self, token: Token) -> None:
        current = self._current
        assert current is not None
        before, current.token = current.token, token
        current.unanswered = None
        if self.attempt.committed:
            return  # the answer is late: CONNECT with the same token was sent
        self._end_attempt(close=True)
        self._traits.reauthentication.succeeded(before)
        self._retry.rotated(token)
        self._observer.rotated("re-authentication", 0.0)
        self._session.token_renewed()
        self._go_on()

    def reauthentication_failed(self, token: Token) -> None:
        """Hand over instead, and from the second time in a row on without trying AUTH."""
        assert self._current is not None
        self._current.unanswered = token
        self._traits.reauthentication.unanswered()
        self._end_attempt()
        self.begin()

    def _go_on(self, not_found: Token | None = None) -> None:
        """Rotate again if there is a newer token by now; ``not_found`` is one that the source did not have."""
        if self._wanted is not_found:  # none has arrived since it was asked
            self._wanted = None
        self.rotate(self._wanted)
        self._close_when_empty()

    # Called by the current connection

    def connection_ended(self, loss: Loss) -> None:
        """Start over, unless the attempt that is under way goes on without the connection."""
        if self._closing is not None and self._closing.disconnecting:
            self._closing.finish()
            return
        current, attempt = self._current, self.attempt
        assert current is not None
        blame = current.retire(None if attempt.committed else loss)
        self._current = None
        if attempt is _NO_ATTEMPT:
            self._recovery.lost(loss, current, self._traits.reauthentication, blame)
        elif isinstance(attempt, Reauthenticate):
            self._end_attempt()
            self._recovery.lost_at_reauthentication(loss, attempt.credentials.token, self._traits.reauthentication)
        elif attempt.committed:
            attempt.connection_lost(loss)
        else:
            self._recovery.down(loss, 0.0)
            if isinstance(attempt, Handover | Reconnect):
                self._end_attempt()
                connect = self.attempt = attempt.connect
                connect.listener = self
                connect.send()
            elif self._turn is not None:
                self._turn.hurry()
        self._close_when_empty()

    def token_denied(self, token: Token) -> None:
        if self._closing is None or not self._closing.disconnecting:
            self._recovery.denied(token, idle=self.attempt is _NO_ATTEMPT)

    def progressed(self) -> None:
        if self.attempt is not _NO_ATTEMPT:
            self.attempt.progressed()
        if self._current is None:
            self._session.make_changes()
        elif self.attempt.held_since is None and self._current.send():
            self.wake()
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        # Once an attempt is past being leavable, the session may be on either connection.
        if self._closing and not self._session.queue and (self._current is None or self.attempt.leavable):
            self._closing.disconnect()

    def leave(self) -> CurrentConnection | Connect | None:
        """Give up the attempt, plan no other, and return what has the connection to end."""
        self._recovery.cancel()
        self._traits.tls.stop()
        if self._current is None and (connect := unanswered(self.attempt)) is not None:
            self._end_attempt()
            return connect
        self.attempt.close(disconnect=True)
        self._end_attempt()
        return self._current
