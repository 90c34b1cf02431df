"""Line: the connection of an exchange over HTTP, which another thread can cut."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from requests import Session


class Line:
    """The connection of an exchange. Any thread may cut it, also in the middle of the TLS handshake."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None  # with a descriptor of its own, as TLS takes over that of the other
        self._cut = False

    def carry(self, session: Session) -> Session:
        """Have the connections of a session known here; returns it."""
        from .telling import TellingAdapter  # it loads requests

        for scheme in ("https://", "http://"):
            session.mount(scheme, TellingAdapter(self))
        return session

    def use(self, sock: socket.socket) -> None:
        """It goes through this socket from now on.

        Raises:
            OSError: it was cut already, or there is no descriptor left.
        """
        with self._lock:
            if self._cut:
                raise ConnectionAbortedError(errno.ECONNABORTED, "nobody waits for the answer any more")
            self._close()
            self._sock = socket.fromfd(sock.fileno(), sock.family, sock.type)

    def cut(self) -> None:
        """Whoever reads from it finds its end. It stays connected, as Python leaves a socket open that lost its peer
        before the TLS handshake.
        """
        with self._lock:
            self._cut = True
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
