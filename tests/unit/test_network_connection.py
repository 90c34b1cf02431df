"""A connection over a real socket, plain, with TLS and as a WebSocket: writing, reading, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client.mqtt.codec.packets import Pingresp
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.transport import HIGH_WATER, connection as link_module
from mqtt_token_client.mqtt.transport.websocket import WebSocket
from tests.unit.network_thread import call, undisturbed
from tests.unit.websocket_server import BINARY, CONTINUATION, PING, PONG, close_frame, frame
from tests.unit.wire import DISCONNECT, PINGREQ, PINGRESP, Wire, publish, tcp_pair, tls_pair, websocket_pair


@pytest.fixture
def read_size(monkeypatch: pytest.MonkeyPatch) -> int:
    """The bytes that a connection reads at once; to be requested before ``wire``, as its network thread reads at once
    what TLS sends after the handshake.
    """
    monkeypatch.setattr(link_module, "_READ_SIZE", 100)
    return 100


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


class TestWriting:
    def test_goes_out_in_order_at_the_next_flush(self, wire: Wire) -> None:
        def write() -> tuple[bool, bool]:
            wire.link.write(b"one ")
            wire.link.write(b"two ")
            before = not wire.link.unsent
            wire.link.flush()
            return before, not wire.link.unsent

        assert call(wire.runtime, write) == (False, True)
        wire.write(b"three")
        assert wire.read(13) == b"one two three"

    def test_an_item_is_reported_once_its_bytes_are_written(self, wire: Wire) -> None:
        wire.write(b"a", "first")
        wire.write(b"b")
        wire.write(b"c", "second")
        assert wire.rest() == [("wrote", "first"), ("wrote", "second")]
        assert call(wire.runtime, wire.link.unwritten) == []

    def test_what_a_slow_reader_leaves_waits_and_follows_whole(self, wire: Wire) -> None:
        """Also with TLS, where what waits grows between two tries to send it."""
        data = {str(number): bytes((number,)) * 20_011 for number in range(250)}
        for item, piece in data.items():
            wire.write(piece, item)
        room, flushed = call(wire.runtime, lambda: (wire.link.takes_more(), not wire.link.unsent))
        assert (room, flushed) == (False, False)
        early = [item for kind, item in wire.rest() if kind == "wrote"]
        assert len(early) < 250
        assert call(wire.runtime, wire.link.unwritten) == list(data)[len(early) :]
        assert wire.read(250 * 20_011) == b"".join(data.values())
        late = [wire.next("writable")[1] for _ in range(250 - len(early))]
        assert early + late == list(data)
        assert call(wire.runtime, lambda: (wire.link.takes_more(), not wire.link.unsent)) == (True, True)

    @pytest.mark.parametrize("item", [None, "item"])
    def test_who_writes_learns_whether_there_is_room_for_more(self, wire: Wire, item: str | None) -> None:
        def write() -> list[bool]:
            return [wire.link.write_item(bytes(HIGH_WATER // 2), item) for _ in range(3)]

        assert call(wire.runtime, write) == [True, False, False]

    def test_nothing_follows_disconnect(self, wire: Wire) -> None:
        def write() -> list[bool]:
            wire.link.end()
            wire.link.write(b"late")
            return [wire.link.write_item(b"late", item) for item in (None, "late")]

        assert call(wire.runtime, write) == [False, False]
        assert not wire.link.unsent
        assert call(wire.runtime, wire.link.unwritten) == ["late"]
        assert wire.read(2) == DISCONNECT

    def test_that_there_is_room_again_is_reported(self, wire: Wire) -> None:
        wire.write(bytes(4_000_000))
        assert not wire.link.takes_more()
        assert wire.rest() == []
        wire.read(4_000_000)
        assert wire.next() == ("writable", True)
        assert wire.link.takes_more()

    def test_that_there_is_room_again_is_reported_though_something_else_has_made_it(self, tcp: Wire) -> None:
        """The answer to a packet takes the rest with it, before the operating system reports that there is room."""
        tcp.write(bytes(4_000_000))
        assert not tcp.link.takes_more()
        tcp.theirs.setblocking(False)

        def write_all() -> None:
            while tcp.link.unsent:
                with contextlib.suppress(BlockingIOError):
                    tcp.theirs.recv(1_000_000)
                tcp.link.flush()

        call(tcp.runtime, write_all)
        assert tcp.next() == ("writable", True)

    def test_that_little_waits_is_not_reported_while_the_socket_takes_nothing(self, tcp: Wire) -> None:
        """Otherwise the owner would send, flush, and be notified again, endlessly."""

        def fill() -> None:
            while not tcp.link.unsent:
                tcp.link.write(bytes(1000))
                tcp.link.flush()

        call(tcp.runtime, fill)
        assert tcp.link.takes_more()
        call(tcp.runtime, tcp.link.flush)
        assert tcp.rest() == []

    def test_an_item_is_either_written_or_unwritten_after_a_loss(self, wire: Wire) -> None:
        items = [str(number) for number in range(300)]
        for item in items:
            wire.write(bytes(20_000), item)
        wire.theirs.close()
        calls: list[tuple[str, Any]] = []
        while not calls or calls[-1][0] != "closed":
            calls.append(wire.next("writable"))
        written = [item for kind, item in calls if kind == "wrote"]
        assert len(written) < len(items)
        assert written + call(wire.runtime, wire.link.unwritten) == items

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
            wire.link.write_item(bytes(8), "whole")
            wire.link.write_item(bytes(8), "in part")
            wire.link.flush()

        call(loop, write)
        assert wire.rest() == [("wrote", "whole"), ("closed", "the connection broke: Connection reset by peer")]
        assert wire.link.unwritten() == ["in part"]
        wire.close()

    def test_after_the_end_is_left_undone(self, wire: Wire) -> None:
        wire.write(b"a", "first")
        call(wire.runtime, wire.link.end)
        wire.write(b"b", "second")
        assert not wire.link.takes_more()
        assert wire.read(3) == b"a" + DISCONNECT
        assert wire.rest() == [("wrote", "first")]
        assert call(wire.runtime, wire.link.unwritten) == ["second"]
        call(wire.runtime, wire.link.end_writing)
        assert wire.theirs.recv(1) == b""

    def test_what_comes_after_the_end_is_still_read(self, wire: Wire) -> None:
        """The broker sees that nothing follows, and closes when it has sent what it has."""
        call(wire.runtime, wire.link.end)
        assert wire.read(2) == DISCONNECT
        call(wire.runtime, wire.link.end_writing)
        data, packet = publish(1, 100_000)
        wire.theirs.sendall(data)
        assert wire.next() == packet
        assert wire.theirs.recv(1) == b""
        wire.theirs.close()
        assert wire.next()[0] == "closed"

    def test_the_end_comes_after_what_waits(self, wire: Wire) -> None:
        wire.write(bytes(4_000_000))
        call(wire.runtime, wire.link.end)
        assert wire.read(4_000_002)[-2:] == DISCONNECT


class TestReading:
    def test_packets_are_reported_in_order(self, wire: Wire) -> None:
        made = [publish(number, 10_000 * (number % 7)) for number in range(60)]
        wire.theirs.sendall(b"".join(data for data, _ in made))
        assert [wire.next() for _ in made] == [packet for _, packet in made]

    def test_what_the_owner_writes_meanwhile_goes_out(self, wire: Wire) -> None:
        wire.when_packets_arrive = lambda: wire.link.write(b"answer")
        wire.theirs.sendall(PINGRESP)
        assert wire.read(6) == b"answer"

    def test_what_arrives_after_the_end_is_still_read(self, wire: Wire) -> None:
        call(wire.runtime, wire.link.end)
        assert wire.read(2) == DISCONNECT
        wire.theirs.sendall(PINGRESP)
        assert wire.next() == ("packet", Pingresp())

    def test_a_flood_leaves_the_others_their_turn(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link_module, "_READ_SIZE", 100)
        wire.when_packets_arrive = lambda: wire.runtime.call_soon(lambda: wire.reported.put(("turn", None)))
        data, _ = publish(1, 100 - 7)
        call(wire.runtime, wire.link.pause_reading)
        wire.theirs.sendall(data * 100)
        call(wire.runtime, wire.link.resume_reading)
        calls = [wire.next()[0] for _ in range(200)]
        first = calls.index("turn")
        assert 0 < first <= 16
        assert "packet" in calls[first:]

    @pytest.mark.parametrize(
        "flood",
        [
            frame(PING) * 4000,
            frame(PONG) * 4000,
            frame(BINARY) * 4000,
            (frame(BINARY, b"\xd0") + frame(BINARY, b"\x00")) * 2000,
            frame(BINARY, fin=False) + frame(CONTINUATION, fin=False) * 4000,
        ],
        ids=["pings", "pongs", "empty", "a byte each", "continuations"],
    )
    def test_a_flood_of_small_frames_leaves_the_other_connections_their_turns(
        self, loop: NetworkThread, monkeypatch: pytest.MonkeyPatch, flood: bytes
    ) -> None:
        """A frame of two bytes costs microseconds: thousands of them in one turn would be a long one."""
        decoded, turns, take = 0, list[int](), WebSocket._take

        def count(websocket: WebSocket, event: Any) -> None:
            nonlocal decoded
            decoded += 1
            take(websocket, event)

        monkeypatch.setattr(WebSocket, "_take", count)
        ours, peer = websocket_pair()
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))

        def turn() -> None:
            turns.append(decoded)
            if not wire.link.closed:
                loop.call_soon(turn)

        loop.call_soon(turn)
        with ThreadPoolExecutor() as executor:
            executor.submit(peer.sock.sendall, flood + close_frame(1000))
            assert wire.next("packet")[0] == "closed"
        assert decoded > 1000
        assert max(after - before for before, after in pairwise(turns)) <= 1024
        wire.close()

    def test_nothing_arrives_while_reading_is_paused(self, wire: Wire) -> None:
        call(wire.runtime, wire.link.pause_reading)
        wire.theirs.sendall(PINGRESP)
        call(wire.runtime, wire.link.read)
        assert wire.rest() == []
        call(wire.runtime, wire.link.resume_reading)
        assert wire.next() == ("packet", Pingresp())

    def test_what_waits_while_reading_is_paused_does_not_keep_the_loop_awake(self, wire: Wire) -> None:
        wake_ups: list[None] = []
        select = wire.runtime._selector.select

        def count(timeout: float | None = None) -> Any:
            wake_ups.append(None)
            return select(timeout)

        def pause() -> None:
            wire.link.pause_reading()
            wire.theirs.sendall(PINGRESP)
            wire.runtime._selector.select = count  # type: ignore[method-assign]  # counted at the selector itself
            wire.runtime.call_later(0.1, lambda: wire.reported.put(("sleeps", len(wake_ups))))

        undisturbed(wire.runtime, pause)
        assert wire.next() == ("sleeps", 1)

    def test_a_pause_by_the_owner_holds_from_the_next_piece_on(self, read_size: int, wire: Wire) -> None:
        """With TLS the rest has been decrypted by then, and the socket does not become readable for it."""
        wire.when_packets_arrive = lambda: wire.link.pause_reading()
        data, packet = publish(1, read_size - 7)
        wire.theirs.sendall(data * 3)
        for _ in range(3):
            assert wire.next() == packet
            assert wire.rest() == []
            call(wire.runtime, wire.link.resume_reading)
        assert wire.rest() == []

    def test_writing_goes_on_while_reading_is_paused(self, wire: Wire) -> None:
        call(wire.runtime, wire.link.pause_reading)
        wire.write(bytes(4_000_000), "all")
        wire.read(4_000_000)
        assert wire.next("writable") == ("wrote", "all")


class TestAnswers:
    """To packets of a broker that has not read what was written before."""

    @pytest.fixture
    def answering(self, tcp: Wire) -> Wire:
        tcp.when_packets_arrive = lambda: tcp.link.write(bytes(100_000))
        return tcp

    def test_do_not_pile_up(self, answering: Wire) -> None:
        answering.write(bytes(1_000_000))
        for number in range(11):
            data, arrived = publish(number)
            answering.theirs.sendall(data)
            assert answering.next("writable") == arrived
        assert answering.next("writable") == ("closed", "the broker does not read the answers to what it sends")

    def test_may_be_many_while_the_broker_reads_though_slowly(self, answering: Wire) -> None:
        answering.write(bytes(4_000_000))
        for number in range(30):
            data, arrived = publish(number)
            answering.theirs.sendall(data)
            assert answering.next("writable") == arrived
            answering.read(1_000_000)
            answering.write(bytes(900_000))
        assert call(answering.runtime, lambda: len(answering.link.unsent)) > 1_000_000

    def test_may_be_many_if_little_waits_before_them(self, answering: Wire) -> None:
        for number in range(30):
            data, arrived = publish(number)
            answering.theirs.sendall(data)
            assert answering.next("writable") == arrived
            answering.read(100_000)


class TestPing:
    """Of the WebSocket, which some gateways send: they close the connection if Pong does not come soon."""

    class Narrow(socket.socket):
        """Takes ``room`` bytes, and then no more."""

        room = 1_000_000
        refused: threading.Event

        def send(self, data: Any, flags: int = 0) -> int:
            if not self.room:
                self.refused.set()
                raise BlockingIOError
            sent = super().send(data[: self.room], flags)
            self.room -= sent
            return sent

    def test_within_a_packet_of_ours_is_answered_after_it_without_another(self, loop: NetworkThread) -> None:
        ours, peer = websocket_pair()
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))
        wire.write(bytes(262_144), "all")
        assert wire.link.unsent
        peer.sock.sendall(frame(PING, b"beat") + frame(BINARY, PINGRESP))
        assert wire.next("writable") == ("packet", Pingresp())
        arrived = 0
        while (found := peer.next()) is not None and found[0] == BINARY:
            arrived += len(found[1])
        assert (found, arrived) == ((PONG, b"beat"), 262_144)
        wire.close()

    @pytest.mark.parametrize("room", [0, 1, 5])
    def test_that_there_is_no_room_to_answer_is_answered_once_there_is(self, loop: NetworkThread, room: int) -> None:
        ours, peer = websocket_pair()
        narrow = self.Narrow(fileno=ours._sock.detach())
        narrow.room, narrow.refused = room, threading.Event()
        ours._sock = narrow
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))
        peer.sock.sendall(frame(PING, b"beat"))
        assert narrow.refused.wait(20)
        narrow.room = 1_000_000
        assert peer.next() == (PONG, b"beat")
        wire.write(PINGREQ)
        assert wire.read(2) == PINGREQ
        assert call(loop, lambda: wire.link._watched) == selectors.EVENT_READ
        wire.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux only")
class TestAcknowledgementsOfTcp:
    """A broker may hold its next small packet back until TCP has acknowledged the last one."""

    class Counted(socket.socket):
        acknowledged = 0

        def setsockopt(self, *arguments: Any) -> None:
            super().setsockopt(*arguments)
            self.acknowledged += arguments[1:] == (socket.TCP_QUICKACK, 1)

    @pytest.fixture
    def counted(self) -> tuple[Counted, socket.socket]:
        ours, theirs = tcp_pair()
        return self.Counted(fileno=ours.detach()), theirs

    def test_are_sent_at_once_after_a_read_that_is_not_answered(
        self, loop: NetworkThread, counted: tuple[Counted, socket.socket]
    ) -> None:
        wire = Wire(loop, *counted)
        before = counted[0].acknowledged
        for number in range(3):
            wire.theirs.sendall(publish(number)[0])
            wire.next()
        call(loop, lambda: None)
        assert counted[0].acknowledged == before + 3
        wire.close()

    def test_go_with_the_answer_where_there_is_one(
        self, loop: NetworkThread, counted: tuple[Counted, socket.socket]
    ) -> None:
        wire = Wire(loop, *counted)
        before = counted[0].acknowledged
        wire.when_packets_arrive = lambda: wire.link.write(b"answer")
        wire.theirs.sendall(publish(1)[0])
        assert wire.read(6) == b"answer"
        call(loop, lambda: None)
        assert counted[0].acknowledged == before
        wire.close()


class TestLoss:
    def test_that_the_broker_closed_is_reported_once_after_what_it_sent(self, wire: Wire) -> None:
        wire.theirs.sendall(PINGRESP)
        wire.theirs.close()
        assert wire.next() == ("packet", Pingresp())
        assert wire.next() == ("closed", "the broker closed the connection")
        call(wire.runtime, wire.link.read)
        wire.write(b"late", "late")
        call(wire.runtime, wire.link.end)
        assert wire.rest() == []
        assert wire.link.closed

    def test_an_end_of_tls_before_that_of_tcp_is_one_too(self, loop: NetworkThread, pki: Pki) -> None:
        wire = Wire(loop, *tls_pair(pki))
        assert isinstance(wire.theirs, ssl.SSLSocket)
        with ThreadPoolExecutor() as executor:
            unwrapped = executor.submit(wire.theirs.unwrap)
            assert wire.next() == ("closed", "the broker closed the connection")
            # Ours went away without an answer, as brokers do. Python 3.11.2 takes that for one, and returns the socket.
            assert unwrapped.exception() is not None or unwrapped.result().recv(1) == b""
        wire.close()

    def test_the_close_of_a_websocket_is_reported_with_its_code(self, loop: NetworkThread) -> None:
        ours, peer = websocket_pair()
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))
        peer.sock.sendall(close_frame(1000))
        assert wire.next() == ("closed", "the broker closed the WebSocket: 1000 Normal Closure")
        assert wire.reason is None
        wire.close()

    def test_the_close_of_a_websocket_because_of_the_token_is_reported_with_a_reason(self, loop: NetworkThread) -> None:
        ours, peer = websocket_pair()
        wire = Wire(loop, cast("socket.socket", ours), cast("socket.socket", peer))
        peer.sock.sendall(close_frame(3000))
        assert wire.next() == ("closed", "the broker closed the WebSocket: 3000 Unauthorized")
        assert wire.reason == 0x87
        wire.close()

    def test_the_close_of_a_websocket_that_came_while_reading_was_paused_is_reported_after_it(
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

    def test_a_reset_is_reported_once(self, tcp: Wire) -> None:
        tcp.reset()
        assert tcp.next() == ("closed", "the connection broke: Connection reset by peer")
        tcp.write(b"late", "late")
        assert tcp.rest() == []

    def test_a_reset_is_seen_while_writing_though_reading_is_paused(self, tcp: Wire) -> None:
        call(tcp.runtime, tcp.link.pause_reading)
        tcp.write(bytes(4_000_000), "all")
        tcp.reset()
        kind, cause = tcp.next()
        assert kind == "closed"
        assert cause.startswith("the connection broke: ")
        assert tcp.link.unwritten() == ["all"]

    def test_a_reset_seen_by_writing_first_is_reported_once(self, tcp: Wire) -> None:
        def reset_then_write() -> None:
            tcp.reset()
            for _ in range(2):
                tcp.link.write(b"late")
                tcp.link.flush()
            tcp.link.read()

        call(tcp.runtime, reset_then_write)
        assert [kind for kind, _ in tcp.rest()] == ["closed"]

    def test_what_arrived_before_a_reset_is_read_though_writing_sees_the_reset_first(self, tcp: Wire) -> None:
        def reset_then_write() -> None:
            tcp.theirs.sendall(PINGRESP * 3)
            tcp.reset()
            tcp.link.write(b"late")
            tcp.link.flush()

        call(tcp.runtime, reset_then_write)
        calls = tcp.rest()
        assert [kind for kind, _ in calls] == ["packet", "packet", "packet", "closed"]

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

    def test_an_owner_that_closes_and_raises_is_not_notified(self, wire: Wire) -> None:
        def close_and_fail() -> None:
            wire.link.close()
            raise ValueError

        wire.when_packets_arrive = close_and_fail
        wire.theirs.sendall(PINGRESP)
        assert wire.next() == ("packet", Pingresp())
        assert wire.rest() == []


class TestClose:
    def test_is_not_reported_and_ends_the_connection(self, wire: Wire) -> None:
        call(wire.runtime, wire.link.close)
        assert wire.theirs.recv(1) == b""
        call(wire.runtime, wire.link.close)
        assert wire.rest() == []

    def test_soon_after_a_failure_leaves_that_unreported_too(self, wire: Wire) -> None:
        def fail_and_close() -> None:
            wire.link.fail("it broke")
            wire.link.close()

        call(wire.runtime, fail_and_close)
        assert wire.rest() == []

    def test_leaves_its_descriptor_to_whoever_gets_it_next(self, wire: Wire) -> None:
        assert len(wire.runtime._selector.get_map()) == 2  # the loop watches its own wake-ups too
        call(wire.runtime, wire.link.close)
        assert len(wire.runtime._selector.get_map()) == 1

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
            wire.link.keepalive.start(60)
            wire.link.close()
            return any(timer.callback for _, _, timer in wire.runtime._timers)

        assert call(wire.runtime, close) is False

    def test_lets_no_keepalive_begin(self, wire: Wire) -> None:
        def close() -> list[Any]:
            wire.link.close()
            wire.link.keepalive.start(60)
            return wire.runtime._timers

        assert call(wire.runtime, close) == []


class TestThread:
    def test_is_the_runtimes_alone(self, wire: Wire) -> None:
        """A call from another thread fails before it changes anything."""
        wire.link.write(b"data")
        for method in (wire.link.flush, wire.link.read, wire.link.close):
            with pytest.raises(AssertionError, match="a thread other than the network thread"):
                method()
        assert len(wire.link.unsent) == 4
        assert not wire.link.closed
        call(wire.runtime, wire.link.flush)
        assert wire.read(4) == b"data"
