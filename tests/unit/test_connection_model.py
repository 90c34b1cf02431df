"""A client in any order of publish, subscribe, renewal, refusal, loss and time, and what has to come out of it.

The client is whole: TokenClient, its keeper, its connection. Its sockets lead to a broker (model_broker.py) that
checks every packet; its time and its network thread are the test's (stepped_loop.py), and so is the disk, if it has a
journal (scripted_journal.py). Then its process may die, and the next one continues with what was on the disk.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqtt_token_client import (
    AuthorizationServerUnavailable,
    Backoff,
    Connected,
    ConnectFailed,
    Delivery,
    DeliveryFailed,
    Disconnected,
    Event,
    Message,
    OutboxFull,
    RenewalPolicy,
    Rotated,
    RotationFailed,
    SubscriptionRefused,
    Token,
    TokenClient,
    TokenError,
    Will,
)
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.session.delivery import Stage
from mqtt_token_client.mqtt.session.journal import Bounds
from mqtt_token_client.mqtt.session.recorded_outbox import RecordedOutbox
from mqtt_token_client.mqtt.session.session import Session
from mqtt_token_client.mqtt.transport.open import open_transport
from mqtt_token_client.tokens import keeper
from tests.unit.device import Source, password
from tests.unit.model_broker import Answer, Line, ModelBroker, Sent
from tests.unit.model_settings import model_settings
from tests.unit.scripted_journal import ScriptedJournal
from tests.unit.stepped_loop import SteppedThread, replaced

MAX_QUEUED = 25
KEEPALIVE = 30
LIFE = 120.0
TOPICS = st.sampled_from(["a", "b"])
QOS = st.integers(0, 2)
TROUBLES = (
    "the authorization server is down",
    "what blocks takes long",
    "the broker leaves a connection open that was taken over",
    "the broker is not to be reached",
    "the broker is slow",
    "the broker acknowledges nothing",
    "the broker answers no PINGREQ",
    "the disk is slow",
)
DEATHS = ("the broker has read everything", "the broker has not read the last packets", "the broker does not notice")
STEPS = (
    *("publish at 0", "publish at 1", "publish at 2", "publish much", "message at 0", "message at 1", "message at 2"),
    *("read one of the first", "read one of the last", "read the first", "read the last", "acknowledge one"),
    *("rotate", "cut the first", "stall the first", "10 ms", "100 ms", "2 s"),
)
ROTATION = ("publish at 0", "publish at 1", "message at 0", "read one of the first", "read the last", "100 ms")
EXCHANGE = ("publish at 2", "message at 2", "read one of the first", "acknowledge one")
WILLS = {
    "no will": None,
    "a will": Will("gone", b"", qos=1),
    "a will with delay": Will("gone", b"", qos=1, delay=60),
}


class Steady(Backoff):
    """The bound itself instead of a random part of it."""

    def delay(self, failures: int) -> float:
        return min(self.maximum, self.initial * 2.0 ** (failures - 1))

    def slow_delay(self) -> float:
        return self.maximum


STEADY = Steady(initial=1.0, maximum=8.0, stable_after=10.0)


class TimedSource(Source):
    """Knows when each of its tokens was requested."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(LIFE)
        self.requested: dict[bytes, float] = {}
        self._now = now

    def fetch(self, previous: Token | None) -> Token:
        self.requested[password(self.requests + 1)] = self._now()
        return super().fetch(previous)


class InternalErrors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


class ClientAndBroker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.errors = InternalErrors()
        self.source = TimedSource(lambda: self.loop.now)
        self.deliveries: dict[int, Delivery] = {}
        self.messages: list[Message] = []  # that this process has received, and that are not to come again
        self.heard: set[int] = set()  # the numbers of all messages that any process has received
        self.identifiers: dict[int, int] = {}  # of QoS 2, and the message that was received with it last
        self.finished: set[int] = set()  # messages of QoS 2 that must not be received again, whatever happens
        self.unacknowledged: list[Message] = []  # by the application, which does that itself
        self.events: list[Event] = []
        self.reported = 0  # events that were looked at
        self.up = False
        self.wanted: dict[str, int] = {}
        self.sent_down: dict[int, tuple[str, int]] = {}
        self.asked = 0  # rotations
        self.resources = contextlib.ExitStack()

    @initialize(
        protocol=st.sampled_from([4, 5]),
        will=st.sampled_from(sorted(WILLS)),
        window=st.sampled_from([1, 3, 100]),
        receive_maximum=st.sampled_from([None, 1, 2]),
        session_expiry=st.sampled_from([3600, 3600, 0]),
        subscriptions=st.dictionaries(TOPICS, QOS),
        profile=st.sampled_from(["password", "event-grid"]),
        manual_ack=st.booleans(),
        backwards=st.booleans(),
        journal=st.booleans(),
        reuse=st.booleans(),
    )
    def connect(
        self,
        protocol: int,
        will: str,
        window: int,
        receive_maximum: int | None,
        session_expiry: int,
        subscriptions: dict[str, int],
        profile: str,
        manual_ack: bool,
        backwards: bool,
        journal: bool,
        reuse: bool,
    ) -> None:
        if protocol == 4 and will == "a will with delay":
            will = "a will"
        delayed = will == "a will with delay" and session_expiry
        self.manual_ack = manual_ack
        self.loop = SteppedThread()
        self.loop.backwards = backwards
        self.began = self.loop.now
        self.broker = ModelBroker(
            five=protocol == 5,
            window=window,
            keepalive=KEEPALIVE,
            takeover_fires_will=will != "no will" and not delayed,
            now=lambda: self.loop.now,
        )
        self.broker.receive_maximum = receive_maximum
        self.broker.reuses_identifiers = reuse
        self.broker.expiry = lambda token: self.source.requested[token] + LIFE
        self.resources.enter_context(replaced("monotonic", monotonic, lambda: self.loop.now))
        self.resources.enter_context(patch("mqtt_token_client.client.acquire_network_thread", lambda: self.loop))
        self.resources.enter_context(patch("mqtt_token_client.client.release_network_thread", lambda: None))
        self.resources.enter_context(replaced("open_transport", open_transport, self.broker.open_transport))
        self.resources.enter_context(patch.object(keeper, "off_main_thread", lambda function: function()))
        logger = logging.getLogger("mqtt_token_client")
        logger.addHandler(self.errors)
        self.resources.callback(logger.removeHandler, self.errors)
        self.journal = ScriptedJournal(automatic=True) if journal else None
        self.resources.enter_context(replaced("Session", Session, self.make_session))
        self.make_client: Callable[[], TokenClient] = lambda: TokenClient(
            "mqtt://127.0.0.1",
            self.source,
            client_id="device",
            protocol=protocol,
            keepalive=KEEPALIVE,
            session_expiry=session_expiry,
            profile=profile if protocol == 5 else "password",
            manual_ack=manual_ack,
            will=WILLS[will],
            renewal=RenewalPolicy(jitter=0.0, backoff=STEADY),
            backoff=STEADY,
            max_inflight=window,
            max_queued=MAX_QUEUED,
            on_message=self.on_message,
            on_event=self.events.append,
        )
        self.client = self.make_client()
        self.begin(subscriptions)

    def make_session(self, **options: Any) -> Session:
        if self.journal is not None:
            self.journal.bounds = Bounds(MAX_QUEUED)
        return Session(**{**options, "journal": self.journal})

    def begin(self, subscriptions: dict[str, int]) -> None:
        """Do what an application does when it starts."""
        self.broker.was_given_up = lambda identifier: identifier in self.client._core.session._outbox.ids.unfinished
        for topic, qos in subscriptions.items():
            self.subscribe(topic, qos)
        self.client.connect(timeout=0)
        self.settle()

    def on_message(self, message: Message) -> None:
        assert int(message.payload) not in self.finished, f"{message} comes again"
        self.messages.append(message)
        self.heard.add(int(message.payload))
        if message.qos == 2:
            self.identifiers[message.packet_id] = int(message.payload)
        if self.manual_ack and message.qos:
            self.unacknowledged.append(message)
        else:
            self.broker.handed_over.add(int(message.payload))

    def settle(self) -> None:
        """Let both sides do all that there is to do now."""
        while True:
            self.loop.turn()
            self.look_at_events()
            if not self.broker.serve():
                break
        assert not self.errors.found, "\n".join(self.errors.found)

    def look_at_events(self) -> None:
        for event in self.events[self.reported :]:
            match event:
                case Connected():
                    assert not self.up, "connected twice"
                    self.up = True
                case Disconnected():
                    assert self.up, "disconnected twice"
                    self.up = False
                case Rotated() | RotationFailed():
                    assert self.up, f"{event} while not connected"
                case ConnectFailed():
                    assert not self.up, f"{event} while connected"
                case SubscriptionRefused(topic_filter, 0x8F):  # the others are asked for again
                    del self.wanted[topic_filter]
        self.reported = len(self.events)

    def pass_time(self, seconds: float) -> None:
        until = self.loop.now + seconds
        while (due := self.loop.next_timer()) is not None and due <= until:
            self.loop.now = max(self.loop.now, due)
            self.settle()
        self.loop.now = until
        self.settle()

    # The application

    @rule(topic=TOPICS, qos=QOS, size=st.sampled_from([0, 0, 0, 3_000]), count=st.integers(1, 4))
    def publish(self, topic: str, qos: int, size: int, count: int) -> None:
        for _ in range(count):
            number = len(self.broker.sent)
            full = self.queued >= MAX_QUEUED
            self.broker.sent[number] = Sent(topic, qos)
            try:
                delivery = self.client.publish(topic, b"%d " % number + bytes(size), qos=qos)
            except OutboxFull:
                assert full, "a message was rejected, and there was room"
                del self.broker.sent[number]
                break
            assert not full, "a message was accepted, and there was no room"
            self.deliveries[number] = delivery
        self.settle()

    @rule(topic=TOPICS, qos=st.integers(1, 2))
    def publish_one(self, topic: str, qos: int) -> None:
        self.publish(topic, qos, 0, 1)

    @rule(topic=TOPICS, qos=QOS)
    def subscribe(self, topic: str, qos: int) -> None:
        self.wanted[topic] = qos
        self.client.subscribe(topic, qos=qos)
        self.settle()

    @rule(topic=TOPICS)
    def unsubscribe(self, topic: str) -> None:
        self.wanted.pop(topic, None)
        self.client.unsubscribe(topic)
        self.settle()

    @rule()
    def rotate(self) -> None:
        self.asked += 1
        with contextlib.suppress(TokenError):
            self.client.rotate()
        self.settle()

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0]))
    def disconnect_and_connect(self, seconds: float) -> None:
        self.disconnect(seconds)
        self.broker.bad_tokens.clear()  # the client begins anew
        self.asked += 1
        self.client.connect(timeout=0)
        self.settle()

    def disconnect(self, seconds: float) -> None:
        self.broker.closing = True
        self.loop.call_soon(lambda: self.client.disconnect(seconds))
        self.settle()
        self.loop.workers_busy = False
        self.pass_time(seconds + 3.0)
        assert self.client.state == "closed"
        assert all(delivery.done for delivery in self.deliveries.values()), "a message has neither arrived nor failed"
        outbox = self.client._core.session._outbox
        if isinstance(outbox, RecordedOutbox):  # it sends them after the next connect()
            kept = [message for message in (*outbox._in_memory(), *outbox.queue.new) if message.disk is not None]
            self.deliveries |= {int(message.payload.split()[0]): message for message in kept}
        assert self.loop.watched == 0, "a socket is left"
        assert self.loop.next_timer() is None, "a timer is left"
        for line in self.broker.lines:
            self.broker.close(line)
        self.up = self.broker.closing = False
        if self.unacknowledged:  # these come again, and everything after them may have come before
            self.finished |= {int(one.payload) for one in self.messages if one.qos == 2 and self.is_acknowledged(one)}
            self.messages.clear()
            self.unacknowledged.clear()

    def is_acknowledged(self, message: Message) -> bool:
        """Whether the application has acknowledged it."""
        return all(message is not one for one in self.unacknowledged)

    @precondition(lambda self: self.unacknowledged)
    @rule(count=st.integers(1, 5), oldest=st.booleans())
    def acknowledge_messages(self, count: int, oldest: bool) -> None:
        for _ in range(min(count, len(self.unacknowledged))):
            message = self.unacknowledged.pop(0 if oldest else -1)
            self.broker.handed_over.add(int(message.payload))
            message.acknowledge()
        self.settle()

    # The device

    @precondition(lambda self: self.journal is not None)
    @rule(broker=st.sampled_from(DEATHS))
    def the_process_dies_and_starts_again(self, broker: str) -> None:
        """What it had reported to the journal is on the disk, whether it knew that or not."""
        assert self.journal is not None
        self.start_again(self.journal.after_death(), broker)

    @precondition(lambda self: self.journal is not None)
    @rule(broker=st.sampled_from(DEATHS))
    def the_power_is_cut(self, broker: str) -> None:
        """What it knew to be on the disk is there, and nothing else."""
        assert self.journal is not None
        self.start_again(self.journal.after_power_cut(), broker)

    @precondition(lambda self: self.journal is not None)
    @rule()
    def the_journal_commits(self) -> None:
        assert self.journal is not None
        self.journal.commit()
        self.settle()

    def start_again(self, journal: ScriptedJournal, broker: str) -> None:
        before, self.loop = self.loop, SteppedThread()
        self.loop.now, self.loop.backwards, self.loop.workers_busy = before.now, before.backwards, before.workers_busy
        self.journal = journal
        self.client = self.make_client()
        recorded = {int(message.payload.split()[0]): message for message in journal.loaded.messages}
        self.broker.client_died(
            notices=broker != DEATHS[2],
            loses_unread=broker == DEATHS[1],
            recorded={number for number, message in recorded.items() if message.stage is Stage.SENT},
        )
        before.after_fork()  # it does nothing any more, and its sockets are closed
        done = {number: delivery for number, delivery in self.deliveries.items() if delivery.done}
        self.deliveries = {**done, **recorded}
        self.finished |= {self.identifiers[packet_id] for packet_id in journal.loaded.received}
        self.broker.owed_at_qos_0.clear()  # it died with them, or has received them
        self.messages.clear()
        self.unacknowledged.clear()
        self.events.clear()
        self.reported, self.up = 0, False
        self.asked += 1
        for topic in {"a", "b"} - self.wanted.keys():  # perhaps the last process had no time to do so
            self.unsubscribe(topic)
        self.begin(self.wanted)

    # Time

    @rule(seconds=st.sampled_from([0.005, 0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 80.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule()
    def a_moment_passes(self) -> None:
        self.pass_time(0.01)

    @rule(seconds=st.sampled_from([10.0, 100.0, 1000.0]))
    def the_machine_sleeps(self, seconds: float) -> None:
        self.loop.now += seconds
        self.settle()

    # The broker, the network, the authorization server

    @rule(answers=st.lists(st.sampled_from(Answer), min_size=1, max_size=3))
    def next_answers(self, answers: list[Answer]) -> None:
        self.broker.answers.extend(answers)

    @precondition(lambda self: self.broker.unanswered is not None)
    @rule(answer=st.sampled_from(Answer))
    def answer(self, answer: Answer) -> None:
        line = self.broker.unanswered
        assert line is not None
        self.broker.answer(line, answer)
        self.settle()

    @rule(verdicts=st.lists(st.sampled_from([0, 0x10, 0x80, 0x87, 0x8F, 0x97]), min_size=1, max_size=3))
    def next_verdicts(self, verdicts: list[int]) -> None:
        self.broker.verdicts.extend(verdicts)

    @precondition(lambda self: not self.broker.attentive)
    @rule(count=st.integers(1, 5), oldest=st.booleans())
    def read(self, count: int, oldest: bool) -> None:
        if line := self.a_line(oldest=oldest):
            self.broker.read(line, count)
            self.settle()

    @precondition(lambda self: not self.broker.acknowledges)
    @rule(count=st.integers(1, 5))
    def acknowledge_some(self, count: int) -> None:
        self.broker.acknowledge(count)
        self.settle()

    @rule(stalled=st.booleans(), oldest=st.booleans())
    def stall(self, stalled: bool, oldest: bool) -> None:
        if line := self.a_line(oldest=oldest):
            self.broker.stall(line, stalled=stalled)
            self.settle()

    @rule(kindly=st.booleans(), oldest=st.booleans())
    def cut(self, kindly: bool, oldest: bool) -> None:
        if line := self.a_line(oldest=oldest):
            (self.broker.close if kindly else self.broker.cut)(line)
            self.settle()

    @precondition(lambda self: self.client._settings.protocol == 5 and self.broker.current is not None)
    @rule(reason=st.sampled_from([0x87, 0x98, 0x8B, 0x8E]))
    def dismiss(self, reason: int) -> None:
        assert self.broker.current is not None
        self.broker.disconnect(self.broker.current, reason)
        self.settle()

    @rule()
    def restart(self) -> None:
        self.broker.restart()
        self.settle()

    @precondition(lambda self: self.broker.session is not None and self.broker.session.subscriptions)
    @rule(topic=TOPICS, qos=QOS, count=st.integers(1, 4))
    def message_comes(self, topic: str, qos: int, count: int) -> None:
        self.send_down(topic, qos, count)
        self.settle()

    def send_down(self, topic: str, qos: int, count: int) -> None:
        for _ in range(count):
            number = len(self.sent_down)
            if self.broker.publish(number, topic, qos):
                self.sent_down[number] = (topic, qos)

    @rule(steps=st.lists(st.sampled_from(STEPS), min_size=3, max_size=15))
    def while_the_broker_is_slow(self, steps: list[str]) -> None:
        """The thick of it: step by step, with as little as possible done in between."""
        broker = self.broker
        before = broker.attentive, broker.acknowledges
        broker.attentive = broker.acknowledges = False
        for step in steps:
            match step.split():
                case "publish", "at", qos:
                    self.publish("a", int(qos), 0, 1)
                case "publish", "much":
                    self.publish("a", 0, 9_000, 3)
                case "message", "at", qos:
                    self.send_down("a", int(qos), 1)
                case "read", *one, which:
                    if line := self.a_line(oldest=which == "first"):
                        broker.read(line, 1 if one[0] == "one" else 100)
                case "acknowledge", "one":
                    broker.acknowledge(1)
                    self.settle()
                case ("rotate",):
                    self.rotate()
                case "cut", _, _:
                    self.cut(False, True)
                case "stall", _, _:
                    self.stall(True, True)
                case number, unit:
                    self.pass_time(int(number) * (1.0 if unit == "s" else 0.001))
        self.settle()
        broker.attentive, broker.acknowledges = before
        for line in broker.lines:
            if line.open:
                broker.stall(line, stalled=False)
        if broker.acknowledges:
            broker.acknowledge()
        self.settle()

    @rule(steps=st.lists(st.sampled_from(ROTATION), min_size=2, max_size=8))
    def rotate_while_the_broker_is_slow(self, steps: list[str]) -> None:
        self.no_more_trouble()
        self.pass_time(10.0)  # connected, most likely
        self.while_the_broker_is_slow(["publish at 0", "read the first", "rotate", *steps, "read the last"])

    @rule(steps=st.lists(st.sampled_from(EXCHANGE), min_size=3, max_size=10))
    def lose_the_connection_in_an_exchange(self, steps: list[str]) -> None:
        self.no_more_trouble()
        self.pass_time(10.0)  # connected, most likely
        self.while_the_broker_is_slow(["publish at 2", *steps, "cut the first"])

    @rule(verdicts=st.lists(st.sampled_from([0, 0x87]), min_size=1, max_size=3), qos=st.integers(1, 2))
    def the_token_is_about_to_end(self, verdicts: list[int], qos: int) -> None:
        self.source.always = AuthorizationServerUnavailable("it is down")
        left = self.client.token_expires_in
        if left is not None and left > 10.0:
            self.pass_time(left - 8.0)
        self.broker.verdicts.extend(verdicts)
        self.publish("b", qos, 0, len(verdicts))

    @rule(trouble=st.sampled_from(TROUBLES))
    def trouble(self, trouble: str) -> None:
        match trouble:
            case "the authorization server is down":
                self.source.always = AuthorizationServerUnavailable("it is down")
            case "what blocks takes long":
                self.loop.workers_busy = True
            case "the broker leaves a connection open that was taken over":
                self.broker.lingers = True
            case "the broker is not to be reached":
                self.broker.reachable = False
            case "the broker is slow":
                self.broker.attentive = False
            case "the broker acknowledges nothing":
                self.broker.acknowledges = False
            case "the broker answers no PINGREQ":
                self.broker.answers_pings = False
            case "the disk is slow" if self.journal is not None:
                self.journal.automatic = False
        self.settle()

    @rule()
    def no_more_trouble(self) -> None:
        self.source.always = None
        if self.journal is not None:
            self.journal.automatic = True
            self.journal.commit()
        self.loop.workers_busy = self.broker.lingers = False
        self.broker.reachable = self.broker.attentive = self.broker.acknowledges = self.broker.answers_pings = True
        for line in self.broker.lines:
            if line.open:
                self.broker.stall(line, stalled=False)
        self.broker.acknowledge()
        self.settle()

    def a_line(self, *, oldest: bool) -> Line | None:
        """The first or the second connection of a rotation, or the only one."""
        lines = [line for line in self.broker.lines if line.open]
        return lines[0 if oldest else -1] if lines else None

    # What holds at any time

    @property
    def queued(self) -> int:
        return sum(not delivery.done for delivery in self.deliveries.values())

    @invariant()
    def no_message_vanishes(self) -> None:
        assert self.client.stats.queued == self.queued
        for number, delivery in self.deliveries.items():
            if not delivery.done or not self.broker.sent[number].qos:
                continue
            if delivery.error is None:
                assert number in self.broker.confirmed, f"message {number} passes as delivered"
            elif isinstance(delivery.error, DeliveryFailed) and delivery.error.reason is not None:
                assert delivery.error.reason in self.broker.refused[number]

    @invariant()
    def no_message_comes_twice_or_out_of_order(self) -> None:
        last: dict[tuple[str, int], int] = {}
        came: set[int] = set()
        for message in self.messages:
            number = int(message.payload)
            if message.qos == 1 and message.duplicate and self.broker.reuses_identifiers and number in came:
                # After PUBACK, what comes with that identifier is a new message, even with DUP [MQTT-4.3.2-5]. The
                # client takes it for a copy only while no identifier has come for a second message, which a broker may
                # do at once (section 2.2.1). What comes for the first time is in order (section 4.6) all the same.
                continue
            came.add(number)
            before = last.get((message.topic, message.qos), -1)
            assert before < number, f"message {number} to the client comes after {before}"
            last[message.topic, message.qos] = number

    @invariant()
    def attempts_are_bounded(self) -> None:
        monotonic = self.loop.now - self.began
        assert self.broker.dialed <= 3 + 2 * self.asked + 1.2 * monotonic / STEADY.initial

    # In the end

    def teardown(self) -> None:
        if hasattr(self, "client"):  # otherwise it was never begun
            try:
                self.all_is_well_in_the_end()
            finally:
                self.end()

    def end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        self.loop.workers_busy = False
        with contextlib.suppress(AssertionError):
            self.loop.call_soon(lambda: self.client.disconnect(0.0))
            self.pass_time(60.0)
        self.loop.stop()
        self.loop.turn()
        self.resources.close()
        self.broker.end()

    def all_is_well_in_the_end(self) -> None:
        broker = self.broker
        broker.answers.clear()
        broker.verdicts.clear()
        while (late := broker.unanswered) is not None:
            broker.answer(late, Answer.ACCEPT)
        self.no_more_trouble()
        self.pass_time(60.0)
        self.rotate()  # what was refused is asked for with the next token
        self.pass_time(60.0)
        self.acknowledge_messages(len(self.unacknowledged), oldest=True)
        assert self.client.state == "connected"
        assert self.up
        assert self.queued == 0, "not all messages are delivered"
        self.no_message_vanishes()
        assert broker.session is not None
        assert broker.session.subscriptions == self.wanted
        assert not broker.session.outgoing, "a message to the client is not acknowledged"
        if self.journal is not None:
            assert self.journal.empty, "the journal keeps what is done"
        assert broker.owed_at_qos_0 <= self.heard
        for number, delivery in self.deliveries.items():
            if not self.broker.sent[number].qos and delivery.error is None:
                assert number in broker.received or number in broker.lost, f"message {number} of QoS 0 is lost"
        self.disconnect(0.0)
        self.no_message_vanishes()


def plain(**options: Any) -> ClientAndBroker:
    """A client that is connected, for a test that says itself what happens."""
    machine = ClientAndBroker()
    usual = {"protocol": 5, "will": "no will", "window": 100, "receive_maximum": None, "session_expiry": 3600}
    usual |= {"subscriptions": {}, "profile": "password", "manual_ack": False, "backwards": False}
    usual |= {"journal": False, "reuse": False}
    machine.connect(**{**usual, **options})
    return machine


class TestFound:
    """What the machine has found, as plain as it can be said."""

    @pytest.fixture
    def make(self) -> Iterator[Callable[..., ClientAndBroker]]:
        made: list[ClientAndBroker] = []

        def make(**options: Any) -> ClientAndBroker:
            made.append(plain(**options))
            return made[-1]

        yield make
        for machine in made:
            machine.end()

    def a_new_session_that_the_client_was_not_told_of(self, machine: ClientAndBroker) -> None:
        """The broker forgets everything, and its CONNACK comes when the client has given up waiting. The next one says
        truly that there is a session.
        """
        machine.trouble("the broker is slow")
        machine.message_comes("a", 2, 1)
        machine.restart()
        machine.pass_time(17.5)
        assert machine.client.state == "waiting"
        machine.no_more_trouble()
        machine.pass_time(10.0)
        assert machine.client.state == "connected"
        assert not machine.broker.lost

    def test_subscriptions_are_made_again_when_a_connack_was_missed(self, make: Callable[..., ClientAndBroker]) -> None:
        machine = make(subscriptions={"a": 2})
        self.a_new_session_that_the_client_was_not_told_of(machine)
        machine.all_is_well_in_the_end()

    def test_a_message_of_qos_2_is_new_in_spite_of_its_identifier_when_a_connack_was_missed(
        self, make: Callable[..., ClientAndBroker]
    ) -> None:
        machine = make(subscriptions={"a": 2})
        self.a_new_session_that_the_client_was_not_told_of(machine)
        machine.subscribe("a", 2)
        machine.message_comes("a", 2, 1)
        assert [int(message.payload) for message in machine.messages] == [0, 1]

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_a_message_that_the_broker_had_is_delivered_when_a_connack_was_missed(
        self, make: Callable[..., ClientAndBroker], protocol: int
    ) -> None:
        """PUBREL with an identifier that the broker does not know is no error during recovery (MQTT 5 section 3.7.2.1):
        with its PUBREC the broker has accepted the message.
        """
        machine = make(protocol=protocol, subscriptions={"a": 2})
        machine.trouble("the broker is slow")
        machine.publish("b", 2, 0, 1)
        machine.read(1, oldest=True)
        self.a_new_session_that_the_client_was_not_told_of(machine)
        assert machine.deliveries[0].done
        machine.all_is_well_in_the_end()

    def a_message_of_qos_2_that_is_not_released(self, machine: ClientAndBroker) -> None:
        machine.trouble("the broker is slow")
        machine.message_comes("a", 2, 1)
        assert [int(message.payload) for message in machine.messages] == [0]

    def test_a_message_of_qos_2_is_new_to_the_next_process_if_the_broker_had_begun_a_new_session(
        self, make: Callable[..., ClientAndBroker]
    ) -> None:
        """The process dies before it reads the CONNACK that would have said so."""
        machine = make(subscriptions={"a": 2}, journal=True)
        self.a_message_of_qos_2_that_is_not_released(machine)
        machine.restart()
        machine.pass_time(2.0)
        assert machine.client.state == "connecting"
        machine.the_process_dies_and_starts_again(DEATHS[0])
        machine.no_more_trouble()
        machine.message_comes("a", 2, 1)
        assert [int(message.payload) for message in machine.messages] == [1]
        machine.all_is_well_in_the_end()

    def test_a_message_of_qos_2_is_new_to_the_next_process_if_the_lost_session_was_not_recorded(
        self, make: Callable[..., ClientAndBroker]
    ) -> None:
        machine = make(subscriptions={"a": 2}, journal=True)
        self.a_message_of_qos_2_that_is_not_released(machine)
        machine.trouble("the disk is slow")
        machine.restart()
        machine.broker.attentive = True
        machine.pass_time(2.0)
        assert machine.client.state == "connected"
        machine.send_down("a", 2, 1)  # this process does not read it any more
        machine.the_power_is_cut(DEATHS[0])
        machine.no_more_trouble()
        machine.message_comes("a", 2, 1)
        numbers = [int(message.payload) for message in machine.messages]
        assert numbers == list(machine.sent_down)[1:]
        machine.all_is_well_in_the_end()

    def test_an_answer_to_auth_that_comes_too_late_does_not_end_the_connection(
        self, make: Callable[..., ClientAndBroker]
    ) -> None:
        machine = make(profile="event-grid")
        machine.trouble("the broker is slow")
        machine.rotate()
        machine.pass_time(10.0)
        machine.read(1, oldest=True)
        machine.no_more_trouble()
        assert not any(isinstance(event, Disconnected) for event in machine.events)

    def test_a_late_answer_to_auth_accepts_the_token_which_is_refused_with_the_connection(
        self, make: Callable[..., ClientAndBroker]
    ) -> None:
        machine = make(profile="event-grid")
        machine.trouble("the broker is slow")
        machine.rotate()
        machine.trouble("what blocks takes long")
        machine.pass_time(10.0)  # no answer: a handover is being opened
        machine.dismiss(0x87)  # the broker reads AUTH before, and accepts
        machine.no_more_trouble()
        machine.pass_time(10.0)
        assert [event.kind for event in machine.events if isinstance(event, Rotated)] == ["re-authentication"]
        assert machine.client.state == "connected"

    @pytest.mark.parametrize("reason", [0x87, 0x98])
    def test_a_connection_that_ends_as_its_first_token_expires_does_not_cost_the_token_that_took_its_place(
        self, make: Callable[..., ClientAndBroker], reason: int
    ) -> None:
        machine = make(profile="event-grid")
        machine.pass_time(LIFE - 0.5)
        assert [event.kind for event in machine.events if isinstance(event, Rotated)] == ["re-authentication"]
        machine.dismiss(reason)
        machine.pass_time(1.0)
        assert machine.client.state == "connected"
        assert machine.source.requests == 2

    def test_a_refused_token_stays_refused_when_the_connection_on_the_one_before_is_ended_too(
        self, make: Callable[..., ClientAndBroker]
    ) -> None:
        machine = make()
        machine.next_answers([Answer.TOKEN, Answer.TOKEN])
        machine.rotate()
        machine.dismiss(0x87)
        machine.pass_time(10.0)


ClientAndBroker.TestCase.settings = model_settings(examples=50, steps=50)
test_any_order = ClientAndBroker.TestCase
