"""A link over a real socket, plain, with TLS and as a WebSocket: what goes out, what comes in, and how it ends."""

from __future__ import annotations

import logging
import queue
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import pytest

from devtools.servers.pki import Pki
from devtools.servers.processes import wait_until
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.codec.checks import encode_topic
from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.packets import Packet, Pingresp
from mqtt_token_client.mqtt.runtime import thread as loop_module
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.transport import connection as link_module
from mqtt_token_client.mqtt.transport.connection import NetworkConnection
from mqtt_token_client.mqtt.transport.websocket import WebSocket, upgrade
from tests.unit.network_thread import call, undisturbed
from tests.unit.websocket_server import BINARY, WebSocketPeer, close_frame, frame

PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"


class Wire:
    """A link, the other end of its socket, and its owner, which keeps what the link tells."""

    def __init__(self, loop: NetworkThread, ours: socket.socket, theirs: socket.socket) -> None:
        ours.setblocking(False)
        theirs.settimeout(20)
        self.loop = loop
        self.theirs = theirs
        self.told: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.when_packets_arrive: Callable[[], object] = lambda: None
        self.link: NetworkConnection[str] = call(
            loop, lambda: NetworkConnection(loop, ours, Codec("pump", 4, clean=False), self)
        )

    def packets_arrived(self, link: NetworkConnection[str], packets: list[Packet]) -> None:
        for packet in packets:
            self.told.put(("packet", packet))
        self.when_packets_arrive()

    def connection_writable(self, link: NetworkConnection[str]) -> None:
        self.told.put(("writable", link.takes_more()))

    def connection_wrote(self, items: list[str]) -> None:
        for item in items:
            self.told.put(("wrote", item))

    def connection_closed(self, link: NetworkConnection[str], cause: str, reason: int | None) -> None:
        self.reason = reason
        self.told.put(("closed", cause))

    def next(self, *but: str) -> tuple[str, Any]:
        """What is told next, of kinds other than those named."""
        while True:
            kind, what = self.told.get(timeout=20)
            if kind not in but:
                return kind, what

    def rest(self) -> list[tuple[str, Any]]:
        """What has been told, once the network thread has done what it had to do."""
        for _ in range(3):
            call(self.loop, lambda: None)
        told = []
        while not self.told.empty():
            told.append(self.told.get())
        return told

    def write(self, data: bytes, item: str | None = None) -> None:
        def write() -> None:
            self.link.write(data, item)
            self.link.flush()

        call(self.loop, write)

    def read(self, count: int) -> bytes:
        """So many bytes, read at the other end."""
        data = bytearray()
        while len(data) < count:
            piece = self.theirs.recv(min(65_536, count - len(data)))
            assert piece, f"closed after {len(data)} of {count} bytes"
            data += piece
        return bytes(data)

    def reset(self) -> None:
        """Have the other end break the connection with RST."""
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.theirs.close()

    def close(self) -> None:
        call(self.loop, self.link.close)
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


@pytest.fixture(params=["socketpair", "tcp", "tls", "websocket"])
def wire(request: pytest.FixtureRequest, loop: NetworkThread, pki: Pki) -> Iterator[Wire]:
    kinds: dict[str, Callable[[], tuple[Any, Any]]] = {
        "socketpair": socket.socketpair,
        "tcp": tcp_pair,
        "tls": partial(tls_pair, pki),
        "websocket": websocket_pair,
    }
    wire = Wire(loop, *kinds[request.param]())
    yield wire
    wire.close()


@pytest.fixture
def tcp(loop: NetworkThread) -> Iterator[Wire]:
    wire = Wire(loop, *tcp_pair())
    yield wire
    wire.close()


def publish(number: int, size: int = 0) -> tuple[bytes, tuple[str, Message]]:
    """A PUBLISH of 3.1.1, and what is told when it arrives."""
    topic, payload = f"t/{number}", bytes(size)
    data = Codec("broker", 4, clean=False).publish(encode_topic(topic), payload, 0, False, 0, False, b"")
    return data, ("packet", Message(topic, payload, 0, False, False, {}, 0))


class TestWriting:
    def test_goes_out_in_order_at_the_next_flush(self, wire: Wire) -> None:
        def write() -> tuple[bool, bool]:
            wire.link.write(b"one ")
            wire.link.write(b"two ")
            before = wire.link.flushed
            wire.link.flush()
            return before, wire.link.flushed

        assert call(wire.loop, write) == (False, True)
        wire.write(b"three")
        assert wire.read(13) == b"one two three"

    def test_an_item_is_told_once_its_bytes_are_written(self, wire: Wire) -> None:
        wire.write(b"a", "first")
        wire.write(b"b")
        wire.write(b"c", "second")
        assert wire.rest() == [("wrote", "first"), ("wrote", "second")]
        assert call(wire.loop, wire.link.unwritten) == []

    def test_what_a_slow_reader_leaves_waits_and_follows_whole(self, wire: Wire) -> None:
        """Also with TLS, where what waits grows between two tries to send it."""
        data = {str(number): bytes((number,)) * 20_011 for number in range(250)}
        for item, piece in data.items():
            wire.write(piece, item)
        room, flushed = call(wire.loop, lambda: (wire.link.takes_more(), wire.link.flushed))
        assert (room, flushed) == (False, False)
        early = [item for kind, item in wire.rest() if kind == "wrote"]
        assert len(early) < 250
        assert call(wire.loop, wire.link.unwritten) == list(data)[len(early) :]
        assert wire.read(250 * 20_011) == b"".join(data.values())
        late = [wire.next("writable")[1] for _ in range(250 - len(early))]
        assert early + late == list(data)
        assert call(wire.loop, lambda: (wire.link.takes_more(), wire.link.flushed)) == (True, True)

    def test_that_there_is_room_again_is_told(self, wire: Wire) -> None:
        wire.write(bytes(4_000_000))
        assert not wire.link.takes_more()
        assert wire.rest() == []
        wire.read(4_000_000)
        assert wire.next() == ("writable", True)
        assert wire.link.takes_more()

    def test_an_item_is_either_written_or_unwritten_after_a_loss(self, wire: Wire) -> None:
        items = [str(number) for number in range(300)]
        for item in items:
            wire.write(bytes(20_000), item)
        wire.theirs.close()
        told: list[tuple[str, Any]] = []
        while not told or told[-1][0] != "closed":
            told.append(wire.next("writable"))
        written = [item for kind, item in told if kind == "wrote"]
        assert len(written) < len(items)
        assert written + call(wire.loop, wire.link.unwritten) == items

    def test_an_item_that_went_out_whole_before_the_connection_broke_is_written(self, loop: NetworkThread) -> None:
        class Breaks(socket.socket):
            """Takes ten bytes, then it is broken: a real connection does not break in the middle of a flush."""

            taken = False

            def send(self, data: Any, flags: int = 0) -> int:
                if self.taken:
                    raise ConnectionResetError(104, "Connection reset by peer")
                self.taken = True
                return super().send(data[:10], flags)

        pair, theirs = socket.socketpair()
        wire = Wire(loop, Breaks(fileno=pair.detach()), theirs)

        def write() -> None:
            wire.link.write(bytes(8), "whole")
            wire.link.write(bytes(8), "in part")
            wire.link.flush()

        call(loop, write)
        assert wire.rest() == [("wrote", "whole"), ("closed", "the connection broke: Connection reset by peer")]
        assert wire.link.unwritten() == ["in part"]
        wire.close()

    def test_after_the_end_is_left_undone(self, wire: Wire) -> None:
        wire.write(b"a", "first")
        call(wire.loop, wire.link.end)
        wire.write(b"b", "second")
        assert not wire.link.takes_more()
        assert wire.read(3) == b"a" + DISCONNECT
        assert wire.rest() == [("wrote", "first")]
        assert call(wire.loop, wire.link.unwritten) == ["second"]
        wire.theirs.settimeout(0.1)
        with pytest.raises(TimeoutError):
            wire.theirs.recv(1)

    def test_the_end_comes_after_what_waits(self, wire: Wire) -> None:
        wire.write(bytes(4_000_000))
        call(wire.loop, wire.link.end)
        assert wire.read(4_000_002)[-2:] == DISCONNECT


class TestReading:
    def test_packets_are_told_in_order(self, wire: Wire) -> None:
        made = [publish(number, 10_000 * (number % 7)) for number in range(60)]
        wire.theirs.sendall(b"".join(data for data, _ in made))
        assert [wire.next() for _ in made] == [packet for _, packet in made]

    def test_what_the_owner_writes_meanwhile_goes_out(self, wire: Wire) -> None:
        wire.when_packets_arrive = lambda: wire.link.write(b"answer")
        wire.theirs.sendall(PINGRESP)
        assert wire.read(6) == b"answer"

    def test_what_arrives_after_the_end_is_still_read(self, wire: Wire) -> None:
        call(wire.loop, wire.link.end)
        assert wire.read(2) == DISCONNECT
        wire.theirs.sendall(PINGRESP)
        assert wire.next() == ("packet", Pingresp())

    def test_a_flood_leaves_the_others_their_turn(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link_module, "_READ_SIZE", 100)
        wire.when_packets_arrive = lambda: wire.loop.call_soon(lambda: wire.told.put(("turn", None)))
        data, _ = publish(1, 100 - 7)
        call(wire.loop, wire.link.pause_reading)
        wire.theirs.sendall(data * 100)
        call(wire.loop, wire.link.resume_reading)
        told = [wire.next()[0] for _ in range(200)]
        first = told.index("turn")
        assert 0 < first <= 16
        assert "packet" in told[first:]

    def test_nothing_arrives_while_reading_is_paused(self, wire: Wire) -> None:
        call(wire.loop, wire.link.pause_reading)
        wire.theirs.sendall(PINGRESP)
        call(wire.loop, wire.link.read)
        assert wire.rest() == []
        call(wire.loop, wire.link.resume_reading)
        assert wire.next() == ("packet", Pingresp())

    def test_what_waits_while_reading_is_paused_does_not_keep_the_loop_awake(self, wire: Wire) -> None:
        wake_ups: list[None] = []
        select = wire.loop._selector.select

        def count(timeout: float | None = None) -> Any:
            wake_ups.append(None)
            return select(timeout)

        def pause() -> None:
            wire.link.pause_reading()
            wire.theirs.sendall(PINGRESP)
            wire.loop._selector.select = count  # type: ignore[method-assign]  # counted at the selector itself
            wire.loop.call_later(0.1, lambda: wire.told.put(("sleeps", len(wake_ups))))

        undisturbed(wire.loop, pause)
        assert wire.next() == ("sleeps", 1)

    def test_a_pause_by_the_owner_holds_from_the_next_piece_on(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With TLS the rest has been decrypted by then, and the socket does not become readable for it."""
        monkeypatch.setattr(link_module, "_READ_SIZE", 100)
        wire.when_packets_arrive = lambda: wire.link.pause_reading()
        data, packet = publish(1, 100 - 7)
        wire.theirs.sendall(data * 3)
        for _ in range(3):
            assert wire.next() == packet
            assert wire.rest() == []
            call(wire.loop, wire.link.resume_reading)
        assert wire.rest() == []

    def test_writing_goes_on_while_reading_is_paused(self, wire: Wire) -> None:
        call(wire.loop, wire.link.pause_reading)
        wire.write(bytes(4_000_000), "all")
        wire.read(4_000_000)
        assert wire.next("writable") == ("wrote", "all")


class TestLoss:
    def test_that_the_broker_closed_is_told_once_after_what_it_sent(self, wire: Wire) -> None:
        wire.theirs.sendall(PINGRESP)
        wire.theirs.close()
        assert wire.next() == ("packet", Pingresp())
        assert wire.next() == ("closed", "the broker closed the connection")
        call(wire.loop, wire.link.read)
        wire.write(b"late", "late")
        call(wire.loop, wire.link.end)
        assert wire.rest() == []
        assert wire.link.closed

    def test_an_end_of_tls_before_that_of_tcp_is_one_too(self, loop: NetworkThread, pki: Pki) -> None:
        wire = Wire(loop, *tls_pair(pki))
        assert isinstance(wire.theirs, ssl.SSLSocket)
        with ThreadPoolExecutor() as executor:
            unwrapped = executor.submit(wire.theirs.unwrap)
            assert wire.next() == ("closed", "the broker closed the connection")
            assert unwrapped.exception() is not None  # ours went away without an answer, as brokers do
        wire.close()

    def test_the_close_of_a_websocket_is_told_with_its_code(self, loop: NetworkThread) -> None:
        ours, peer = websocket_pair()
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))
        peer.sock.sendall(close_frame(1000))
        assert wire.next() == ("closed", "the broker closed the WebSocket: 1000 Normal Closure")
        assert wire.reason is None
        wire.close()

    def test_the_close_of_a_websocket_for_the_tokens_sake_is_told_with_a_reason(self, loop: NetworkThread) -> None:
        ours, peer = websocket_pair()
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))
        peer.sock.sendall(close_frame(3000))
        assert wire.next() == ("closed", "the broker closed the WebSocket: 3000 Unauthorized")
        assert wire.reason == 0x87
        wire.close()

    def test_the_close_of_a_websocket_that_came_while_reading_was_paused_is_told_after_it(
        self, loop: NetworkThread
    ) -> None:
        ours, peer = websocket_pair()
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))
        wire.when_packets_arrive = lambda: wire.link.pause_reading()
        peer.sock.sendall(frame(BINARY, PINGRESP) + close_frame(1000))
        assert wire.next() == ("packet", Pingresp())
        assert wire.rest() == []
        call(loop, wire.link.resume_reading)
        assert wire.next() == ("closed", "the broker closed the WebSocket: 1000 Normal Closure")
        wire.close()

    def test_a_reset_is_told_once(self, tcp: Wire) -> None:
        tcp.reset()
        assert tcp.next() == ("closed", "the connection broke: Connection reset by peer")
        tcp.write(b"late", "late")
        assert tcp.rest() == []

    def test_a_reset_is_seen_while_writing_though_reading_is_paused(self, tcp: Wire) -> None:
        call(tcp.loop, tcp.link.pause_reading)
        tcp.write(bytes(4_000_000), "all")
        tcp.reset()
        kind, cause = tcp.next()
        assert kind == "closed"
        assert cause.startswith("the connection broke: ")
        assert tcp.link.unwritten() == ["all"]

    def test_a_reset_seen_by_writing_first_is_told_once(self, tcp: Wire) -> None:
        def reset_then_write() -> None:
            tcp.reset()
            for _ in range(2):
                tcp.link.write(b"late")
                tcp.link.flush()
            tcp.link.read()

        call(tcp.loop, reset_then_write)
        assert [kind for kind, _ in tcp.rest()] == ["closed"]

    def test_what_arrived_before_a_reset_is_read_though_writing_sees_the_reset_first(self, tcp: Wire) -> None:
        def reset_then_write() -> None:
            tcp.theirs.sendall(PINGRESP * 3)
            tcp.reset()
            tcp.link.write(b"late")
            tcp.link.flush()

        call(tcp.loop, reset_then_write)
        told = tcp.rest()
        assert [kind for kind, _ in told] == ["packet", "packet", "packet", "closed"]

    @pytest.mark.parametrize("garbage", [b"\xf0\x00", b"\x16\x03\x01\x02\x00", b"\x30\xff\xff\xff\xff\x01"])
    def test_garbage_closes_with_its_cause(self, wire: Wire, garbage: bytes) -> None:
        wire.theirs.sendall(garbage)
        kind, cause = wire.next()
        assert kind == "closed"
        assert cause.startswith("the broker sent ")
        assert wire.theirs.recv(1) == b""

    def test_garbage_in_place_of_tls_closes_with_its_cause(self, loop: NetworkThread, pki: Pki) -> None:
        wire = Wire(loop, *tls_pair(pki))
        with socket.socket(fileno=wire.theirs.detach()) as plain:
            plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            kind, cause = wire.next()
        assert kind == "closed"
        assert cause.startswith("the connection broke: ")
        wire.close()

    @pytest.mark.parametrize("error", [ValueError("of the owner"), SystemExit("of the owner")])
    def test_an_owner_that_raises_costs_the_connection_and_is_logged(
        self, wire: Wire, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise error

        wire.when_packets_arrive = fail
        wire.theirs.sendall(PINGRESP)
        assert wire.next("packet") == ("closed", "an internal error")
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    def test_an_owner_that_closes_and_raises_is_not_told(self, wire: Wire) -> None:
        def close_and_fail() -> None:
            wire.link.close()
            raise ValueError

        wire.when_packets_arrive = close_and_fail
        wire.theirs.sendall(PINGRESP)
        assert wire.next() == ("packet", Pingresp())
        assert wire.rest() == []


class TestClose:
    def test_is_not_told_and_ends_the_connection(self, wire: Wire) -> None:
        call(wire.loop, wire.link.close)
        assert wire.theirs.recv(1) == b""
        call(wire.loop, wire.link.close)
        assert wire.rest() == []

    def test_leaves_its_descriptor_to_whoever_gets_it_next(self, wire: Wire) -> None:
        assert len(wire.loop._selector.get_map()) == 2  # the loop watches its own wake-ups too
        call(wire.loop, wire.link.close)
        assert len(wire.loop._selector.get_map()) == 1

    def test_in_the_middle_of_reading_ends_the_reading(self, wire: Wire) -> None:
        data, packet = publish(1, 60_000)
        wire.when_packets_arrive = wire.link.close
        with ThreadPoolExecutor() as executor:
            sent = executor.submit(wire.theirs.sendall, data * 100)
            assert wire.next() == packet
            assert sent.exception() is not None
        assert [kind for kind, _ in wire.rest()] == []

    def test_leaves_no_timer(self, wire: Wire) -> None:
        def close() -> bool:
            wire.link.keep_alive(60)
            wire.link.close()
            return any(timer.callback for _, _, timer in wire.loop._timers)

        assert call(wire.loop, close) is False

    def test_lets_no_keepalive_begin(self, wire: Wire) -> None:
        def close() -> list[Any]:
            wire.link.close()
            wire.link.keep_alive(60)
            return wire.loop._timers

        assert call(wire.loop, close) == []


class TestKeepalive:
    """On a clock that the test moves; the sockets are real."""

    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (link_module, loop_module):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)

    @pytest.fixture
    def wire(self, loop: NetworkThread, _clock: None) -> Iterator[Wire]:
        wire = Wire(loop, *tcp_pair())
        call(loop, lambda: wire.link.keep_alive(60))
        yield wire
        wire.close()

    def pass_time(self, wire: Wire, seconds: float) -> None:
        """Move the clock, and have the loop look at its timers."""
        self.now += seconds
        for _ in range(3):
            call(wire.loop, lambda: None)

    def sent(self, wire: Wire) -> bytes:
        """What has arrived at the other end."""
        wire.theirs.setblocking(False)
        try:
            return wire.theirs.recv(100)
        except BlockingIOError:
            return b""

    def answer(self, wire: Wire, data: bytes = PINGRESP) -> None:
        wire.theirs.setblocking(True)
        wire.theirs.sendall(data)
        assert wire.next()[0] == "packet"

    def test_asks_after_silence(self, wire: Wire) -> None:
        self.pass_time(wire, 59.9)
        assert self.sent(wire) == b""
        self.pass_time(wire, 0.1)
        assert self.sent(wire) == PINGREQ
        assert wire.rest() == []

    def test_an_answer_keeps_the_connection_and_the_next_silence_is_asked_after(self, wire: Wire) -> None:
        for _ in range(3):
            self.pass_time(wire, 60)
            assert self.sent(wire) == PINGREQ
            self.answer(wire)
            self.pass_time(wire, 15)
            assert self.sent(wire) == b""
            self.now -= 15
        assert not wire.link.closed

    def test_any_packet_is_an_answer(self, wire: Wire) -> None:
        self.pass_time(wire, 60)
        self.answer(wire, publish(1)[0])
        self.pass_time(wire, 15)
        assert wire.rest() == []
        assert not wire.link.closed

    def test_without_an_answer_the_broker_is_dead(self, wire: Wire) -> None:
        self.pass_time(wire, 60)
        self.pass_time(wire, 14.9)
        assert not wire.link.closed
        self.pass_time(wire, 0.1)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_a_short_keepalive_waits_no_longer_than_itself_for_the_answer(self, wire: Wire) -> None:
        call(wire.loop, lambda: wire.link.keep_alive(5))
        self.pass_time(wire, 5)
        assert self.sent(wire) == PINGREQ
        self.pass_time(wire, 5)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_traffic_both_ways_needs_no_question(self, wire: Wire) -> None:
        for _ in range(10):
            self.pass_time(wire, 30)
            wire.write(b"out")
            assert self.sent(wire) == b"out"
            self.answer(wire)

    def test_a_broker_that_only_sends_is_told_that_we_live(self, wire: Wire) -> None:
        self.pass_time(wire, 30)
        self.answer(wire)
        self.pass_time(wire, 30)
        assert self.sent(wire) == PINGREQ

    def test_a_broker_that_only_receives_is_asked_whether_it_lives(self, wire: Wire) -> None:
        self.pass_time(wire, 30)
        wire.write(b"out")
        assert self.sent(wire) == b"out"
        self.pass_time(wire, 30)
        assert self.sent(wire) == PINGREQ

    def test_none_asks_nothing(self, wire: Wire) -> None:
        call(wire.loop, lambda: wire.link.keep_alive(0))
        self.pass_time(wire, 1_000_000)
        assert self.sent(wire) == b""
        assert not wire.link.closed

    def test_nothing_is_asked_after_the_end(self, wire: Wire) -> None:
        call(wire.loop, wire.link.end)
        self.pass_time(wire, 60)
        self.pass_time(wire, 10)
        assert self.sent(wire) == DISCONNECT

    def read_some(self, wire: Wire) -> None:
        """Read at the other end, until more goes out for it."""
        before = wire.link._sent
        wire.read(200_000)
        wait_until(lambda: wire.link._sent > before, "more to go out")

    def test_a_large_message_on_a_slow_line_costs_no_connection_while_it_moves(self, wire: Wire) -> None:
        wire.write(bytes(4_000_000), "large")
        for _ in range(10):
            self.read_some(wire)
            self.pass_time(wire, 50)
        rest = wire.read(2_000_000)
        assert rest == bytes(2_000_000)  # no PINGREQ in it
        assert wire.next("writable") == ("wrote", "large")
        self.pass_time(wire, 60)
        assert self.sent(wire) == PINGREQ

    def test_a_broker_that_takes_nothing_any_more_is_dead(self, wire: Wire) -> None:
        wire.write(bytes(4_000_000), "large")
        self.pass_time(wire, 60)
        assert wire.rest() == []
        self.pass_time(wire, 15)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")
        assert wire.link.unwritten() == ["large"]

    def test_wakes_the_loop_once_in_each_silence(self, wire: Wire) -> None:
        """At most one timer at a time, and it is due when the silence ends."""
        live = [when for when, _, timer in call(wire.loop, lambda: list(wire.loop._timers)) if timer.callback]
        assert live == [1060.0]
        self.pass_time(wire, 60)
        live = [when for when, _, timer in call(wire.loop, lambda: list(wire.loop._timers)) if timer.callback]
        assert live == [1075.0]
