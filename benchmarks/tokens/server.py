"""A scripted authorization server over TLS, for failures that a real one cannot be made to have; it can also stand
before a real one and count.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import socketserver
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

from devtools.servers.pki import Pki

TEN_DAYS = 864_000  # seconds: longer than any step of a clock in the trials


@dataclass(frozen=True)
class Asked:
    """A POST to the token endpoint, and when it came, on the monotonic clock."""

    at: float
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


# None cuts the connection without an answer.
Script = Callable[[Asked], Reply | None]


class TokenServer:
    """An issuer with a token endpoint, a device authorization endpoint and metadata; any other GET is answered 200, as
    by an API that accepts every token.

    Args:
        pki: whose ``server`` certificate it shows.

    Attributes:
        script: what answers the token endpoint.
        asked: the requests to the token endpoint.
        expires: when each access token that it issued expires, on the monotonic clock.
        secrets: what no log may show, by its kind.
    """

    def __init__(self, pki: Pki) -> None:
        self.script: Script = lambda _: self.issue()
        self.asked: list[Asked] = []
        self.expires: dict[str, float] = {}
        self.secrets: dict[str, set[str]] = {"access token": set(), "refresh token": set(), "device code": set()}
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(pki.server.certificate, pki.server.key)
        self.port = 0
        self.start()

    @property
    def issuer(self) -> str:
        return f"https://127.0.0.1:{self.port}/issuer"

    def start(self) -> None:
        """Listen, after :meth:`stop` on the same port again."""
        serve = self._serve

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()

    def issue(self, expires_in: float = 3600, access_token: str | None = None, **more: Any) -> Reply:
        """A token response, with a new access token unless one is given."""
        value = access_token or f"at-{uuid.uuid4().hex}"
        refresh_token = f"rt-{uuid.uuid4().hex}"
        self.secrets["access token"].add(value)
        self.secrets["refresh token"].add(refresh_token)
        self.expires[value] = time.monotonic() + expires_in
        answer = {
            "access_token": value,
            "token_type": "Bearer",
            "expires_in": round(expires_in),
            "refresh_token": refresh_token,
            "id_token": _id_token(self.issuer),  # MSAL keeps no account without one
            "scope": "openid offline_access mqtt",
        }
        return reply(answer | more)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with self._tls.wrap_socket(connection, server_side=True) as secured, secured.makefile("rb") as stream:
            method, path, _ = stream.readline().decode().split(" ", 2)
            headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
            body = stream.read(int(headers.get("content-length", 0)))
            answer = self._answer(method, path, headers, body)
            if answer is None:
                return
            lines = [f"HTTP/1.1 {answer.status} Scripted", f"Content-Length: {len(answer.body)}", "Connection: close"]
            fields = {"Content-Type": "application/json", "Date": formatdate(usegmt=True)} | dict(answer.headers)
            lines += [f"{name}: {value}" for name, value in fields.items()]
            secured.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body)

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        if method == "POST" and path.endswith("/token"):
            asked = Asked(time.monotonic(), headers, body)
            self.asked.append(asked)
            return self.script(asked)
        if method == "POST" and path.endswith("/device"):
            code = f"dc-{uuid.uuid4().hex}"
            self.secrets["device code"].add(code)
            uri = f"{self.issuer}/approve"
            return reply(
                {"device_code": code, "user_code": "ABCD", "verification_uri": uri, "expires_in": 60, "interval": 1}
            )
        if path.endswith("/.well-known/openid-configuration"):
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token"}
            names["device_authorization_endpoint"] = "device"
            return reply({"issuer": self.issuer} | {name: f"{self.issuer}/{end}" for name, end in names.items()})
        return reply({}) if method == "GET" else Reply(404)


def reply(answer: Mapping[str, Any], status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(answer).encode(), headers)


def forward(port: int) -> Script:
    """Pass requests on to the token endpoint of a server that listens on a loopback port without TLS."""

    def ask(asked: Asked) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(connection):
            wanted = ("content-type", "authorization", "accept")
            headers = {name: asked.headers[name] for name in wanted if name in asked.headers}
            connection.request("POST", "/token", asked.body, headers)
            response = connection.getresponse()
            return Reply(response.status, response.read())

    return ask


def refresh_token_of(answer: Reply) -> str | None:
    value = json.loads(answer.body).get("refresh_token")
    return value if isinstance(value, str) else None


def _id_token(issuer: str) -> str:
    now = int(time.time())
    claims = {"iss": issuer, "sub": "alice", "aud": "device", "iat": now - TEN_DAYS, "exp": now + TEN_DAYS}
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
