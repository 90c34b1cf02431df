"""A session on a real connection, and the bytes that a broker would see."""

from __future__ import annotations

import socket
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest

from mqtt_token_client import events
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.packets import (
    Acknowledgement,
    Packet,
    Pingresp,
    RejectedPublish,
    Suback,
    Unsuback,
)
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.session.delivery import Outgoing
from mqtt_token_client.mqtt.session.limits import Limits
from mqtt_token_client.mqtt.session.reports import SessionStats
from mqtt_token_client.mqtt.session.session import Session
from mqtt_token_client.mqtt.transport import Loss
from mqtt_token_client.mqtt.transport.connection import NetworkConnection
from tests.unit.codecs import connected
from tests.unit.network_thread import call


class Client:
    """A session, a connection that it uses, and the bytes that a broker would see.

    Args:
        loop: the network thread.
        options: those of the session.
    """

    def __init__(self, loop: NetworkThread, *, protocol: int = 5, **options: Any) -> None:
        self.loop = loop
        self.protocol = protocol
        self.reported: list[events.Event] = []
        self.delivered: list[Message] = []
        self.receive_maximum: int | None = 65_535 if protocol == 5 else None
        self.session = Session(
            **{"max_queued": 100_000, "max_inflight": 100, "on_message": self.delivered.append, **options},
            emit=self.reported.append,
        )
        self.connect()

    def connect(self) -> None:
        ours, self.broker = socket.socketpair()
        ours.setblocking(False)
        self.broker.settimeout(20)
        engine = connected(self.protocol)
        self.link: NetworkConnection[Outgoing] = call(
            self.loop, lambda: NetworkConnection(self.loop, ours, engine, self)
        )

    def reconnect(self, *, session_present: bool = True, reason: int | None = None) -> None:
        """Lose the connection and get a new one, as a connection does."""

        def lose() -> None:
            self.link.close()
            self.session.connection_lost(self.link, Loss("the broker ended it", reason, by_broker=True))

        call(self.loop, lose)
        self.broker.close()
        self.connect()
        self.accepted(session_present=session_present)

    def accepted(self, *, session_present: bool = True, broker: str = "mqtt://broker") -> None:
        """The broker accepts the connection."""
        call(self.loop, lambda: self.session.connected(self.link, broker, session_present=session_present))

    def close(self) -> None:
        call(self.loop, self.link.close)
        self.broker.close()

    # As a connection does

    def packets_arrived(self, link: NetworkConnection[Outgoing], packets: list[Packet]) -> None:
        for packet in packets:
            if isinstance(packet, Message):
                self.session.receive_message(link, packet)
            elif not isinstance(packet, Pingresp):
                assert isinstance(packet, RejectedPublish | Acknowledgement | Suback | Unsuback)
                self.session.receive(link, packet)
        self.connection_writable(link)

    def connection_writable(self, link: NetworkConnection[Outgoing]) -> None:
        if self.session.send(link, Limits(self.receive_maximum)):
            self.loop.call_soon(lambda: self.connection_writable(link))

    def connection_wrote(self, items: list[Outgoing]) -> None:
        self.session.written(items)

    def connection_closed(self, link: NetworkConnection[Outgoing], loss: Loss) -> None:
        pass

    # What a test does

    def publish(self, topic: str, qos: int = 1, payload: bytes = b"") -> Outgoing:
        """Publish, and send what may be sent."""
        message = self.session.queue.message_type(encode_topic(topic), payload, qos, False, b"")
        self.session.queue.put(message)
        self.send()
        return message

    def send(self) -> None:
        while call(self.loop, lambda: self.session.send(self.link, Limits(self.receive_maximum))):
            """The others would have their turn."""

    def subscribe(self, *filters: str, handler: Callable[[Message], object] | None = None) -> None:
        for name in filters:
            self.session.change(methodcaller("add", name, handler, 1))
        self.send()

    def unsubscribe(self, *filters: str) -> None:
        for name in filters:
            self.session.change(methodcaller("remove", name))
        self.send()

    def answer(self, packet: str) -> None:
        """Have the broker send a packet, and wait until it has been dealt with."""
        self.broker.sendall(bytes.fromhex(packet))
        call(self.loop, self.link.read)

    def sees(self, expected: str) -> None:
        """Check what the broker sees next, and that it is all."""
        wanted = bytes.fromhex(expected)
        assert self.read(len(wanted)).hex(" ") == wanted.hex(" ")

    def read(self, count: int) -> bytes:
        """At least so many bytes, as the broker sees them."""
        data = bytearray()
        while len(data) < count:
            piece = self.broker.recv(65_536)
            assert piece, f"closed after {bytes(data)!r}"
            data += piece
        return bytes(data)

    def sees_nothing(self) -> None:
        call(self.loop, lambda: None)
        self.broker.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.broker.recv(1)
        self.broker.settimeout(20)

    @property
    def stats(self) -> SessionStats:
        return self.session.stats
