"""SocketReportingAdapter: an adapter of requests that reports the socket of each connection before it is used."""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
from collections.abc import Callable
from typing import Any

from requests.adapters import HTTPAdapter

_Report = Callable[[socket.socket], None]

_MOST_INTERIM = 20  # answers before the final one


class SocketReportingAdapter(HTTPAdapter):
    """Reports the socket of each connection.

    Args:
        report: called with the socket, before anything is read from it and before TLS.
    """

    def __init__(self, report: _Report) -> None:
        super().__init__()
        self._report = report

    def cert_verify(self, conn: Any, *arguments: Any, **options: Any) -> None:
        """Called with the pool of each request, through a proxy or not, before it makes a connection."""
        super().cert_verify(conn, *arguments, **options)  # type: ignore[no-untyped-call]  # of requests
        conn.ConnectionCls = functools.partial(_connect, _reporting(conn.ConnectionCls), self._report)


def _connect(connection: type[Any], report: _Report, *arguments: Any, **options: Any) -> Any:
    made = connection(*arguments, **options)
    made.report = report
    return made


@functools.cache
def _reporting(connection: type[Any]) -> type[Any]:
    """Return a subclass of a connection's class of urllib3 that reports its socket."""
    return type(connection.__name__, (_ReportsSocket, connection), {})


class _FinalResponse(http.client.HTTPResponse):
    """Skips interim answers such as 103 (Early Hints), as any client must (RFC 9110 section 15.2). Python skips 100."""

    def begin(self) -> None:
        super().begin()
        for _ in range(_MOST_INTERIM):
            if not 102 <= self.status < 200:
                break
            self.headers = self.msg = None  # type: ignore[assignment]  # as before the first one
            super().begin()


class _ReportsSocket:
    response_class = _FinalResponse
    report: _Report

    @property
    def sock(self) -> Any:
        return vars(self).get("sock")

    @sock.setter
    def sock(self, sock: Any) -> None:
        vars(self)["sock"] = sock
        if isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket):  # which is over one that is known
            self.report(sock)
