"""The keepalive: when PINGREQ goes out, and what counts as its answer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.mqtt.runtime import thread
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.transport import connection, keepalive
from tests.unit.network_thread import call
from tests.unit.wire import DISCONNECT, PINGREQ, PINGRESP, Wire, publish, tcp_pair


class TestKeepalive:
    """On a clock that the test moves; the sockets are real."""

    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (keepalive, connection, thread):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)

    @pytest.fixture
    def wire(self, loop: NetworkThread, _clock: None) -> Iterator[Wire]:
        wire = Wire(loop, *tcp_pair())
        call(loop, lambda: wire.link.keepalive.start(60))
        yield wire
        wire.close()

    def pass_time(self, wire: Wire, seconds: float) -> None:
        """Move the clock, and have the network thread look at its timers."""
        self.now += seconds
        for _ in range(3):
            call(wire.runtime, lambda: None)

    def sent(self, wire: Wire) -> bytes:
        """What has arrived at the other end."""
        wire.theirs.setblocking(False)
        try:
            return wire.theirs.recv(100)
        except BlockingIOError:
            return b""

    def answer(self, wire: Wire, data: bytes) -> None:
        """Send something that ends with a packet for the listener."""
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
            self.answer(wire, PINGRESP + publish(1)[0])
            self.pass_time(wire, 15)
            assert self.sent(wire) == b""
            self.now -= 15
        assert not wire.link.closed

    def test_a_pingresp_is_not_handed_to_the_listener(self, wire: Wire) -> None:
        self.pass_time(wire, 60)
        wire.theirs.sendall(publish(1)[0] + PINGRESP + publish(2)[0])
        assert [wire.next(), wire.next()] == [publish(1)[1], publish(2)[1]]
        self.pass_time(wire, 15)
        assert wire.rest() == []

    def test_no_other_packet_is_an_answer(self, wire: Wire) -> None:
        self.pass_time(wire, 60)
        for number in range(14):
            self.answer(wire, publish(number)[0])
            self.pass_time(wire, 1)
        assert not wire.link.closed
        self.pass_time(wire, 1)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def arrived(self, wire: Wire, count: int) -> bool:
        return wire.link.received >= count

    def dribble(self, wire: Wire, data: bytes, seconds: int, size: int) -> None:
        """Send so many bytes each second."""
        wire.theirs.setblocking(True)
        for second in range(seconds):
            before = wire.link.received
            wire.theirs.sendall(data[second * size : (second + 1) * size])
            wait_until(partial(self.arrived, wire, before + size), "the bytes to arrive")
            self.pass_time(wire, 1)

    def test_a_packet_that_never_ends_is_silence_also_while_we_publish(self, wire: Wire) -> None:
        """A byte a second of one large packet: the broker does nothing else, and PINGREQ finds that out."""
        packet = publish(1, 1000)[0]
        for start in range(0, 60, 10):
            wire.write(b"out")
            self.dribble(wire, packet[start:], 10, 1)
        assert self.sent(wire) == b"out" * 6 + PINGREQ
        self.dribble(wire, packet[60:], 14, 1)
        assert not wire.link.closed
        self.pass_time(wire, 1)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_a_large_packet_on_a_slow_network_may_stand_before_the_answer(self, wire: Wire) -> None:
        self.pass_time(wire, 60)
        data, _ = publish(1, 60_000)
        self.dribble(wire, data, 40, 1500)
        assert not wire.link.closed
        self.answer(wire, data[60_000:] + PINGRESP)
        self.pass_time(wire, 15)
        assert wire.rest() == []

    def test_a_packet_that_arrives_too_slowly_may_not(self, wire: Wire) -> None:
        self.pass_time(wire, 60)
        data, _ = publish(1, 60_000)
        self.dribble(wire, data, 15, 1000)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_a_flood_that_answers_nothing_is_ended_too(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keepalive, "_MOST_BEFORE_ANSWER", 100_000)
        self.pass_time(wire, 60)
        data, _ = publish(1, 200_000)
        self.dribble(wire, data, 29, 4000)
        assert not wire.link.closed
        self.dribble(wire, data[116_000:], 1, 4000)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_no_answer_is_missed_while_reading_is_paused(self, wire: Wire) -> None:
        """The application holds back, and PINGRESP waits with what stands before it. The broker hears of us."""
        call(wire.runtime, wire.link.pause_reading)
        self.pass_time(wire, 60)
        assert self.sent(wire) == PINGREQ
        for _ in range(12):
            self.pass_time(wire, 15)
        assert self.sent(wire) == PINGREQ * 3
        assert not wire.link.closed
        wire.theirs.setblocking(True)
        wire.theirs.sendall(PINGRESP * 4)
        call(wire.runtime, wire.link.resume_reading)
        wait_until(lambda: not wire.link.keepalive.unanswered, "the answers to be read")
        self.pass_time(wire, 15)
        assert not wire.link.closed

    def test_each_answer_is_reported_to_whoever_asked(self, wire: Wire) -> None:
        answered: list[str] = []

        def ask() -> None:
            wire.link.keepalive.ping(lambda: answered.append("first"))
            wire.link.keepalive.ping(lambda: answered.append("second"))

        call(wire.runtime, ask)
        assert wire.read(4) == PINGREQ * 2
        self.answer(wire, PINGRESP + publish(1)[0])
        assert answered == ["first"]
        self.pass_time(wire, 10)
        self.answer(wire, PINGRESP + publish(1)[0])
        assert answered == ["first", "second"]
        self.answer(wire, PINGRESP + publish(1)[0])  # nobody asked for that one
        assert answered == ["first", "second"]

    def test_an_answer_is_reported_between_the_packets_that_came_before_and_after_it(self, wire: Wire) -> None:
        call(wire.runtime, lambda: wire.link.keepalive.ping(lambda: wire.reported.put(("answer", None))))
        wire.theirs.sendall(publish(1)[0] + PINGRESP + publish(2)[0])
        assert [wire.next() for _ in range(3)] == [publish(1)[1], ("answer", None), publish(2)[1]]

    def test_each_of_several_questions_has_its_own_time(self, wire: Wire) -> None:
        def ask() -> None:
            for _ in range(2):
                wire.link.keepalive.ping(lambda: None)

        call(wire.runtime, ask)
        self.pass_time(wire, 14)
        self.answer(wire, PINGRESP + publish(1)[0])
        self.pass_time(wire, 14)
        assert not wire.link.closed
        self.pass_time(wire, 1)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_without_a_keepalive_an_answer_may_take_forever(self, wire: Wire) -> None:
        call(wire.runtime, lambda: wire.link.keepalive.start(0))
        call(wire.runtime, lambda: wire.link.keepalive.ping(lambda: wire.reported.put(("answer", None))))
        self.pass_time(wire, 1_000_000)
        assert not wire.link.closed
        wire.theirs.sendall(PINGRESP)
        assert wire.next() == ("answer", None)

    def test_without_an_answer_the_broker_is_dead(self, wire: Wire) -> None:
        self.pass_time(wire, 60)
        self.pass_time(wire, 14.9)
        assert not wire.link.closed
        self.pass_time(wire, 0.1)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_a_short_keepalive_waits_no_longer_than_itself_for_the_answer(self, wire: Wire) -> None:
        call(wire.runtime, lambda: wire.link.keepalive.start(5))
        self.pass_time(wire, 5)
        assert self.sent(wire) == PINGREQ
        self.pass_time(wire, 5)
        assert wire.next() == ("closed", "the broker did not answer PINGREQ")

    def test_traffic_both_ways_needs_no_question(self, wire: Wire) -> None:
        for _ in range(10):
            self.pass_time(wire, 30)
            wire.write(b"out")
            assert self.sent(wire) == b"out"
            self.answer(wire, publish(1)[0])

    def test_a_broker_that_only_sends_gets_pingreq_too(self, wire: Wire) -> None:
        self.pass_time(wire, 30)
        self.answer(wire, publish(1)[0])
        self.pass_time(wire, 30)
        assert self.sent(wire) == PINGREQ

    def test_a_broker_that_only_receives_is_asked_whether_it_lives(self, wire: Wire) -> None:
        self.pass_time(wire, 30)
        wire.write(b"out")
        assert self.sent(wire) == b"out"
        self.pass_time(wire, 30)
        assert self.sent(wire) == PINGREQ

    def test_none_asks_nothing(self, wire: Wire) -> None:
        call(wire.runtime, lambda: wire.link.keepalive.start(0))
        self.pass_time(wire, 1_000_000)
        assert self.sent(wire) == b""
        assert not wire.link.closed

    def test_nothing_is_asked_after_the_end(self, wire: Wire) -> None:
        call(wire.runtime, wire.link.end)
        self.pass_time(wire, 60)
        self.pass_time(wire, 10)
        assert self.sent(wire) == DISCONNECT

    def read_some(self, wire: Wire) -> None:
        """Read at the other end, until more goes out for it."""
        before = wire.link.sent
        wire.read(200_000)
        wait_until(lambda: wire.link.sent > before, "more to go out")

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

    def test_wakes_the_network_thread_once_in_each_silence(self, wire: Wire) -> None:
        """At most one timer at a time, and it is due when the silence ends."""
        live = [when for when, _, timer in call(wire.runtime, lambda: list(wire.runtime._timers)) if timer.callback]
        assert live == [1060.0]
        self.pass_time(wire, 60)
        live = [when for when, _, timer in call(wire.runtime, lambda: list(wire.runtime._timers)) if timer.callback]
        assert live == [1075.0]
