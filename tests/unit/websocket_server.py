"""The server's side of a WebSocket, written by hand from RFC 6455, frame by frame."""

from __future__ import annotations

import base64
import hashlib
import socket
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """An unmasked frame (section 5.2)."""
    first = opcode | (0x80 if fin else 0)
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    if len(payload) < 65_536:
        return bytes((first, 126)) + len(payload).to_bytes(2) + payload
    return bytes((first, 127)) + len(payload).to_bytes(8) + payload


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason)


class WebSocketPeer:
    """An accepted connection. Tests may use it as a socket: ``sendall`` and ``recv`` add and remove frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = ""
        self.headers: dict[str, str] = {}
        self._data = bytearray()
        self._payload = bytearray()

    def read_request(self) -> None:
        """The upgrade, up to its empty line, unless it was read already."""
        if self.request:
            return
        while b"\r\n\r\n" not in self._data:
            piece = self.sock.recv(1000)
            assert piece, "the connection ended within the upgrade"
            self._data += piece
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self._data[:] = rest
        self.request, *lines = head.decode().split("\r\n")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def accept(self, *more: bytes, subprotocol: str | None = "mqtt", key: str | None = None, extra: str = "") -> None:
        """Answer 101, followed by ``more``."""
        self.read_request()
        digest = hashlib.sha1((key or self.headers["sec-websocket-key"]).encode() + _GUID).digest()
        chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        accept = base64.b64encode(digest).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.sock.sendall(f"{head}Sec-WebSocket-Accept: {accept}\r\n{chosen}{extra}\r\n".encode() + b"".join(more))

    def refuse(self, status: int, *lines: str) -> None:
        self.read_request()
        head = "\r\n".join((f"HTTP/1.1 {status} Because", *lines, "Content-Length: 4"))
        self.sock.sendall(f"{head}\r\n\r\nbody".encode("latin-1"))

    def next(self) -> tuple[int, bytes] | None:
        """The client's next frame, unmasked, or None at the end of the connection."""
        head = self._read(2)
        if head is None:
            return None
        assert head[0] & 0xF0 == 0x80, "a client that sends whole messages sends no fragments and no extension's bits"
        assert head[1] & 0x80, "a client's frames are masked"
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(self._read(2 if size == 126 else 8) or b"")
        key, payload = self._read(4), self._read(size)
        if key is None or payload is None:
            return None
        mask = int.from_bytes((key * (size // 4 + 1))[:size])
        return head[0] & 0x0F, (int.from_bytes(payload) ^ mask).to_bytes(size)

    def _read(self, count: int) -> bytes | None:
        while len(self._data) < count:
            piece = self.sock.recv(65_536)
            if not piece:
                return None
            self._data += piece
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    # As a socket

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(frame(BINARY, data))

    def recv(self, count: int) -> bytes:
        while not self._payload:
            found = self.next()
            if found is None or found[0] == CLOSE:
                return b""
            assert found[0] == BINARY
            self._payload += found[1]
        taken = bytes(self._payload[:count])
        del self._payload[:count]
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)
