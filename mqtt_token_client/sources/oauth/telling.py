"""TellingAdapter: has the connections of requests tell a Line their sockets."""

from __future__ import annotations

import functools
import socket
import ssl
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from .line import Line


class TellingAdapter(HTTPAdapter):
    """Has each connection tell a line its socket."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def cert_verify(self, conn: Any, *arguments: Any, **options: Any) -> None:
        """Called with the pool of each request, through a proxy or not, before it makes a connection."""
        super().cert_verify(conn, *arguments, **options)  # type: ignore[no-untyped-call]  # of requests
        conn.ConnectionCls = functools.partial(_connect, _telling(conn.ConnectionCls), self._line)


def _connect(connection: type[Any], line: Line, *arguments: Any, **options: Any) -> Any:
    made = connection(*arguments, **options)
    made.line = line
    return made


@functools.cache
def _telling(connection: type[Any]) -> type[Any]:
    """Return the class for connections of urllib3 that tell their line the socket before anything is read from it."""
    return type(connection.__name__, (_Telling, connection), {})


class _Telling:
    line: Line

    @property
    def sock(self) -> Any:
        return vars(self).get("sock")

    @sock.setter
    def sock(self, sock: Any) -> None:
        vars(self)["sock"] = sock
        if isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket):  # which is over one that is known
            self.line.use(sock)
