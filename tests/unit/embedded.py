"""The embedded servers as tests use them, and a client that can do what paho-mqtt cannot: connect a second time while
it is connected.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import paho.mqtt.client as mqtt
import requests
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from devtools.servers.secret_check import remember_secret
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.packets import pack

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, PINGRESP = 2, 3, 4, 5, 6, 7, 9, 13


@contextlib.contextmanager
def running_server() -> Iterator[AuthorizationServer]:
    """An authorization server whose tokens are valid for longer than a test."""
    with AuthorizationServer(lifetime=60) as server:
        remember_secret(server.client_secret)
        yield server


def ask(server: AuthorizationServer, secret: str | None = None, **parameters: str) -> requests.Response:
    return requests.post(
        f"{server.issuer}/token",
        data={"grant_type": "client_credentials", **parameters},
        auth=(server.client_id, secret or server.client_secret),
        timeout=5,
    )


def token_of(server: AuthorizationServer) -> str:
    token: str = ask(server).json()["access_token"]
    remember_secret(token)
    return token


# The broker as paho-mqtt sees it


def paho_client(broker: Broker, token: str, protocol: MQTTProtocolVersion = mqtt.MQTTv311) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "paho", protocol=protocol)
    client.username_pw_set("", token)
    client.connect("127.0.0.1", broker.port)
    return client


@contextlib.contextmanager
def looping(client: mqtt.Client) -> Iterator[mqtt.Client]:
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def connack_of(broker: Broker, token: str, protocol: MQTTProtocolVersion = mqtt.MQTTv311) -> int:
    codes: queue.Queue[int] = queue.Queue()
    client = paho_client(broker, token, protocol=protocol)
    client.on_connect = lambda _c, _u, _f, reason, _p: codes.put(reason.value)
    while codes.empty():
        assert client.loop(timeout=5) is not None
    client.disconnect()
    client.loop(timeout=0.1)
    return codes.get()


# A client that sends and receives bytes


@dataclass(frozen=True)
class Packet:
    kind: int
    flags: int
    body: bytes

    @property
    def identifier(self) -> int:
        start = 2 + int.from_bytes(self.body[:2], "big") if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[start : start + 2], "big")

    @property
    def payload(self) -> bytes:
        start = 2 + int.from_bytes(self.body[:2], "big")
        return self.body[start + 2 :] if self.flags & 6 else self.body[start:]

    @property
    def duplicate(self) -> bool:
        return bool(self.flags & 8)

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)


def text(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128 * 128
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 128, len(body) // 128])
    return bytes([first]) + length + body


def publish(identifier: int, payload: bytes, topic: str = "t", first: int = 0x32) -> bytes:
    return packet(first, text(topic.encode()) + struct.pack("!H", identifier) + payload)


class Connection:
    """One connection of a client, as bytes; of MQTT 5 if its CONNECT has properties."""

    def __init__(
        self, broker: Broker, token: str, client_id: str = "device", *, clean: bool = False, keepalive: int = 60,
        will: tuple[str, bytes] | None = None, at_once: bool = True, properties: dict[int, int] | None = None,
    ) -> None:  # fmt: skip
        self._socket = socket.create_connection(("127.0.0.1", broker.port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent first must arrive first
        self._received = b""
        self._no_properties = b"" if properties is None else b"\0"
        flags = 0xC0 | clean << 1 | (0x0C if will else 0)
        wills = b"" if will is None else text(will[0].encode()) + text(will[1])
        protocol, packed = (4, b"") if properties is None else (5, pack(properties))
        head = text(b"MQTT") + struct.pack("!BBH", protocol, flags, keepalive) + packed
        body = head + text(client_id.encode()) + wills
        self._connect = packet(0x10, body + text(b"") + text(token.encode()))
        if at_once:
            self.send_connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send_connect(self) -> None:
        self.send(self._connect)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, timeout: float = 5) -> Packet | None:
        """The next packet, or None at the end of the connection; raises TimeoutError if nothing arrives."""
        self._socket.settimeout(timeout)
        while True:
            if len(self._received) >= 2:
                length, start = self._received[1], 2
                if length & 0x80 and len(self._received) >= 3:
                    length, start = (length & 0x7F) + 128 * self._received[2], 3
                if len(self._received) >= start + length:
                    first, body = self._received[0], self._received[start : start + length]
                    self._received = self._received[start + length :]
                    return Packet(first >> 4, first & 15, body)
            try:
                data = self._socket.recv(65_536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._received += data

    def expect(self, kind: int) -> Packet:
        received = self.receive()
        assert received is not None, "the connection has ended"
        assert received.kind == kind, received
        return received

    def accepted(self) -> bool:
        """Whether the session was present; fails if the connection was not accepted."""
        connack = self.expect(CONNACK)
        assert connack.body[1] == 0, "refused"
        return bool(connack.body[0])

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self.send(packet(0x82, b"\0\1" + self._no_properties + text(topic_filter.encode()) + bytes([qos])))
        self.expect(SUBACK)

    def publish(self, identifier: int, payload: bytes, topic: str = "t", first: int = 0x32) -> None:
        self.send(publish(identifier, payload, topic, first))

    def acknowledge(self, identifier: int, first: int = 0x40) -> None:
        self.send(packet(first, struct.pack("!H", identifier)))

    def ping(self) -> None:
        """Returns when the broker has read everything that was sent before."""
        self.send(b"\xc0\x00")
        self.expect(PINGRESP)

    def ended(self) -> bool:
        """Whether the connection ends, whatever arrives before; raises TimeoutError if it does not."""
        while self.receive() is not None:
            pass
        return True


class Connect(Protocol):
    """Opens a connection with a valid token."""

    def __call__(self, client_id: str = "device", **options: Any) -> Connection: ...


@contextlib.contextmanager
def connecting(server: AuthorizationServer, broker: Broker) -> Iterator[Connect]:
    """Closes all opened connections at the end."""
    with contextlib.ExitStack() as connections:

        def connect(client_id: str = "device", **options: Any) -> Connection:
            return connections.enter_context(Connection(broker, token_of(server), client_id, **options))

        yield connect
