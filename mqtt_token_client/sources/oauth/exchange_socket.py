"""The socket of an exchange over HTTP, which another thread can shut down."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from requests import Session


class ExchangeSocket:
    """The socket of one exchange. Any thread may shut it down, also in the middle of the TLS handshake."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None  # with a descriptor of its own, as TLS takes over that of the other
        self._is_shut_down = False

    def of(self, session: Session) -> Session:
        """Have the connections of a session report their sockets here; returns it."""
        from .socket_adapter import SocketReportingAdapter  # it loads requests

        for scheme in ("https://", "http://"):
            session.mount(scheme, SocketReportingAdapter(self.opened))
        return session

    def opened(self, sock: socket.socket) -> None:
        """The exchange uses this socket from now on.

        Raises:
            OSError: it was shut down before, or there is no descriptor left.
        """
        with self._lock:
            if self._is_shut_down:
                raise ConnectionAbortedError(errno.ECONNABORTED, "nobody waits for the answer any more")
            self._close()
            self._sock = socket.fromfd(sock.fileno(), sock.family, sock.type)

    def shut_down(self) -> None:
        """Whoever reads from it finds its end. It stays connected, as Python leaves a socket open that lost its peer
        before the TLS handshake.
        """
        with self._lock:
            self._is_shut_down = True
            if self._sock is not None:
                with suppress(OSError):  # the server has closed it
                    self._sock.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """The exchange is over."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
