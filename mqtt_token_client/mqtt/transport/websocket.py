"""MQTT over a WebSocket (RFC 6455; MQTT 5 section 6), with the interface of a socket."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from itertools import islice
from typing import TYPE_CHECKING

from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from ...errors import BrokerError, BrokerRefused
from ...logs import printable
from ..codec.reason_codes import NOT_AUTHORIZED, Action

if TYPE_CHECKING:
    from wsproto import WSConnection

_FRAMES_A_CALL = 16  # a frame can be two bytes long and costs some microseconds: the rest is left for another turn

# RFC 6455 section 7.4.1, and the IANA registry that it establishes. EMQX closes with 1000 when the token expires: as
# with a TCP connection that just closes, what matters is how near the token is to its expiry.
_WEBSOCKET_CLOSE: dict[int, tuple[str, Action]] = {
    1000: ("Normal Closure", Action.RETRY),
    1001: ("Going Away", Action.RETRY),
    1002: ("Protocol error", Action.RETRY),
    1003: ("Unsupported Data", Action.RETRY),
    1005: ("No Status Rcvd", Action.RETRY),
    1007: ("Invalid frame payload data", Action.RETRY),
    1008: ("Policy Violation", Action.NEW_TOKEN),
    1009: ("Message Too Big", Action.RETRY),
    1011: ("Internal Error", Action.RETRY),
    1012: ("Service Restart", Action.RETRY),
    1013: ("Try Again Later", Action.RETRY),
    1014: ("Bad Gateway", Action.RETRY),
    3000: ("Unauthorized", Action.NEW_TOKEN),
    3003: ("Forbidden", Action.NEW_TOKEN),
    3008: ("Timeout", Action.RETRY),
}


class WebSocket:
    """The bytes that MQTT exchanges with the broker, whatever the frames that carry them.

    As with TLS, a ``send()`` that would block, or that sent less than all, has to be called again with the rest; and
    what has been read from the socket already does not make it readable: ask ``pending()``.
    """

    def __init__(self, sock: socket.socket, protocol: WSConnection) -> None:
        self._sock = sock
        self._protocol = protocol
        self._arrived = bytearray()
        self._more_frames = True  # perhaps, in what has been read: some may have come with the answer to the upgrade
        self._end: str | None = None
        self._action = Action.RETRY  # at the end
        self._frame = bytearray()  # what is still to be sent of the current frame
        self._in_frame = 0  # how much of that is the caller's: the last bytes
        self._reply = b""  # a control frame that goes out before the next data frame
        self._decode()

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context underneath."""
        return self._sock.context if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session underneath."""
        return self._sock.session if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def session_reused(self) -> bool:
        """Whether that is an earlier one, resumed."""
        return isinstance(self._sock, ssl.SSLSocket) and bool(self._sock.session_reused)

    def pending(self) -> int:
        """How many bytes the operating system does not know of; the end and undecoded frames count as one."""
        below = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return below + len(self._arrived) + (self._more_frames or self._end is not None)

    @property
    def unsent(self) -> bool:
        """Whether a control frame, or the rest of one, waits for a ``send()``, which may be one of no data."""
        return bool(self._reply) or (self._end is None and not self._in_frame and bool(self._frame))

    def fileno(self) -> int:
        return self._sock.fileno()

    def getpeername(self) -> object:
        return self._sock.getpeername()

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self._sock.setsockopt(level, option, value)

    def setblocking(self, blocking: bool) -> None:
        self._sock.setblocking(blocking)

    def shutdown(self, _how: int) -> None:
        """Begin the closing handshake (RFC 6455 section 7.1.2): the broker answers and closes the connection."""
        if self._end is None and self._protocol.state is ConnectionState.OPEN:  # not a second time
            self._reply = self._protocol.send(CloseConnection(code=1000))
            with contextlib.suppress(OSError):  # the broker is gone
                self.send(b"")

    def close(self) -> None:
        self._sock.close()

    def send(self, data: bytes | bytearray | memoryview) -> int:
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
        """Some of the broker's bytes, or none if it closed the connection without a Close frame.

        Raises:
            BlockingIOError: there are none now, or not among the first frames; the next call looks at the next ones.
            BrokerRefused: it closed the WebSocket because of the token, by the code.
            BrokerError: it closed the WebSocket, or sent what MQTT does not allow.
            OSError: as that of a socket.
        """
        if not self._arrived and self._end is None:
            if not self._more_frames:
                data = self._sock.recv(size)
                if not data:
                    return b""
                self._protocol.receive_data(data)
            self._decode()
        if not self._arrived:
            if self._end is None:
                raise BlockingIOError(errno.EAGAIN, "no data frame yet")
            if self._action is Action.NEW_TOKEN:
                raise BrokerRefused(self._end, reason=NOT_AUTHORIZED)
            raise BrokerError(self._end)
        taken = bytes(self._arrived[:size])
        del self._arrived[:size]
        return taken

    def _decode(self) -> None:
        """Take some of the frames that have been read."""
        count = 0
        for event in islice(self._protocol.events(), _FRAMES_A_CALL):
            count += 1
            self._take(event)
            if self._end is not None:
                break
        self._more_frames = count == _FRAMES_A_CALL and self._end is None
        if self._reply and not self._frame:
            with contextlib.suppress(OSError):  # if it cannot go out now, then before what is sent next
                self.send(b"")

    def _take(self, event: Event) -> None:
        if isinstance(event, BytesMessage):
            self._arrived += event.data
        elif isinstance(event, Ping):
            if self._protocol.state is ConnectionState.OPEN:  # not once we have sent Close
                self._reply = self._protocol.send(event.response())  # to the last one only (section 5.5.3)
        elif isinstance(event, TextMessage):
            self._end = "the broker sent a text frame over the WebSocket"  # [MQTT-6.0.0-1]
        elif isinstance(event, CloseConnection):
            if self._protocol.state is ConnectionState.CLOSED:  # by us
                self._end = "the WebSocket is closed"
            elif self._protocol.state is ConnectionState.REMOTE_CLOSING:
                name, self._action = websocket_close(int(event.code))
                self._end = " ".join(filter(None, ("the broker closed the WebSocket:", str(int(event.code)), name)))
                if event.reason:
                    self._end += f" ({printable(event.reason)})"
                self._reply = self._protocol.send(event.response())
            else:
                self._end = f"the broker broke the WebSocket protocol: {printable(str(event.reason))}"


def websocket_close(code: int) -> tuple[str, Action]:
    """The name of the code of a Close frame from the broker, and what to do about it. Codes that are not registered,
    among them those of applications (from 4000 on), have no name and mean a retry.
    """
    return _WEBSOCKET_CLOSE.get(code, ("", Action.RETRY))
