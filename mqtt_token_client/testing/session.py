"""One client's session on the broker, which outlives its connections (MQTT 3.1.1 sections 3.1.4 and 4.4).

amqtt works as long as a client stays connected. When the client connects a second time (amqtt 0.12), their shared
session counts as disconnected as soon as the first connection is closed: all messages for the client wait until it
connects again. Messages in flight are lost, queued ones arrive with RETAIN set, and a token that is rejected closes the
first connection too. So this module gives amqtt one connection that lasts as long as the session, and handles the
client's connections itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from amqtt.adapters import StreamReaderAdapter
from amqtt.mqtt.packet import CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL

if TYPE_CHECKING:
    from amqtt.broker import Broker as AmqttBroker
    from amqtt.mqtt.connect import ConnectPacket

_DUP = 0x08
_QOS = 0x06
_PINGREQ = bytes([PINGREQ << 4, 0])
_PINGRESP = bytes([PINGRESP << 4, 0])
_DISCONNECT = bytes([DISCONNECT << 4, 0])
_RESUMED = bytes([CONNACK << 4, 2, 1, 0])  # accepted, session present

_ANSWER_TIMEOUT = 2.0  # seconds in which amqtt answers something, unless it has failed
_GRACE = 0.1  # seconds for a client to acknowledge on its first connection what would be sent again otherwise


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """Read the next packet (MQTT 3.1.1 section 2.2).

    Raises:
        EOFError: the connection was closed.
        OSError: it broke, or the bytes are not a packet.
    """
    header = await reader.readexactly(2)
    while header[-1] & 0x80:
        if len(header) == 5:
            raise ConnectionAbortedError("the remaining length has more than four bytes")
        header += await reader.readexactly(1)
    length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(header[1:]))
    return header + await reader.readexactly(length)


def _topic_and_identifier(packet: bytes) -> tuple[bytes, bytes]:
    """Return the topic of a PUBLISH, and the packet identifier of a PUBLISH of QoS 1 or 2 or of an answer to it."""
    start = 2
    while packet[start - 1] & 0x80:
        start += 1
    topic = b""
    if packet[0] >> 4 == PUBLISH:
        end = start + 2 + int.from_bytes(packet[start : start + 2], "big")
        topic, start = packet[start + 2 : end], end
    return topic, packet[start : start + 2]


def stop_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End a connection once the bytes that have arrived on it are processed."""
    cast("asyncio.Transport", writer.transport).pause_reading()
    reader.feed_eof()


class Session:
    """Connects amqtt, whose writer it is, with the current connection of the client, if there is one.

    Args:
        broker: has the subscriptions and forwards messages.
        packet: the CONNECT that starts the session.
        connect: the same, parsed.
        reader: reads from that connection.
        writer: writes to it.
    """

    def __init__(
        self,
        broker: AmqttBroker,
        packet: bytes,
        connect: ConnectPacket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.clean: bool = connect.clean_session_flag
        self._broker = broker
        self._moving = False
        self._waiting: list[bytes] = []  # PUBLISH that was not sent on any connection yet
        self._unacknowledged: dict[bytes, bytes] = {}  # by identifier: to be sent again on the next connection
        self._settled = asyncio.Event()  # nothing is unacknowledged
        self._settled.set()
        self._answers = 0  # that amqtt has written
        self._to_amqtt = asyncio.StreamReader()
        self._to_amqtt.feed_data(packet)
        self._use(connect, reader, writer)
        served = broker.external_connected(StreamReaderAdapter(self._to_amqtt), self, "default")
        self._served_by_amqtt = asyncio.create_task(served)
        self._served_by_amqtt.add_done_callback(lambda _: self._writer.close())

    @property
    def over(self) -> bool:
        """Whether amqtt has closed the session, because of a protocol error."""
        return self._served_by_amqtt.done()

    async def move(self, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Continue on another connection. The previous one is closed first [MQTT-3.1.4-2]; what was sent on it and not
        acknowledged is sent again before anything new.
        """
        self._moving = True
        settled = asyncio.create_task(self._settled.wait())
        await asyncio.wait([settled, self._receiving], timeout=_GRACE, return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()
        stop_reading(self._reader, self._writer)
        await self.wait_closed()
        self._use(connect, reader, writer)
        self._moving = False
        if self.over:
            writer.close()
            return
        self._send(_RESUMED)
        for packet in self._unacknowledged.values():
            self._send(packet)
        waiting, self._waiting = self._waiting, []
        for packet in waiting:
            self.write(packet)

    async def end(self) -> None:
        """Close the connection and end the session in amqtt."""
        stop_reading(self._reader, self._writer)
        await self.wait_closed()
        self._to_amqtt.feed_data(_DISCONNECT)  # otherwise amqtt would publish the Will
        await asyncio.wait([self._served_by_amqtt], timeout=_ANSWER_TIMEOUT)
        self._served_by_amqtt.cancel()

    async def wait_closed(self) -> None:
        """Wait until the current connection is closed."""
        await asyncio.wait([self._receiving])

    # Towards the client

    def _use(self, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._receiving = asyncio.create_task(self._receive(connect, reader, writer))

    async def _receive(
        self, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward the packets of one connection until it ends; publish its Will unless it ends with DISCONNECT. It is
        closed when all packets have been answered.
        """
        try:
            while True:
                async with asyncio.timeout(connect.keep_alive * 1.5 or None):  # [MQTT-3.1.2-24]
                    packet = await read_packet(reader)
                kind = packet[0] >> 4
                if kind == DISCONNECT:
                    break
                if kind == PINGREQ:
                    self._send(_PINGRESP)
                    continue
                topic, identifier = _topic_and_identifier(packet)
                if b"+" in topic or b"#" in topic:
                    raise ConnectionAbortedError("[MQTT-3.3.2-2]")  # amqtt could not parse what follows
                if kind in (PUBACK, PUBCOMP):
                    self._unacknowledged.pop(identifier, None)
                    if not self._unacknowledged:
                        self._settled.set()
                elif kind == PUBREC:
                    self._unacknowledged[identifier] = release = bytes([PUBREL << 4 | 2, 2]) + identifier
                    self._send(release)
                self._to_amqtt.feed_data(packet)
        except (EOFError, OSError):
            if connect.will_flag:
                await self._publish_will(connect)
        await self._catch_up()
        writer.close()

    async def _catch_up(self) -> None:
        """Wait until amqtt has answered all packets so far: it answers a PINGREQ after them, which takes long if there
        are many.
        """
        self._caught_up = asyncio.get_running_loop().create_future()
        self._to_amqtt.feed_data(_PINGREQ)
        ends, done, before = [self._caught_up, self._served_by_amqtt], set[asyncio.Future[None]](), -1
        while not done and self._answers > before:
            before = self._answers
            done, _ = await asyncio.wait(ends, timeout=_ANSWER_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)

    async def _publish_will(self, connect: ConnectPacket) -> None:
        topic, message, qos = connect.will_topic, connect.will_message, connect.will_qos
        await self._broker.internal_message_broadcast(topic, message, qos)
        if connect.will_retain_flag:
            await self._broker.retain_message(None, topic, message, qos)

    def _send(self, packet: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(packet)

    # Towards amqtt: the methods of a writer

    def write(self, packet: bytes) -> None:
        """Send one packet to the client. A PUBLISH of QoS 1 or 2 waits while there is no connection."""
        kind = packet[0] >> 4
        self._answers += kind != PUBLISH
        if kind == PINGRESP:
            self._caught_up.set_result(None)
        elif kind == PUBREL:
            pass  # it was sent when PUBREC came
        elif kind != PUBLISH:
            self._send(packet)
        elif self._moving:
            self._waiting.append(packet)
        elif not packet[0] & _QOS:
            self._send(packet)
        elif self._writer.is_closing():
            self._waiting.append(packet)
        else:
            _, identifier = _topic_and_identifier(packet)
            self._unacknowledged[identifier] = bytes([packet[0] | _DUP]) + packet[1:]
            self._settled.clear()
            self._send(packet)

    async def drain(self) -> None:
        """Return at once: the transport buffers what the client has not read yet."""

    async def close(self) -> None:
        self._writer.close()

    def get_peer_info(self) -> tuple[str, int]:
        host, port = self._writer.get_extra_info("peername")
        return host, port

    def get_ssl_info(self) -> None:
        """Return None, as there is no TLS."""
