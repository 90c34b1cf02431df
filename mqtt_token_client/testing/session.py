"""One client's session on the broker, which outlives its connections (MQTT 3.1.1 sections 3.1.4 and 4.4).

amqtt serves a client well as long as it stays connected. When the client connects a second time (amqtt 0.12), the
session that both connections share counts as disconnected as soon as the first one is gone: all that is for the client
waits until it connects yet again. What was in flight is forgotten, what waited arrives with RETAIN set, and a token
that is refused ends the first connection too. So amqtt is told here of one connection that lasts as long as the
session; what comes and goes below it is this file's matter.
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

_PATIENCE = 2.0  # seconds for amqtt to answer; it needs none, unless it has failed
_GRACE = 0.1  # seconds for a client to acknowledge on its first connection what would else go out again


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """The next packet, as it came (MQTT 3.1.1 section 2.2).

    Raises:
        EOFError: the connection ended.
        OSError: it broke, or what came is no packet.
    """
    header = await reader.readexactly(2)
    while header[-1] & 0x80:
        if len(header) == 5:
            raise ConnectionAbortedError("the remaining length has more than four bytes")
        header += await reader.readexactly(1)
    length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(header[1:]))
    return header + await reader.readexactly(length)


def _topic_and_identifier(packet: bytes) -> tuple[bytes, bytes]:
    """The topic of a PUBLISH, and the packet identifier of one with QoS 1 or 2 or of an answer to it."""
    start = 2
    while packet[start - 1] & 0x80:
        start += 1
    topic = b""
    if packet[0] >> 4 == PUBLISH:
        end = start + 2 + int.from_bytes(packet[start : start + 2], "big")
        topic, start = packet[start + 2 : end], end
    return topic, packet[start : start + 2]


def stop_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let a connection end after what has arrived on it."""
    cast("asyncio.Transport", writer.transport).pause_reading()
    reader.feed_eof()


class Session:
    """Stands between amqtt, whose writer it is, and the connection that the client has at the moment, if any.

    Args:
        broker: holds the subscriptions and passes messages on.
        packet: the CONNECT that opens the session, as it came.
        connect: the same, read.
        reader: what else comes over that connection.
        writer: what goes back.
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
        self._waiting: list[bytes] = []  # PUBLISH that no connection has carried yet
        self._unacknowledged: dict[bytes, bytes] = {}  # by identifier: what the next connection carries again
        self._settled = asyncio.Event()  # nothing is unacknowledged
        self._settled.set()
        self._to_amqtt = asyncio.StreamReader()
        self._to_amqtt.feed_data(packet)
        self._use(connect, reader, writer)
        served = broker.external_connected(StreamReaderAdapter(self._to_amqtt), self, "default")
        self._served_by_amqtt = asyncio.create_task(served)
        self._served_by_amqtt.add_done_callback(lambda _: self._writer.close())

    @property
    def over(self) -> bool:
        """Whether amqtt has given the client up, because of a packet that MQTT forbids."""
        return self._served_by_amqtt.done()

    async def move(self, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Go on over another connection. The one before ends first [MQTT-3.1.4-2]; what it carried and nobody
        acknowledged goes out again before anything new does.
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
        """End the connection and what amqtt knows of the session."""
        stop_reading(self._reader, self._writer)
        await self.wait_closed()
        self._to_amqtt.feed_data(_DISCONNECT)  # or else amqtt would publish the Will
        await asyncio.wait([self._served_by_amqtt], timeout=_PATIENCE)
        self._served_by_amqtt.cancel()

    async def wait_closed(self) -> None:
        """Wait until the connection of this moment has ended."""
        await asyncio.wait([self._receiving])

    # The client's side

    def _use(self, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._receiving = asyncio.create_task(self._receive(connect, reader, writer))

    async def _receive(
        self, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on what one connection brings until it ends; unless it ends with DISCONNECT, publish its Will. It is
        closed when all of that has been answered.
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
                    raise ConnectionAbortedError("[MQTT-3.3.2-2]")  # amqtt would lose its place in what follows
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
        """Wait until amqtt has answered all that it was given: it answers a PINGREQ after what came before."""
        self._caught_up = asyncio.get_running_loop().create_future()
        self._to_amqtt.feed_data(_PINGREQ)
        answers = [self._caught_up, self._served_by_amqtt]
        await asyncio.wait(answers, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)

    async def _publish_will(self, connect: ConnectPacket) -> None:
        topic, message, qos = connect.will_topic, connect.will_message, connect.will_qos
        await self._broker.internal_message_broadcast(topic, message, qos)
        if connect.will_retain_flag:
            await self._broker.retain_message(None, topic, message, qos)

    def _send(self, packet: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(packet)

    # amqtt's side: what it asks of a writer

    def write(self, packet: bytes) -> None:
        """Take one packet for the client. A PUBLISH waits while there is no connection for it; QoS 0 does not."""
        kind = packet[0] >> 4
        if kind == PINGRESP:
            self._caught_up.set_result(None)
        elif kind == PUBREL:
            pass  # it went out when PUBREC came
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
        """Return at once: the transport holds what the client has not read yet."""

    async def close(self) -> None:
        self._writer.close()

    def get_peer_info(self) -> tuple[str, int]:
        host, port = self._writer.get_extra_info("peername")
        return host, port

    def get_ssl_info(self) -> None:
        """None: there is no TLS."""
