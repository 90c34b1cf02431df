"""A scripted authorization server on a loopback port, for what a real one cannot be made to do."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import socketserver
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl

# What to send: bytes, or a function of the connection and of an event that is set when the server closes.
Answer = bytes | Callable[[socket.socket, threading.Event], None]

_GONE = (OSError, ValueError)  # a client that gives up, or that starts TLS on a plain port


def answer(body: object = b"", status: int = 200, **headers: str) -> bytes:
    """A complete HTTP response; a body that is not bytes is sent as JSON; ``content_type="..."`` is a header."""
    if not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {"content_type": "application/json"} | headers
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def token_answer(value: str = "a-token-that-is-opaque", **more: object) -> bytes:
    """A token response (RFC 6749 section 5.1); a field that is None is omitted."""
    fields = {"access_token": value, "token_type": "Bearer", "expires_in": 3600} | more
    return answer({name: one for name, one in fields.items() if one is not None})


def endless(start: bytes, piece: bytes, pause: float = 0) -> Answer:
    """An answer that continues until the client gives up."""

    def send(connection: socket.socket, closing: threading.Event) -> None:
        connection.sendall(start)
        while not closing.wait(pause):
            connection.sendall(piece)

    return send


_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_BOMB = gzip.compress(b" " * 10_000_000) * 20  # 200 kB that become 200 MB


def _silence(_connection: socket.socket, closing: threading.Event) -> None:
    closing.wait()


# Invalid answers, by name: no client may accept a token from one, wait forever or fill its memory
SILENCE: Answer = _silence
TRICKLE: Answer = endless(_OK + b"\r\n", b" ", 0.05)
HEADER_TRICKLE: Answer = endless(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", 0.05)
ENDLESS: Answer = endless(_OK + b"\r\n", b" " * 65536)
TEN_MEGABYTES: Answer = token_answer("a" * 10_000_000)
GZIP_BOMB: Answer = answer(_BOMB, content_encoding="gzip", content_type="application/json")
CUT_OFF: Answer = token_answer()[:-10]
HANG_UP: Answer = b""
NOT_HTTP: Answer = b"\x15\x03\x03\x00\x02\x02\x46 this is not HTTP\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """A request as it arrived: header names in lower case, the fields of the form in their order."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> list[tuple[str, str]]:
        return parse_qsl(self.body, keep_blank_values=True, strict_parsing=True)


class OAuthServer:
    """A context manager that answers requests by path, or in turn; any other POST gets a new token, any other GET 404.

    Args:
        tls: serve https with this context.

    Attributes:
        requests: the received requests, in order.
        script: the answers to the next requests, one each.
        pages: the answer for a path, whenever ``script`` is empty.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.script: deque[Answer] = deque()
        self.pages: dict[str, Answer] = {}
        self._closing = threading.Event()
        self._tls = tls
        handle = self._handle

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(*_GONE):
                    handle(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self.token_endpoint = f"{self.origin}/token"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.socket.shutdown(socket.SHUT_RDWR)  # ends accept() at once
        self._thread.join()
        self._server.server_close()

    def describe(self, path: str, **metadata: Any) -> None:
        """Serve the server's metadata at ``path``; ``issuer`` and ``token_endpoint`` need not be given."""
        document = {"issuer": self.origin, "token_endpoint": self.token_endpoint} | metadata
        self.pages[path] = answer({name: value for name, value in document.items() if value is not None})

    @property
    def token_requests(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._server.process_request(*self._server.get_request())

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            request = _read(connection)
            self.requests.append(request)
            reply = self.script.popleft() if self.script else self.pages.get(request.path) or self._usual(request)
            if isinstance(reply, bytes):
                connection.sendall(reply)
            else:
                reply(connection, self._closing)

    def _usual(self, request: Request) -> Answer:
        if request.method == "GET":
            return answer(b"not here", 404, content_type="text/plain")
        return token_answer(f"opaque-token-{len(self.requests)}")


def _read(connection: socket.socket) -> Request:
    with connection.makefile("rb") as stream:
        method, path, _ = stream.readline().decode().split(" ", 2)
        headers = {}
        while line := stream.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Request(method, path, headers, stream.read(int(headers.get("content-length", 0))).decode())
