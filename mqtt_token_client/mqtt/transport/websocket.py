"""MQTT over a WebSocket (RFC 6455; MQTT 5 section 6), with the interface of a socket."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Mapping

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from ...clock import monotonic
from ...errors import BrokerError, BrokerRefused, BrokerUnreachable, ConfigurationError, ProtocolError
from ..codec.reason_codes import NOT_AUTHORIZED, Action, upgrade_action, websocket_close

_PIECE = 65_536


class WebSocket:
    """The broker's bytes, whatever the frames that carry them.

    As with TLS, who was told that a ``send()`` would block, or that it sent less than all, gives the rest first the
    next time; and bytes that have been decoded already make no socket readable.
    """

    def __init__(self, sock: socket.socket, protocol: WSConnection) -> None:
        self._sock = sock
        self._protocol = protocol
        self._arrived = bytearray()
        self._end: str | None = None
        self._fault = Action.RETRY  # whose the end is
        self._frame = bytearray()  # what is still to be sent of the frame under way
        self._in_frame = 0  # how much of that is the caller's: the last bytes
        self._reply = b""  # a control frame that goes out before the next data frame
        self._take_frames()  # what may have come together with the answer to the upgrade

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session underneath."""
        return self._sock.session if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def session_reused(self) -> bool:
        """Whether that is an earlier one, resumed."""
        return isinstance(self._sock, ssl.SSLSocket) and bool(self._sock.session_reused)

    def pending(self) -> int:
        """How much can be had that the operating system does not know of; the end counts as a byte."""
        below = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return below + len(self._arrived) + (self._end is not None)

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, blocking: bool) -> None:
        self._sock.setblocking(blocking)

    def close(self) -> None:
        self._sock.close()

    def send(self, data: bytes | memoryview) -> int:
        """Send some of it, and return how much.

        Raises:
            OSError: as that of a socket.
        """
        if self._end is not None and not self._reply:
            raise BrokenPipeError(errno.EPIPE, self._end)
        if not self._frame and self._reply:
            self._frame[:], self._reply = self._reply, b""
        elif not self._frame:
            self._frame[:] = self._protocol.send(BytesMessage(data=bytes(data)))
            self._in_frame = len(data)
        with memoryview(self._frame) as view:
            sent = self._sock.send(view)
        del self._frame[:sent]
        left = min(self._in_frame, len(self._frame))
        done, self._in_frame = self._in_frame - left, left
        return done

    def recv(self, size: int) -> bytes:
        """Some bytes of the broker's, or none if it closed the connection without a word.

        Raises:
            BrokerRefused: it closed the WebSocket because of the token, as the code tells.
            BrokerError: it closed the WebSocket, or sent what is none of MQTT's.
            OSError: as that of a socket.
        """
        while not self._arrived:
            if self._end is not None and self._fault is Action.NEW_TOKEN:
                raise BrokerRefused(self._end, reason=NOT_AUTHORIZED)
            if self._end is not None:
                raise BrokerError(self._end)
            data = self._sock.recv(size)
            if not data:
                return b""
            self._protocol.receive_data(data)
            self._take_frames()
        taken = bytes(self._arrived[:size])
        del self._arrived[:size]
        return taken

    def _take_frames(self) -> None:
        for event in self._protocol.events():
            if self._end is None:
                self._take(event)
        if self._reply and not self._frame:
            with contextlib.suppress(OSError):  # if it cannot go out now, then before what is sent next
                self.send(b"")

    def _take(self, event: Event) -> None:
        if isinstance(event, BytesMessage):
            self._arrived += event.data
        elif isinstance(event, Ping):
            self._reply = self._protocol.send(event.response())  # to the last one only (section 5.5.3)
        elif isinstance(event, TextMessage):
            self._end = "the broker sent a text frame over the WebSocket"  # [MQTT-6.0.0-1]
        elif isinstance(event, CloseConnection):
            if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                name, self._fault = websocket_close(int(event.code))
                self._end = " ".join(filter(None, ("the broker closed the WebSocket:", str(int(event.code)), name)))
                if event.reason:
                    self._end += f" ({event.reason})"
                self._reply = self._protocol.send(event.response())
            else:
                self._end = f"the broker sent what the WebSocket protocol does not allow: {event.reason}"


def upgrade(
    sock: socket.socket, host: str, path: str, headers: Mapping[str, str], deadline: float, name: str
) -> WebSocket:
    """The WebSocket over a connection, after its opening handshake. It blocks, until ``deadline`` at most.

    Args:
        host: the Host header.
        headers: they carry the token, if there are any.
        deadline: by :func:`~mqtt_token_client.clock.monotonic`.
        name: the broker's URL, for errors.

    Raises:
        BrokerRefused: the token was refused (HTTP 401 or 403), with the reason code of MQTT for that.
        BrokerUnreachable: no answer, or one that is to be asked for again (HTTP 408, 429 and 5xx).
        ConfigurationError: any other answer: there is no MQTT at this URL.
        ProtocolError: the answer is malformed.
        OSError: the connection broke.
    """
    protocol = WSConnection(ConnectionType.CLIENT)
    request = _request(protocol, host, path, headers)
    if request is None:
        raise ConfigurationError("profile: a header for the WebSocket upgrade is none of HTTP (RFC 9110 section 5)")
    sock.settimeout(max(0.001, deadline - monotonic()))
    sock.sendall(request)
    answer = None
    while answer is None:
        sock.settimeout(max(0.001, deadline - monotonic()))
        data = sock.recv(_PIECE)
        if not data:
            raise BrokerUnreachable(f"{name}: the connection was closed without an answer to the WebSocket upgrade")
        answer = _answer(protocol, data)
    if isinstance(answer, RejectConnection):
        raise _refusal(answer.status_code, name, token_sent=bool(headers))
    if not isinstance(answer, AcceptConnection):
        raise ProtocolError(f"{name}: the answer to the WebSocket upgrade is none of RFC 6455 section 4.2.2")
    if answer.subprotocol != "mqtt":
        raise ConfigurationError(f"{name}: the WebSocket there does not speak MQTT; check the URL's path")
    sock.setblocking(False)
    return WebSocket(sock, protocol)


# Errors of h11 quote what they object to, which may be a secret: those who raise ours do so outside of any "except", so
# that they are not their context.


def _request(protocol: WSConnection, host: str, path: str, headers: Mapping[str, str]) -> bytes | None:
    try:
        extra = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        return protocol.send(Request(host=host, target=path, subprotocols=["mqtt"], extra_headers=extra))
    except (h11.LocalProtocolError, UnicodeError):
        return None


def _answer(protocol: WSConnection, data: bytes) -> Event | str | None:
    """The answer, if it is there; a text for one that is none of HTTP, or not to this request."""
    try:
        protocol.receive_data(data)
    except (RemoteProtocolError, UnicodeError):
        return "malformed"
    # wsproto keeps the frames that follow for the events() of later
    return next(protocol.handshake.events(), None)


def _refusal(status: int, name: str, *, token_sent: bool) -> Exception:
    text = f"{name}: the WebSocket upgrade was answered with HTTP {status}"
    fault = upgrade_action(status)
    if fault is Action.NEW_TOKEN:
        if token_sent:
            return BrokerRefused(text, reason=NOT_AUTHORIZED)
        return ConfigurationError(f"{text}; it wants the token there: use a profile that puts it into a header")
    if fault is Action.RETRY:
        return BrokerUnreachable(text)
    if 300 <= status < 400:
        return ConfigurationError(f"{text}, which leads elsewhere and is not followed; give the URL that it leads to")
    return ConfigurationError(f"{text}; check the URL's path: many brokers have /mqtt")
