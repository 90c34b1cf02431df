"""An asyncio client in any order of what programs do with it, and what has to come out of it.

The client is whole. Its broker (model_broker.py) checks every packet, and so that nothing is acknowledged which the
program has not processed. Its network thread (stepped_loop.py) and its event loops (stepped_event_loop.py) run on the
test's thread, in turns that the test gives them, so a task is cancelled at any of its awaits. What two threads do in
the middle of each other's calls is not found here.

MODEL_EXAMPLES=5000 in the environment looks for longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mqtt_token_client import (
    AsyncTokenClient,
    ClientClosed,
    ConfigurationError,
    Delivery,
    DeliveryFailed,
    Event,
    Message,
    OutboxFull,
    RenewalPolicy,
    SubscriptionRefused,
    TokenError,
)
from mqtt_token_client.aio.acks import AckBatch
from mqtt_token_client.aio.messages import Messages
from mqtt_token_client.aio.unclaimed import KEPT_SECONDS
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.runtime.base import current
from mqtt_token_client.mqtt.transport.open import open_transport
from mqtt_token_client.tokens import keeper, on_loop
from tests.unit.device import Source
from tests.unit.model_broker import Answer, ModelBroker, Sent
from tests.unit.model_settings import model_settings
from tests.unit.stepped_event_loop import SteppedEventLoop
from tests.unit.stepped_loop import SteppedThread, replaced
from tests.unit.test_connection_model import STEADY

MAX_QUEUED = 4
QUEUE = 3  # messages of QoS 0 that may wait
LIFE = 120.0
STUBBORN = 3.0  # seconds that a handler goes on after it was cancelled
TOPICS = st.sampled_from(["a", "b"])
VERDICTS = ("done", "done", "done", "fail", "break", "break and fail", "leave", "disconnect", "disconnect by a task")
# Who comes to do something before the next step; None: everybody, until nothing is left to do.
TURNS = st.none() | st.lists(st.sampled_from(["program", "program", "network", "broker"]), max_size=6)


class ProgramError(Exception):
    """What the program raises."""


class Client(AsyncTokenClient):
    """Tells the test which messages it has accepted."""

    accepted: Callable[[int, Sent, Delivery], None]
    next_number: Callable[[], int]

    def publish_nowait(self, topic: str, payload: Any, *, qos: int = 0, **options: Any) -> Delivery:
        delivery = super().publish_nowait(topic, b"%d" % self.next_number(), qos=qos, **options)
        self.accepted(payload, Sent(topic, qos), delivery)
        return delivery


@dataclass(eq=False)
class Consumer:
    """A handler, or a block of ``messages()``."""

    messages: Messages | None = None
    era: int = 0
    last: dict[tuple[str, int], int] = field(default_factory=dict)  # what it got last, by topic and QoS


@dataclass
class Claim:
    """Who gets the messages of a topic: a consumer; else nobody, and they are kept for some seconds or not at all."""

    consumer: Consumer | None = None
    kept: bool = True
    until: float | None = None  # None while no time passes, as the client is disconnected or its loop closed


@dataclass
class Call:
    """What a task of the program does."""

    kind: str
    ends: float  # at the latest
    cancelled: bool = False


def is_new(task: asyncio.Task[Any]) -> bool:
    coroutine = task.get_coro()
    return inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


@pytest.fixture(autouse=True, scope="module")
def _collecting_only_here() -> Iterator[None]:
    """The garbage collector runs only when the test calls it, and looks only at what is new."""
    gc.collect()
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


class Errors(logging.Handler):
    """What the library logs as an error, other than what a handler raised."""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is None or not isinstance(record.exc_info[1], ProgramError):
            self._wrong.append(logging.Formatter().format(record))


class ProgramAndBroker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        self.wrong: list[str] = []
        self.calls: dict[asyncio.Task[Any], Call] = {}
        self.told: dict[asyncio.Future[str], None] = {}  # consumers that wait to be told what to do
        self.abandoned: list[object] = []  # tasks of loops that were closed
        self.eager = False  # consumers do not wait
        self.began_before: set[asyncio.Task[Any]] = set()  # calls of publish(), before the last disconnect()
        self.era = 0  # a new one begins when the client may have forgotten what it has received
        self.claims = {"a": Claim(), "b": Claim()}
        self.default = Consumer()  # on_message
        self.closed = True
        self.sent_down: dict[int, tuple[str, int]] = {}
        self.heard: set[int] = set()
        self.in_hand: dict[int, int] = {}  # messages that are being processed, and the era
        self.processed: dict[int, int] = {}  # and the era
        self.acknowledged: set[int] = set()  # for the session, since the test looked last
        self.first: dict[tuple[str, int], int] = {}  # the last message that was handed out for the first time
        self.lost: set[int] = set()  # with a session
        self.deliveries: dict[int, Delivery] = {}
        self.asked = self.let_in = 0  # awaited calls of publish(), in their order
        self.events: list[Event] = []

    @initialize(
        protocol=st.sampled_from([4, 5]),
        manual_ack=st.booleans(),
        on_message=st.booleans(),
        backwards=st.booleans(),
        at_work=st.booleans(),
    )
    def begin(self, protocol: int, manual_ack: bool, on_message: bool, backwards: bool, at_work: bool) -> None:
        self.manual_ack, self.on_message = manual_ack, on_message
        self.network = SteppedThread()
        self.network.backwards = backwards
        self.broker = ModelBroker(
            five=protocol == 5,
            window=100,
            keepalive=30,
            takeover_fires_will=False,
            now=lambda: self.network.now,
        )
        self.broker.closing = True  # the program may want that at any time
        self.session = self.broker.session
        enter = self.resources.enter_context
        enter(replaced("monotonic", monotonic, lambda: self.network.now))
        enter(patch("mqtt_token_client.aio.client.acquire_network_thread", lambda: self.network))
        enter(patch("mqtt_token_client.aio.client.release_network_thread", lambda: None))
        enter(replaced("open_transport", open_transport, self.broker.open_transport))
        enter(patch.object(AckBatch, "add", self.noting_messages(AckBatch.add)))
        enter(patch.object(keeper, "off_main_thread", lambda function: function()))
        enter(patch.object(on_loop, "threading", SimpleNamespace(Thread=self.make_thread)))
        enter(patch.object(sys, "unraisablehook", self.look_at_unraisable))
        logger, errors = logging.getLogger("mqtt_token_client"), Errors(self.wrong)
        self.resources.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)  # pytest would keep the rest in memory
        logger.addHandler(errors)
        self.resources.callback(logger.removeHandler, errors)
        self.make_client: Callable[[], Client] = lambda: Client(
            "mqtt://127.0.0.1",
            Source(LIFE),
            client_id="device",
            protocol=protocol,
            keepalive=30,
            manual_ack=manual_ack,
            renewal=RenewalPolicy(jitter=0.0, backoff=STEADY),
            backoff=STEADY,
            max_queued=MAX_QUEUED,
            on_message=self.make_handler(self.default) if on_message else None,
            on_event=self.events.append,
        )
        self.start_program()
        self.new_loop()
        if at_work:
            self.quiet()
            self.subscribe("a", "slow", None)
            self.enter_block("b", 1, None)
            self.message_comes("a", 1, 2, None)
            self.message_comes("b", 1, 2, None)

    def make_thread(self, target: Callable[[], None], **_: object) -> SimpleNamespace:
        """A thread that the network thread's turns stand for."""

        def run() -> None:
            current.runtime, runtime = None, current.runtime
            try:
                target()
            finally:
                current.runtime = runtime

        return SimpleNamespace(start=lambda: self.network._later.submit(run))

    def noting_messages(self, add: Callable[[AckBatch, Message], None]) -> Callable[[AckBatch, Message], None]:
        def noting(acks: AckBatch, message: Message) -> None:
            if message.pending_ack is not None:
                self.acknowledged.add(int(message.payload))
            add(acks, message)

        return noting

    def look_at_unraisable(self, problem: Any) -> None:
        if str(problem.exc_value) not in ("no running event loop", "Event loop is closed"):  # of the program's tasks
            self.wrong.append(f"{problem.err_msg} {problem.object}: {problem.exc_value!r}")

    def start_program(self) -> None:
        self.client = self.make_client()
        self.client.accepted = self.accepted
        self.client.next_number = lambda: len(self.broker.sent)
        outbox = self.client._core.session._outbox
        self.broker.was_given_up = lambda identifier: identifier in outbox.ids.unfinished

    def new_loop(self) -> None:
        self.loop = SteppedEventLoop(lambda: self.network.now)
        self.loop.set_exception_handler(lambda _loop, context: self.wrong.append(str(context)))

    # The program's consumers

    async def work(self, consumer: Consumer, message: Message) -> str:
        """Process a message, as the test says; return what to do then."""
        self.handed_out(consumer, message)
        try:
            verdict = await self.tell()
            if verdict.startswith("disconnect"):
                disconnecting: Any = self.disconnect(0.0)
                await (disconnecting if verdict == "disconnect" else asyncio.ensure_future(disconnecting))
            if verdict not in ("fail", "break and fail") or self.manual_ack:
                self.broker.handed_over.add(int(message.payload))
                message.acknowledge()
            return verdict
        finally:
            self.in_hand.pop(int(message.payload), None)

    async def tell(self) -> str:
        if self.eager:
            return "done"
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.told[future] = None
        try:
            return await future
        finally:
            self.told.pop(future, None)

    def handed_out(self, consumer: Consumer, message: Message) -> None:
        number, where = int(message.payload), (message.topic, message.qos)
        if consumer.era != self.era:
            consumer.era = self.era
            consumer.last.clear()
        if consumer.last.get(where, -1) >= number:
            self.wrong.append(f"{message} comes after {consumer.last[where]}")  # order per topic
        consumer.last[where] = number
        if self.in_hand.get(number) == self.era:
            self.wrong.append(f"{message} is handed out to two")
        if self.processed.get(number, self.era) != self.era and not message.duplicate:
            self.wrong.append(f"{message} comes again without DUP")
        if self.processed.get(number) == self.era:
            self.wrong.append(f"{message} comes again, and was processed")
        if number not in self.heard and not self.on_message:  # which has an order of its own
            if self.first.get(where, -1) >= number:
                self.wrong.append(f"{message} comes for the first time after {self.first[where]}")
            self.first[where] = number
        self.heard.add(number)
        self.in_hand[number] = self.era

    def was_processed(self, message: Message) -> None:
        self.broker.handed_over.add(int(message.payload))
        self.processed[int(message.payload)] = self.era

    def make_handler(self, consumer: Consumer, kind: str = "slow") -> Callable[[Message], Any]:
        def plain(message: Message) -> None:
            self.handed_out(consumer, message)
            del self.in_hand[int(message.payload)]
            message.acknowledge()
            self.was_processed(message)

        async def slow(message: Message) -> None:
            try:
                verdict = await self.work(consumer, message)
            except asyncio.CancelledError:
                consumer.last.clear()  # it may get this message again
                if kind != "stubborn":
                    raise
                await asyncio.sleep(STUBBORN)
                raise
            self.was_processed(message)
            if "fail" in verdict:
                raise ProgramError

        return plain if kind == "plain" else slow

    async def block(self, topic: str, readers: int) -> None:
        messages = self.client.messages(topic, queue=QUEUE)
        consumer = Consumer(messages)
        async with messages:
            self.claims[topic] = Claim(consumer)
            try:
                if readers == 1:
                    await self.read(consumer, messages)
                else:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(readers):
                            group.create_task(self.read(consumer, messages))
            except BaseException:
                self.left(topic, messages, kept=True)
                raise
            self.left(topic, messages, kept=False)

    async def read(self, consumer: Consumer, messages: Messages) -> None:
        while True:
            async for message in messages:
                verdict = await self.work(consumer, message)
                if verdict == "leave":
                    return
                if verdict == "break and fail":
                    break
                if "fail" in verdict:
                    raise ProgramError
                self.was_processed(message)  # now the loop asks for the next one, or a new loop begins
                if verdict == "break":
                    break
            else:
                return
            if verdict == "break and fail":
                raise ProgramError

    def left(self, topic: str, messages: Messages, *, kept: bool) -> None:
        if messages.ended:
            return  # by disconnect() or unsubscribe(), which has said what becomes of them
        self.claims[topic] = Claim(kept=kept)
        if not kept:
            self.drop(topic)

    def drop(self, topic: str) -> None:
        """Whatever of a topic has been sent may be acknowledged now."""
        self.broker.handed_over.update(number for number, (name, _) in self.sent_down.items() if name == topic)

    # What the program does

    def call(self, kind: str, coroutine: Coroutine[Any, Any, Any], seconds: float, turns: list[str] | None) -> None:
        self.calls[self.loop.create_task(coroutine)] = Call(kind, self.network.now + seconds)
        self.go_on(turns)

    async def disconnect(self, seconds: float) -> None:
        self.era += 1
        streams = [call for call in self.calls.values() if call.kind == "events"]
        if self.client.state != "closed":  # else they wait for the first connect()
            self.began_before = {task for task, call in self.calls.items() if call.kind == "publish"}
        try:
            await self.client.disconnect(seconds)
        finally:
            self.era += 1
            for call in streams:
                call.ends = self.network.now

    async def connect_client(self, seconds: float) -> None:
        try:
            await self.client.connect(seconds)
        except asyncio.CancelledError:
            self.era += 1  # the client is disconnected
            raise

    @rule(seconds=st.sampled_from([0.0, 0.5, 30.0]), turns=TURNS)
    def connect(self, seconds: float, turns: list[str] | None) -> None:
        self.call("connect", self.connect_client(seconds), seconds + 15.0, turns)

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0]), turns=TURNS)
    def disconnects(self, seconds: float, turns: list[str] | None) -> None:
        self.call("disconnect", self.disconnect(seconds), seconds + 15.0, turns)

    @rule(turns=TURNS)
    def async_with_client(self, turns: list[str] | None) -> None:
        async def program() -> None:
            try:
                async with self.client:
                    if await self.tell() == "fail":
                        raise ProgramError
            finally:
                self.era += 1

        self.era += 1
        self.call("async with client", program(), 1e6, turns)

    @rule(topic=TOPICS, readers=st.sampled_from([1, 1, 2]), turns=TURNS)
    def enter_block(self, topic: str, readers: int, turns: list[str] | None) -> None:
        self.call("block" if readers == 1 else "shared block", self.block(topic, readers), 1e6, turns)

    @rule(topic=TOPICS, kind=st.sampled_from(["plain", "slow", "stubborn"]), turns=TURNS)
    def subscribe(self, topic: str, kind: str, turns: list[str] | None) -> None:
        async def program() -> None:
            claim = self.claims[topic]
            consumer = Consumer() if claim.consumer is None or claim.consumer.messages else claim.consumer
            self.client.subscribe(topic, self.make_handler(consumer, kind), queue=QUEUE)
            self.claims[topic] = Claim(consumer)

        self.call("subscribe", program(), 0.0, turns)

    @rule(topic=TOPICS, turns=TURNS)
    def unsubscribe(self, topic: str, turns: list[str] | None) -> None:
        async def program() -> None:
            self.client.unsubscribe(topic)
            self.claims[topic] = Claim(kept=False)
            self.drop(topic)

        self.call("unsubscribe", program(), 0.0, turns)

    @rule(qos=st.integers(0, 2), timeout=st.sampled_from([None, None, 0.0, 0.5]), turns=TURNS)
    def publish(self, qos: int, timeout: float | None, turns: list[str] | None) -> None:
        async def program() -> None:
            self.asked += 1
            async with asyncio.timeout(timeout):
                await self.client.publish("up", self.asked, qos=qos)

        self.call("publish", program(), 1e6 if timeout is None else timeout, turns)

    @rule(qos=st.integers(0, 2), count=st.integers(1, MAX_QUEUED + 1), turns=TURNS)
    def publish_nowait(self, qos: int, count: int, turns: list[str] | None) -> None:
        with contextlib.suppress(OutboxFull, ClientClosed):
            for _ in range(count):
                self.client.publish_nowait("up", 0, qos=qos)
        self.go_on(turns)

    def accepted(self, asked: int, sent: Sent, delivery: Delivery) -> None:
        if asked and asked <= self.let_in:
            self.wrong.append("a publish() has overtaken one that waited for room")
        self.let_in = asked or self.let_in
        number = len(self.broker.sent)
        self.broker.sent[number] = sent  # no message is sent that was not accepted
        self.deliveries[number] = delivery

    @rule(turns=TURNS)
    def rotate(self, turns: list[str] | None) -> None:
        self.call("rotate", self.client.rotate(), 60.0, turns)

    @rule(turns=TURNS)
    def read_events(self, turns: list[str] | None) -> None:
        async def program() -> None:
            stream, begin = self.client.events(), len(self.events)
            seen = [event async for event in stream]
            if seen != self.events[begin : begin + len(seen)]:
                self.wrong.append(f"events() yields {seen}")

        self.call("events", program(), 1e6, turns)

    @rule(which=st.integers(0, 5), verdict=st.sampled_from(VERDICTS), turns=TURNS)
    def go_on_with(self, which: int, verdict: str, turns: list[str] | None) -> None:
        waiting = [future for future in self.told if not future.done()]
        if waiting:
            waiting[which % len(waiting)].set_result(verdict)
        self.go_on(turns)

    @rule(which=st.integers(0, 9), twice=st.booleans(), turns=TURNS)
    def cancel(self, which: int, twice: bool, turns: list[str] | None) -> None:
        for task in list(self.calls)[which : which + 1]:
            for _ in range(1 + twice):
                if task in self.calls and not task.done():
                    self.calls[task].cancelled = True
                    task.cancel()
                    self.step("program")
        self.go_on(turns)

    @rule(which=st.integers(0, 5), turns=TURNS)
    def cancel_a_handler(self, which: int, turns: list[str] | None) -> None:
        tasks = [task for task in self.loop.tasks() if task.get_name() == "mqtt-token-handler"]
        if tasks:
            tasks[which % len(tasks)].cancel()
        self.go_on(turns)

    # The end of an event loop

    @rule()
    def asyncio_run_ends(self) -> None:
        """Cancel all tasks, wait for them, and close the loop, as asyncio.run does."""
        tasks = self.loop.tasks()
        for task in tasks:
            if task in self.calls:
                self.calls[task].cancelled = True
            task.cancel()
        self.settle()
        for _ in range(100):
            if all(task.done() for task in tasks):
                break
            self.pass_time(1.0)
        assert all(task.done() for task in tasks), "asyncio.run does not end"
        self.settle()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        if self.client.state == "closed":  # else a message that has come meanwhile is being processed
            assert not self.loop.tasks(), "a task is left when asyncio.run ends"
        self.the_loop_is_closed(collect=False)

    @rule(collect=st.booleans())
    def the_loop_is_closed(self, collect: bool) -> None:
        """Close the loop at once: its tasks do nothing any more."""
        self.abandon()
        self.in_hand.clear()
        for consumer in (self.default, *(claim.consumer for claim in self.claims.values())):
            if consumer is not None:
                consumer.last.clear()  # it may get its message again
        if collect:
            self.abandoned.clear()
            gc.collect()
        self.new_loop()

    def abandon(self) -> None:
        while any(is_new(task) for task in self.loop.tasks()):  # Python would warn of such a coroutine
            self.loop.step()
        for task, call in self.calls.items():
            if task.done():
                self.look_at_result(task, call)
        for task in self.loop.tasks():
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.abandoned.append(task)
        self.calls.clear()
        self.told.clear()
        self.loop.close()

    # The broker and the network

    @rule(topic=TOPICS, qos=st.sampled_from([0, 1, 1, 2]), count=st.integers(1, QUEUE + 2), turns=TURNS)
    def message_comes(self, topic: str, qos: int, count: int, turns: list[str] | None) -> None:
        for _ in range(count):
            number = len(self.sent_down)
            if self.broker.publish(number, topic, qos):
                self.sent_down[number] = (topic, qos)
                claim = self.claims[topic]
                if claim.consumer is None and not claim.kept:
                    self.broker.handed_over.add(number)
        self.go_on(turns)

    @rule(kindly=st.booleans(), turns=TURNS)
    def cut(self, kindly: bool, turns: list[str] | None) -> None:
        if lines := [line for line in self.broker.lines if line.open]:
            (self.broker.close if kindly else self.broker.cut)(lines[0])
        self.go_on(turns)

    @rule(turns=TURNS)
    def the_broker_forgets(self, turns: list[str] | None) -> None:
        self.broker.restart()
        self.go_on(turns)

    @rule(answers=st.lists(st.sampled_from([Answer.FORGET, Answer.TROUBLE, Answer.CLOSE]), min_size=1, max_size=2))
    def next_answers(self, answers: list[Answer]) -> None:
        self.broker.answers.extend(answers)

    @rule(what=st.sampled_from(["attentive", "acknowledges", "reachable"]), is_on=st.booleans())
    def change_the_broker(self, what: str, is_on: bool) -> None:
        setattr(self.broker, what, is_on)
        if what == "acknowledges" and is_on:
            self.broker.acknowledge()
        self.settle()

    @rule()
    def quiet(self) -> None:
        """The broker is as it should be, and the program connects."""
        broker = self.broker
        broker.answers.clear()
        broker.attentive = broker.acknowledges = broker.reachable = True
        broker.acknowledge()
        self.settle()
        self.connect(30.0, None)
        self.pass_time(10.0)

    # Time

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 6.0, 50.0]))
    def time_passes(self, seconds: float) -> None:
        self.settle()
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        until = self.network.now + seconds
        while True:
            due = [when for when in (self.network.next_timer(), self.loop.next_timer()) if when is not None]
            due += [claim.until for claim in self.claims.values() if claim.until is not None]
            later = [when for when in due if when > self.network.now]
            if not later or min(later) > until:
                break
            self.network.now = min(later)
            self.settle()
        self.network.now = until
        self.settle()

    def go_on(self, turns: list[str] | None) -> None:
        if turns is None:
            self.settle()
        for who in turns or ():
            self.step(who)

    def step(self, who: str) -> None:
        match who:
            case "program":
                self.loop.step()
            case "network":
                self.network.turn()
            case "broker":
                self.broker.serve()
        self.look()

    def settle(self) -> None:
        """Let everybody do all that there is to do now."""
        while True:
            self.look()
            self.loop.turn()
            self.network.turn()
            self.look()
            if not (self.broker.serve() | self.loop.turn()):
                break
        self.look()
        self.look_at_what_is_left()

    # What holds at any time

    def look(self) -> None:
        self.look_at_the_session()
        self.look_at_claims()
        self.nothing_is_acknowledged_early()
        for task in [task for task in self.calls if task.done()]:
            self.look_at_result(task, self.calls.pop(task))
        assert not self.wrong, "\n".join(self.wrong)

    def look_at_the_session(self) -> None:
        if self.broker.session is not self.session:
            if self.session is not None:
                self.lost.update(number for _, number, _, _ in self.session.outgoing.values())
            self.session = self.broker.session

    def nothing_is_acknowledged_early(self) -> None:
        """Nor asked for: the session, which has its own guard, would not send every acknowledgement that is wrong."""
        early = self.acknowledged - self.broker.handed_over
        assert not early, f"messages {early} are acknowledged before the program is done with them"
        self.acknowledged.clear()

    def look_at_claims(self) -> None:
        """Find out which messages nobody has claimed for so long that they may be acknowledged."""
        now, closed = self.network.now, self.client.state == "closed"
        if closed != self.closed:
            self.closed, self.era = closed, self.era + 1
        last = self.client._own_loop._loop
        time_passes = not closed and last is not None and last() is self.loop
        for topic, claim in self.claims.items():
            if claim.consumer is not None and claim.consumer.messages is not None and claim.consumer.messages.ended:
                claim.consumer = None  # by disconnect(), or with its loop
            if claim.consumer is None and claim.kept:
                claim.until = (claim.until or now + KEPT_SECONDS) if time_passes else None
                if claim.until is not None and claim.until <= now:
                    claim.kept = False
                    self.drop(topic)

    def look_at_result(self, task: asyncio.Task[Any], call: Call) -> None:
        """Only what is documented may come out of a call."""
        if task.cancelled():
            assert call.cancelled, f"{call.kind} was cancelled by nobody"
            return
        error = task.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        allowed: dict[str, tuple[type[BaseException], ...]] = {
            "publish": (DeliveryFailed, ClientClosed, TimeoutError),
            "rotate": (TokenError,),
            "block": (ProgramError, ConfigurationError),  # the filter is in use
            "shared block": (ProgramError, ConfigurationError),
            "subscribe": (ConfigurationError,),
            "async with client": (ProgramError,),
        }
        if error is not None:
            assert isinstance(error, allowed.get(call.kind, ())), f"{call.kind} has raised {error!r}"

    def look_at_what_is_left(self) -> None:
        """Nothing is left to do at this time."""
        self.no_message_vanishes()
        self.memory_is_bounded()
        now = self.network.now
        for call in self.calls.values():
            assert now <= call.ends, f"{call.kind} does not end"
        if self.client._core.runtime is not None or self.client._closings._calls:
            return
        assert not self.began_before & set(self.calls), "disconnect() has left a publish()"
        assert self.network.watched == 0, "a socket is left"
        assert self.network.next_timer() is None, "a timer is left"

    def no_message_vanishes(self) -> None:
        assert self.client.stats.queued == sum(not delivery.done for delivery in self.deliveries.values())
        for number, delivery in self.deliveries.items():
            if delivery.done and delivery.error is None and self.broker.sent[number].qos:
                assert number in self.broker.confirmed, f"message {number} passes as delivered"

    def memory_is_bounded(self) -> None:
        inboxes = self.client._inboxes
        kept = [int(message.payload) for _, _, message in inboxes._unclaimed._kept if message.qos]
        for inbox in (*inboxes._inboxes.values(), inboxes._unclaimed._inbox):
            kept += [int(message.payload) for _, message in inbox._others]
        assert len(kept) == len(set(kept)), "a message waits twice"
        assert len(self.client._core.session.subscriptions._changes) <= 64

    # In the end

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return  # it was never begun
        try:
            self.all_is_well_in_the_end()
        finally:
            self.end()

    def end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        self.abandon()
        self.network.stop()
        self.network.turn()
        self.abandoned.clear()
        self.events.clear()  # whose errors hold on to frames
        self.broker.was_given_up = lambda _: False
        self.claims = {}
        del self.client, self.make_client, self.began_before
        for _ in range(3):  # what a coroutine does when it is collected holds on to others once more
            gc.collect()
        self.resources.close()
        self.broker.end()

    def all_is_well_in_the_end(self) -> None:
        self.eager = True
        for future in list(self.told):
            if not future.done():
                future.set_result("done")
        self.quiet()
        self.pass_time(60.0)
        for topic, claim in self.claims.items():
            if claim.consumer is None:
                self.subscribe(topic, "plain", None)
        self.connect(30.0, None)  # a handler whose task was cancelled begins again
        self.pass_time(60.0)
        assert self.client.state == "connected"
        assert self.broker.session is not None
        given_up = {event.topic_filter for event in self.events if isinstance(event, SubscriptionRefused)}
        assert {"a", "b"} - set(self.broker.session.subscriptions) <= given_up
        self.message_comes("a", 1, 1, None)
        self.message_comes("b", 1, 1, None)
        assert not self.broker.session.outgoing, "a message is not acknowledged"
        missing = {number for number, (_, qos) in self.sent_down.items() if qos} - self.broker.handed_over - self.lost
        assert not missing, f"messages {missing} were never processed"
        assert all(delivery.done for delivery in self.deliveries.values()), "not all messages are delivered"
        assert "publish" not in [call.kind for call in self.calls.values()], "a publish() does not end"
        self.disconnects(0.0, None)
        self.pass_time(30.0)
        assert not self.calls, f"{self.calls} do not end"
        assert not self.loop.tasks()
        assert not self.client._closings._calls
        assert self.loop.next_timer() is None, "a timer is left"


ProgramAndBroker.TestCase.settings = model_settings(examples=60, steps=40)
test_any_order = ProgramAndBroker.TestCase
