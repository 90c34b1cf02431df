"""A broker that does nothing by itself: the test acts for it, step by step, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from tests.unit import packets
from tests.unit.packets import CONNECT, DISCONNECT, PINGREQ, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, Packet
from tests.unit.stepped_time import send, wait_until_readable

_NAMES = {
    value: name for name, value in vars(packets).items() if name.isupper() and isinstance(value, int) and value < 16
}
PATIENCE = 10.0  # seconds for what must arrive; a busy machine may take long


class Peer:
    """The broker's side of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.five = True  # until CONNECT says otherwise
        self._sock = sock
        self._data = bytearray()
        self._ended = False
        self._serves = False  # the client has received an answer and has not sent DISCONNECT

    # Packets from the client

    def packet(self, timeout: float = PATIENCE, *, pings: bool = False) -> Packet | None:
        """The next packet, or None at the end of the connection. Unless ``pings`` is set, a PINGREQ between CONNACK and
        DISCONNECT is answered and skipped.
        """
        deadline = time.monotonic() + timeout
        while True:
            packet = self._any_packet(deadline)
            if packet is None or packet.kind != PINGREQ or pings or not self._serves:
                return packet
            with contextlib.suppress(OSError):  # a client that has closed needs no answer
                self.send(packets.PINGRESP_PACKET)

    def _any_packet(self, deadline: float) -> Packet | None:
        while (found := packets.split(self._data)) is None:
            if self._ended or not self._receive(deadline - time.monotonic()):
                return None
        first, body, size = found
        del self._data[:size]
        packet = packets.parse(first, body, self.five)
        if packet.kind == CONNECT:
            self.five = packet.protocol == 5
        elif packet.kind == DISCONNECT:
            self._serves = False
        return packet

    def expect(self, kind: int, timeout: float = PATIENCE) -> Packet:
        """The next packet, which must be of this kind."""
        packet = self.packet(timeout, pings=kind == PINGREQ)
        assert packet is not None, f"{_NAMES[kind]} was expected, and the connection ended"
        assert packet.kind == kind, f"{_NAMES[kind]} was expected, and this came: {packet}"
        return packet

    def expect_messages(self, count: int) -> list[Packet]:
        return [self.expect(PUBLISH) for _ in range(count)]

    def drain(self, quiet: float = 0.3) -> list[Packet]:
        """The packets that arrive until none has arrived for ``quiet`` seconds."""
        found = []
        with contextlib.suppress(TimeoutError):
            while (packet := self.packet(quiet)) is not None:
                found.append(packet)
        return found

    def expect_nothing(self, seconds: float = 0.1) -> None:
        """No packet arrives within the time, and the connection stays open."""
        try:
            packet = self.packet(seconds)
        except TimeoutError:
            assert not self._data, "half a packet came"
            return
        raise AssertionError(f"nothing was expected, and this came: {packet or 'the end'}")

    def expect_end(self, timeout: float = PATIENCE) -> None:
        """The client closes the connection, and sends nothing before that."""
        packet = self.packet(timeout)
        assert packet is None, f"the end was expected, and this came: {packet}"

    def expect_rejection(self, *reasons: int) -> None:
        """The client ends the connection because of what it received: in MQTT 5 it sends DISCONNECT with one of these
        reason codes before that.
        """
        if self.five:
            reason = self.expect(DISCONNECT).reason
            assert reason in reasons, f"DISCONNECT has the reason code 0x{reason:02x}"
        self.expect_end()

    def expect_subscribe(self, *codes: int) -> Packet:
        """SUBSCRIBE, answered with these codes, or with the requested QoS."""
        packet = self.expect(SUBSCRIBE)
        granted = list(codes) or [options & 3 for options in packet.filters.values()]
        self.send(packets.suback(self.five, packet.packet_id, granted))
        return packet

    def expect_unsubscribe(self) -> Packet:
        packet = self.expect(UNSUBSCRIBE)
        self.send(packets.unsuback(self.five, packet.packet_id, len(packet.filters)))
        return packet

    def _receive(self, timeout: float) -> bool:
        wait_until_readable(self._sock, timeout)
        self._sock.settimeout(PATIENCE)
        try:
            data = self._sock.recv(65_536)
        except ConnectionError:
            data = b""
        self._data += data
        self._ended = not data
        return bool(data)

    # Packets from the broker

    def send(self, data: bytes) -> None:
        self._serves = True
        send(self._sock, data)

    def connack(
        self, code: int = 0, *, session_present: bool = False, properties: dict[int, int] | None = None
    ) -> None:
        self.send(packets.connack(self.five, code, session_present=session_present, properties=properties))

    def publish(self, topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, *, dup: bool = False) -> None:
        self.send(packets.publish(self.five, topic, payload, qos, packet_id, dup=dup))

    def acknowledge(self, kind: int, packet_id: int, reason: int = 0) -> None:
        self.send(packets.acknowledgement(kind, packet_id, reason))

    def disconnect(self, reason: int) -> None:
        """Send DISCONNECT (MQTT 5) and close."""
        self.send(packets.disconnect(reason))
        self.close()

    def close(self) -> None:
        self._sock.close()


class ScriptedBroker:
    """A listening loopback socket, with TLS if it has a context."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'mqtts' if context else 'mqtt'}://127.0.0.1:{self.port}"
        self._peers: list[Peer] = []

    def accept(self, timeout: float = PATIENCE) -> Peer:
        """The next connection that the client opens."""
        wait_until_readable(self._listener, timeout)
        sock = self._listener.accept()[0]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent arrives at once
        if self._context is not None:
            sock.settimeout(PATIENCE)
            sock = self._context.wrap_socket(sock, server_side=True)
        self._peers.append(Peer(sock))
        return self._peers[-1]

    def expect_no_connection(self, seconds: float = 0.1) -> None:
        try:
            self.accept(seconds)
        except TimeoutError:
            return
        raise AssertionError("a connection was opened")

    def close_listener(self) -> None:
        """Refuse connections."""
        self._listener.close()

    def listen_again(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))

    def close(self) -> None:
        self._listener.close()
        for peer in self._peers:
            peer.close()
