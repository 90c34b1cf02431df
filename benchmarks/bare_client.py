"""A bare MQTT socket that feeds and watches the clients under test."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

_PUBLISH, _PUBREL = 0x30, 0x62
_PINGREQ = b"\xc0\x00"
_ANSWER = 4  # bytes of PUBACK, PUBREC or PUBCOMP


class BareClient:
    """A connection of MQTT 3.1.1 that costs next to nothing: packets are built beforehand, answers are hardly read."""

    def __init__(self, port: int, name: str, context: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname="127.0.0.1")
        body = struct.pack("!H4sBBHH", 4, b"MQTT", 4, 2, 0, len(name)) + name.encode()
        self._socket.sendall(_packet(0x10, body))
        self._read(4)  # CONNACK

    def watch(self, topic: str, then: Callable[[], object]) -> None:
        """Subscribe; ``then`` is called in a thread when a message arrives, and the connection is closed."""
        self._socket.sendall(_packet(0x82, b"\x00\x01" + _text(topic) + b"\x00"))
        self._read(5)  # SUBACK
        threading.Thread(target=self._wait, args=(then,), daemon=True).start()

    def _wait(self, then: Callable[[], object]) -> None:
        with self._socket:  # closed here: another thread would close the descriptor that recv() uses
            self._socket.recv(65_536)
        then()

    def feed(self, topic: str, payload: bytes, qos: int, count: int) -> float:
        """Publish a message ``count`` times, as fast as the broker reads.

        Returns:
            When that began, by the monotonic clock: at QoS 2 the release, before which none is passed on.
        """
        assert count <= 65_535
        identifiers = [struct.pack("!H", number) if qos else b"" for number in range(1, count + 1)]
        head = _text(topic)
        began = self._send(_packet(_PUBLISH | qos << 1, head + identifier + payload) for identifier in identifiers)
        if qos:
            self._skip(_ANSWER * count)
        else:
            self._socket.sendall(_PINGREQ)
            self._read(len(_PINGREQ))  # PINGRESP: the broker has read them all
        if qos == 2:
            began = self._send(_packet(_PUBREL, identifier) for identifier in identifiers)
            self._skip(_ANSWER * count)
        return began

    def close(self) -> None:
        self._socket.close()

    def _send(self, packets: Iterator[bytes]) -> float:
        joined = b"".join(packets)
        began = time.monotonic()
        self._socket.sendall(joined)
        return began

    def _skip(self, size: int) -> None:
        while size:
            time.sleep(0.01)  # reading each at once would take processor time from the processes that are measured
            size -= len(self._socket.recv(min(size, 1 << 20)))

    def _read(self, size: int) -> None:
        while size:
            size -= len(self._socket.recv(size))


def _text(text: str) -> bytes:
    return struct.pack("!H", len(text)) + text.encode()


def _packet(command: int, body: bytes) -> bytes:
    head, length = bytearray((command,)), len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body
