"""BrokerTls: which TLS context and which TLS session a client's next connection uses."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from ... import events
from ...backoff import uniform
from ...clock import monotonic
from ...errors import CertificateRejected, ConfigurationError, MqttTokenError
from ..runtime.base import Runtime, Timer
from ..transport.address import Address
from ..transport.tls import context_of, new_session

if TYPE_CHECKING:
    from ..transport.tls_context import TlsContext

# Seconds between two looks at files that may be renewed, at random: the clients of a process do not look together.
_SHORTEST_LOOK, _LONGEST_LOOK = 15.0, 30.0
_TRY_AGAIN = 3600.0  # seconds until files with which no connection was accepted are tried again


class BrokerTls:
    """The context of the newest files; or of the last ones with which the broker accepted a connection, if it does not
    accept the newest client certificate. A broker that the newest files do not trust is not connected to.

    All but :meth:`choose` and :meth:`session` is called on the runtime's thread.

    Args:
        runtime: has the timer of the looks.
        tls: the context and its files; None if no address of the broker is one of TLS.
        renewed: called when the connection is to move onto another context.
        report: gets events.
    """

    def __init__(
        self,
        runtime: Runtime,
        tls: TlsContext | None,
        renewed: Callable[[], None],
        report: Callable[[events.Event], None],
    ) -> None:
        self._runtime = runtime
        self._tls = tls
        self._renewed = renewed
        self._report = report
        self._used: ssl.SSLContext | None = None  # by the connection that was accepted last
        self._failed: ssl.SSLContext | None = None  # no connection was accepted with it, though with an earlier one
        self._distrusts = False  # because it does not trust the broker
        self._try_again = math.inf  # when it is used again
        self._reported: object = None  # the problem, or the context that failed
        self._sessions: dict[Address, tuple[ssl.SSLContext, ssl.SSLSession]] = {}
        self._timer: Timer | None = None

    # Called by an opening, on a worker

    def choose(self) -> ssl.SSLContext:
        """Return the context for a new connection, after a look at its files. Blocks.

        Raises:
            ConfigurationError: the files cannot be used.
        """
        assert self._tls is not None
        self._tls.look()
        return self._best()

    def session(self, address: Address, context: ssl.SSLContext | None) -> ssl.SSLSession | None:
        """Return a TLS session to resume. None with another context, whose client certificate it would hide."""
        of, session = self._sessions.get(address, (None, None))
        return session if of is context else None

    def _best(self) -> ssl.SSLContext:
        assert self._tls is not None
        newest = self._tls.newest
        assert newest is not None
        return self._used if self._used is not None and newest is self._failed and not self._distrusts else newest

    # Called by the manager

    def renews(self, sock: socket.socket) -> bool:
        """Whether the connection that is up has another context than this new one."""
        return context_of(sock) is not self._used

    @property
    def outdated(self) -> bool:
        """Whether the connection that is up has another context than a new one would have."""
        if self._tls is None or self._used is None:
            return False
        return self._tls.newest not in (self._used, self._failed)

    def accepted(self, address: Address, sock: socket.socket) -> None:
        """The broker accepted a connection."""
        self._used = context = context_of(sock)
        session = new_session(sock)
        if context is not None and session is not None:
            self._sessions[address] = context, session
        if self._tls is not None:
            if context is self._tls.newest:
                self._failed = None
            self._look_later()

    def failed(self, error: MqttTokenError) -> None:
        """A connection was not accepted. If it had a newer context than the last one that was, the next goes back to
        that one, and then they take turns; unless it is this device that did not accept the broker.
        """
        if self._tls is None or self._used is None:
            return
        best = self._best()
        if best is self._used:
            self._failed = None
            return
        self._failed, self._distrusts = best, isinstance(error, CertificateRejected)
        self._try_again = monotonic() + _TRY_AGAIN
        self._report_once(best, error)

    def stop(self) -> None:
        """Look at the files no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self.stop()
        assert self._tls is not None
        self._report_problem()
        if self._tls.followed:
            self._timer = self._runtime.call_later(uniform(_SHORTEST_LOOK, _LONGEST_LOOK), self._look)

    def _look(self) -> None:
        assert self._tls is not None
        if monotonic() >= self._try_again:
            self._failed, self._try_again = None, math.inf
        self._runtime.run_blocking(self._tls.look, self._looked)

    def _looked(self, _context: ssl.SSLContext | None, _error: Exception | None) -> None:
        if self._timer is not None:
            self._look_later()
            if self.outdated:
                self._renewed()

    def _report_problem(self) -> None:
        assert self._tls is not None
        problem, expires_in = self._tls.problem, self._tls.expires_in
        if problem is not None:
            self._report_once(problem, problem)
        elif expires_in is not None:
            stage = "expires soon" if expires_in > 0 else "has expired"
            text = f"certificate: the client certificate {stage}, and was not renewed; see what should renew its files"
            self._report_once((self._tls.newest, stage), ConfigurationError(text))

    def _report_once(self, cause: object, error: MqttTokenError) -> None:
        if cause != self._reported:
            self._reported = cause
            self._report(events.TlsFilesFailed(error))
