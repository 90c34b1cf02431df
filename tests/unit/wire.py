"""A connection to the broker over a real socket, the other end of it, and its listener."""

from __future__ import annotations

import queue
import socket
import ssl
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from devtools.servers.pki import Pki
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.packets import Packet
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.transport import Loss
from mqtt_token_client.mqtt.transport.connection import NetworkConnection
from mqtt_token_client.mqtt.transport.websocket import WebSocket
from mqtt_token_client.mqtt.transport.websocket_upgrade import upgrade
from tests.unit.codecs import connected
from tests.unit.network_thread import call
from tests.unit.websocket_server import WebSocketPeer

PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"


class Wire:
    """A connection, the other end of its socket, and its listener, which keeps all notifications."""

    def __init__(self, loop: NetworkThread, ours: socket.socket, theirs: socket.socket) -> None:
        ours.setblocking(False)
        theirs.settimeout(20)
        self.runtime = loop
        self.theirs = theirs
        self.reported: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.when_packets_arrive: Callable[[], object] = lambda: None
        self.link: NetworkConnection[str] = call(loop, lambda: NetworkConnection(loop, ours, connected(4), self))

    def packets_arrived(self, link: NetworkConnection[str], packets: list[Packet]) -> None:
        for packet in packets:
            self.reported.put(("packet", packet))
        self.when_packets_arrive()

    def connection_writable(self, link: NetworkConnection[str]) -> None:
        self.reported.put(("writable", link.takes_more()))

    def connection_wrote(self, items: list[str]) -> None:
        for item in items:
            self.reported.put(("wrote", item))

    def connection_closed(self, link: NetworkConnection[str], loss: Loss) -> None:
        self.reason = loss.reason
        self.reported.put(("closed", loss.cause))

    def next(self, *but: str) -> tuple[str, Any]:
        """The next notification of a kind other than those named."""
        while True:
            kind, what = self.reported.get(timeout=20)
            if kind not in but:
                return kind, what

    def rest(self) -> list[tuple[str, Any]]:
        """The notifications that come before the network thread has nothing left to do."""
        for _ in range(3):
            call(self.runtime, lambda: None)
        calls = []
        while not self.reported.empty():
            calls.append(self.reported.get())
        return calls

    def write(self, data: bytes, item: str | None = None) -> None:
        def write() -> None:
            if item is None:
                self.link.write(data)
            else:
                self.link.write_item(data, item)
            self.link.flush()

        call(self.runtime, write)

    def read(self, count: int) -> bytes:
        """This many bytes, read at the other end."""
        data = bytearray()
        while len(data) < count:
            piece = self.theirs.recv(min(65_536, count - len(data)))
            assert piece, f"closed after {len(data)} of {count} bytes"
            data += piece
        return bytes(data)

    def reset(self) -> None:
        """Make the other end reset the connection (RST)."""
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.theirs.close()

    def close(self) -> None:
        call(self.runtime, self.link.close)
        self.theirs.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A TCP connection with small buffers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


def tls_pair(pki: Pki) -> tuple[socket.socket, socket.socket]:
    """The same, past its TLS handshake."""
    ours, theirs = tcp_pair()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pki.server.certificate, pki.server.key)
    client = ssl.create_default_context(cafile=pki.ca)
    with ThreadPoolExecutor() as executor:
        accepted = executor.submit(server.wrap_socket, theirs, server_side=True)
        return client.wrap_socket(ours, server_hostname="localhost"), accepted.result()


def websocket_pair() -> tuple[WebSocket, WebSocketPeer]:
    """The same as a WebSocket, past its opening handshake."""
    ours, theirs = tcp_pair()
    peer = WebSocketPeer(theirs)
    with ThreadPoolExecutor() as executor:
        executor.submit(peer.accept)
        return upgrade(ours, "localhost", "/mqtt", {}, monotonic() + 20, "ws://localhost/mqtt"), peer


def publish(number: int, size: int = 0) -> tuple[bytes, tuple[str, Message]]:
    """A PUBLISH of 3.1.1, and the notification of its arrival."""
    topic, payload = f"t/{number}", bytes(size)
    data = Codec(4).publish(encode_topic(topic), payload, 0, False, 0, False, b"")
    return data, ("packet", Message(topic, payload, 0, False, False, {}, 0))
