"""ClientCore: one client's lifecycle, under the blocking and the asyncio interface.

Its interfaces wait for its one-shots, each in their own way. The connection reports by :class:`Observer`'s four calls.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable

from . import events
from .arguments import SessionOptions, check_function
from .errors import ClientClosed, MqttTokenError
from .forking import reset_after_fork, works_in_one_process
from .logs import get_logger
from .mqtt.lifecycle.manager import ConnectionManager
from .mqtt.lifecycle.settings import Settings
from .mqtt.runtime.base import Runtime
from .mqtt.session.packet_ids import HIGHEST_PACKET_ID
from .mqtt.session.reports import Stats
from .mqtt.session.session import Session
from .oneshot import OneShot
from .phase import Phase, ends_connect
from .starting import Starting
from .token import Token
from .tokens.credentials import CredentialsProvider

log = get_logger("mqtt_token_client")

_INHERITED = (
    "the client was in use when this process was forked, and works in the parent process only; "
    "make a TokenClient in this process, after the fork"
)


class ClientCore:
    """One client. Its methods may be called on any thread, except those of the Observer.

    Args:
        settings: how it connects.
        provider: its tokens.
        options: of its session.
        on_event: gets every event.
        acquire: returns the runtime that drives it, from each ``start`` on.
        release: called when it no longer needs the runtime.

    Attributes:
        awaited: whether ``connect()`` waits for the first result, and gives up at an error that only a person can fix.
        fatal_error: why the first connect failed, while the phase is FAILED; otherwise None.
        first_result: set when the first connect has succeeded, or failed in a way that only a person can fix, or when
            the client is closed before that.
        listeners: get every event, on the thread on which it happened; ``on_event`` is the first of them.
        provider: the same.
        session: the interfaces publish and subscribe by it.
        starting: whether start() is under way.
    """

    __reduce__ = works_in_one_process

    def __init__(
        self,
        settings: Settings,
        provider: CredentialsProvider,
        options: SessionOptions,
        on_event: Callable[[events.Event], object] | None,
        acquire: Callable[[], Runtime],
        release: Callable[[], None],
    ) -> None:
        check_function("on_event", on_event)
        self.awaited = False
        self.fatal_error: MqttTokenError | None = None
        self.first_result = OneShot()
        self._closed = OneShot()  # nothing of an earlier connection is left
        self._closed.set()
        self._settings, self.provider = settings, provider
        self._acquire, self._release = acquire, release
        self.listeners = [] if on_event is None else [on_event]
        self.starting = Starting()
        self._phase = Phase.IDLE  # but see `phase`
        self._manager: ConnectionManager | None = None  # None while IDLE
        self._logged: object = None  # the last error
        journal = options.journal
        if journal is not None:
            journal.open(settings.client_id, functools.partial(_report_soon, self), provider.times_of_day)
        self.session = Session(
            max_queued=options.max_queued,
            max_inflight=options.max_inflight,
            emit=self.report,
            on_message=options.on_message,
            reply_by=options.reply_by,
            manual_acks=options.manual_acks,
            # Anywhere: a broker may remember identifiers of an earlier process, whose messages of QoS 2 were not
            # finished, and take a new message for an old one.
            last_packet_id=random.randrange(HIGHEST_PACKET_ID),  # noqa: S311 - hides nothing
            journal=journal,
        )
        self._renewals = 0
        reset_after_fork(self)

    def after_fork(self) -> None:
        """In a child: a client in use stays its parent's, as the connection does. Any other one is as new."""
        self.starting.after_fork()
        if self._manager is None and not self.session.queue and self.session.journal is None:
            return
        self._phase, self._manager = Phase.INHERITED, None
        self.first_result, self._closed = OneShot(), OneShot()
        self.first_result.set()
        self._closed.set()
        self.session.close(inherited=_INHERITED)

    # For the interfaces

    @property
    def phase(self) -> Phase:
        """How far it has come."""
        closing = self._manager is not None and self.starting.closed == self.starting.count
        return Phase.CLOSING if closing else self._phase

    @property
    def connected(self) -> bool:
        """Whether a connection is up."""
        return self.phase is Phase.UP

    @property
    def state(self) -> str:
        """``connected``, ``rotating``, ``connecting``, ``waiting`` (for the next attempt) or ``closed``."""
        manager = self._manager
        return "closed" if manager is None or self.phase is Phase.CLOSING else manager.state

    @property
    def stats(self) -> Stats:
        """What the client has done so far."""
        return Stats(**vars(self.session.stats), renewals=self._renewals)

    @property
    def runtime(self) -> Runtime | None:
        """What drives the connection; None while the client is not connected and does not want to be."""
        manager = self._manager
        return None if manager is None else manager.runtime

    def start(self) -> OneShot | None:
        """Begin to connect, unless that was done before.

        Returns: None; or, while an earlier connection is closing, the signal to wait for before it is called again.

        Raises:
            ClientClosed: the client was in use when this process was forked.
        """
        caller, starting = threading.get_ident(), self.starting
        with starting.lock:
            if self._phase is Phase.INHERITED:
                raise ClientClosed(_INHERITED)
            if self.phase is Phase.CLOSING:
                return self._closed
            if starting.thread == caller:  # a signal handler interrupts this, and it goes on afterwards
                starting.close_after = None
            # Python runs signal handlers after calls and jumps only: none comes between these lines.
            elif self._manager is None:
                starting.thread, starting.close_after = caller, None
                try:
                    self._start()
                finally:
                    starting.thread = 0
        if (timeout := starting.close_after) is not None:
            starting.close_after = None
            self.close(timeout)
        return None

    def _start(self) -> None:
        runtime = self._acquire()
        try:
            manager = ConnectionManager(runtime, self._settings, self.provider, self.session, self)
            self.provider.start(runtime, self._token_renewed, self.report)
        except BaseException:  # of a source that is watched
            self._release()
            raise
        self.session.open(runtime.call_soon, manager.wake)
        self.fatal_error = None
        self.first_result, self._closed = OneShot(), OneShot()
        self.starting.count += 1
        self._phase, self._manager = Phase.CONNECTING, manager
        runtime.call_soon(manager.begin)

    def close(self, timeout: float) -> OneShot:
        """Give the outbox ``timeout`` seconds (0 replaces an earlier number), then disconnect. Returns the signal; one
        that is set in a signal handler that interrupts start(), which then closes.
        """
        starting = self.starting
        with starting.lock:
            manager, number, closed = self._manager, starting.count, self._closed
            if starting.interrupted:
                starting.close_after, closed = timeout, OneShot()
                closed.set()
            elif manager is not None and (starting.closed != number or not timeout):
                manager.runtime.call_soon(functools.partial(manager.close, timeout, self._finish))
                starting.closed = number  # only now: a signal handler that interrupts this waits for its own request
            return closed

    def _finish(self) -> None:
        assert self._manager is not None
        self.provider.stop()
        if abandoned := self.session.close():
            self.report(events.MessagesAbandoned(abandoned))

        def finished() -> None:
            first_result, closed = self.first_result, self._closed
            self._phase = Phase.IDLE
            self._manager = None  # from here on another thread's start() may replace all of these
            first_result.set()
            closed.set()
            self._release()

        if self.session.journal is None:
            finished()
        else:
            self.session.journal.flush(functools.partial(self._manager.runtime.call_soon, finished))

    def renew(self) -> None:
        """Renew the token now. It blocks; called on the runtime's thread it returns at once instead.

        Raises:
            TokenError: the token could not be renewed.
            ClientClosed: the client was in use when this process was forked.
        """
        if self._phase is Phase.INHERITED:
            raise ClientClosed(_INHERITED)
        manager = self._manager
        if manager is not None and manager.runtime.on_thread:
            manager.runtime.run_blocking(self.provider.renew, self._asked)
        else:
            self.provider.renew()

    def _asked(self, _token: Token | None, error: Exception | None) -> None:
        if type(error) is MqttTokenError:  # no thread could be started, so the keeper has nothing to report
            expires_in = 0.0 if self.provider.token is None else max(0.0, self.provider.token.expires_in)
            self.report(events.RenewalFailed(error, self.provider.retry_in(), expires_in))

    def _token_renewed(self, token: Token) -> None:
        if (manager := self._manager) is not None:
            self._renewals += 1
            manager.rotate(token)

    # The Observer

    def up(self, broker: str, *, session_present: bool) -> None:
        self._change(Phase.UP)
        self.fatal_error = None
        self.first_result.set()
        self.provider.renew_ahead(wanted=True)
        self.report(events.Connected(broker, session_present))

    def down(self, cause: str, reason: int | None, retry_in: float) -> None:
        self._change(Phase.DOWN)
        self.provider.renew_ahead(wanted=False)  # a new connection obtains the token that it needs
        self.report(events.Disconnected(cause, reason, retry_in))

    def rotated(self, kind: events.RotationKind, gap: float) -> None:
        self.report(events.Rotated(kind, gap))

    def fatal(self, error: MqttTokenError) -> None:
        if self.phase is Phase.CONNECTING:
            self.fatal_error = error
            self._change(Phase.FAILED)
            self.first_result.set()

    def report(self, event: events.Event) -> None:
        if self.awaited and ends_connect(event, self.phase):
            event = events.without_retry(event)
        error = getattr(event, "error", None)
        repeated = error is not None and error is self._logged
        log.log(logging.DEBUG if repeated else event.log_level, "%s: %s", self._settings.client_id, event)
        self._logged = error or self._logged
        for listener in self.listeners:
            try:
                listener(event)
            except BaseException:  # sys.exit() in there must not end the thread of all clients
                log.exception("on_event raised an exception; the network thread goes on")

    def _change(self, phase: Phase) -> None:
        assert self._manager is not None
        self._manager.runtime.check_thread()
        self._phase = phase


def _report_soon(core: ClientCore, event: events.Event) -> None:
    """Report an event of any thread, on the runtime's if there is one."""
    if (manager := core._manager) is None:  # noqa: SLF001 - of the class above
        core.report(event)
    else:
        manager.runtime.call_soon(functools.partial(core.report, event))
