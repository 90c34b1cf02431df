"""Messages with a journal in any order of publish, loss, trouble with the disk and death, and what must come of it.

The session and the journal are the real ones. Its thread does not run by itself: the test does what it does, when it
would be awake (SteppedJournal), and can have anything happen in the middle of a commit or of a read. The connection and
the broker are small ones (Link). A few messages are many here, so that most of them are on disk only.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any, cast
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqtt_token_client import ClientClosed, Event, JournalFull, OutboxFull
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import JournalError, MqttTokenError
from mqtt_token_client.journal import writer
from mqtt_token_client.journal.batch import Batch
from mqtt_token_client.journal.channel import _MANY, Channel
from mqtt_token_client.journal.database import _SETTINGS, Database
from mqtt_token_client.journal.disk import DiskJournal
from mqtt_token_client.mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Acknowledgement
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.runtime.base import current
from mqtt_token_client.mqtt.session.delivery import Delivery, Outgoing, RecordedMessage, Stage
from mqtt_token_client.mqtt.session.journal import Bounds, Recorded
from mqtt_token_client.mqtt.session.limits import Limits
from mqtt_token_client.mqtt.session.recorded_outbox import RecordedOutbox
from mqtt_token_client.mqtt.session.session import Session
from mqtt_token_client.stores.folder import sync
from tests.unit.model_settings import model_settings
from tests.unit.stepped_loop import replaced

IN_MEMORY, FEW, PAGE = 6, 3, 4
BURST_SECONDS = 0.1
IDENTIFIER_NOT_FOUND = 0x92
MOST_ROUNDS = 2_000
TICK = 1e-6  # seconds: any clock goes on meanwhile
TOPICS = st.sampled_from(["a", "b"])
QOS = st.sampled_from([0, 1, 1, 2])
SIZES = st.sampled_from([0, 0, 0, 6_000])
KINDS = (PUBACK, PUBREC, PUBCOMP)
DEATHS = ("nothing more is written", "the last commit is written", "it closes its journal")
MEANWHILE = (
    *("publish at 0", "publish at 1", "publish at 2", "replace at 1", "replace at 2", "replace at 0", "publish much"),
    *("the broker reads", "PUBACK comes", "PUBREC comes", "PUBCOMP comes", "the network thread works"),
    *("the connection is lost", "the client connects", "the client is disconnected"),
)
STEPS = st.lists(st.sampled_from(MEANWHILE), min_size=1, max_size=5)


@dataclass(eq=False)
class Sent:
    """A message that the application has published.

    Attributes:
        delivery: its Delivery, None if the application does not hold it, or another one has taken its place.
        number: which the session gave it, in this process.
        stored: whether its Delivery has said that it is on disk.
        is_earlier: whether an earlier process published it.
        written: whether this process has written a PUBLISH of it.
        link: over which it was written last.
        session: of the broker, in which that was.
        forgotten: whether this process may not know that: the last one died.
        arrived: the sessions of the broker in which it has arrived.
        answered: whether the client has read the acknowledgement that ends it; at QoS 0, whether it was written.
        why: it is over: "answered", "replaced", "dropped", "expired", or "" while it waits.
    """

    name: int
    topic: str
    qos: int
    replace: bool
    recorded: bool
    expires_at: float
    delivery: Outgoing | None = None
    number: int = 0
    stored: bool = False
    is_earlier: bool = False
    written: bool = False
    link: Link | None = None
    session: int = 0
    forgotten: bool = False
    arrived: set[int] = field(default_factory=set)
    answered: bool = False
    why: str = ""


class Link:
    """One connection, as the session and the broker see it; it is its own codec.

    Attributes:
        unsent: packets that the operating system has not taken, each with the item that the session gave.
        unread: packets that the broker has not read.
        answers: of the broker, that the client has not read, by their kind. MQTT has each kind in order.
        unacknowledged: messages that were sent over it.
        last: the last message of each kind that was sent over it.
    """

    five = True
    closed = False

    def __init__(self, machine: OutboxAndJournal) -> None:
        self.engine, self.runtime, self._machine = self, machine, machine
        self.unsent: deque[tuple[tuple[Any, ...], Outgoing | None]] = deque()
        self.unread: deque[tuple[Any, ...]] = deque()
        self.answers: dict[int, deque[tuple[int, int, Sent]]] = {kind: deque() for kind in KINDS}
        self.unacknowledged: set[Sent] = set()
        self.last: dict[tuple[int, bool], int] = {}

    def publish(self, *fields: object) -> tuple[object, ...]:
        return ("PUBLISH", *fields)

    def acknowledge(self, kind: int, packet_id: int, reason: int = 0) -> tuple[object, ...]:
        return (kind, packet_id, reason)

    def takes_more(self) -> bool:
        return len(self.unsent) + len(self.unread) < 12

    def write(self, packet: tuple[object, ...]) -> None:
        self.write_item(packet, None)

    def write_item(self, packet: tuple[object, ...], item: Outgoing | None) -> bool:
        self.unsent.append((packet, item))
        self._machine.client_writes(packet)
        return self.takes_more()

    def flush(self, awaited: bool = True) -> None:
        if self._machine.congested:
            return
        items = []
        while self.unsent:
            packet, item = self.unsent.popleft()
            self.unread.append(packet)
            if item is not None:
                items.append(item)
                self._machine.message_of(packet).answered = True
        if items:
            self._machine.session.written(items)

    def unwritten(self) -> list[Outgoing]:
        return [item for _, item in self.unsent if item is not None]


class SteppedChannel(Channel):
    """Its thread sleeps until the test goes on with it.

    Attributes:
        wakes_at: when the thread wakes up by itself; None while it is awake.
        unwritten: changes that are not on disk.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.wakes_at: float | None = None
        self.unwritten: list[tuple[Callable[..., None], Any]] = []
        self._now = now

    def put(self, change: Callable[..., None], *arguments: Any) -> None:
        self.unwritten.append((change, arguments))
        super().put(change, *arguments)

    def written(self) -> None:
        """The disk has everything that the thread has taken."""
        self.unwritten = list(self.changes)

    def sleep(self, seconds: float | None, *, until_next: bool) -> None:
        self._ring_above = 0 if until_next else _MANY
        if len(self.changes) <= self._ring_above:
            self.wakes_at = math.inf if seconds is None else self._now() + max(seconds, TICK)

    def wakes(self) -> bool:
        """Whether the thread is awake now."""
        if self.wakes_at is not None and self._now() < self.wakes_at and self._bell.empty():
            return False
        if self.wakes_at is not None:
            with contextlib.suppress(Empty):
                self._bell.get_nowait()
        self.wakes_at, self._ring_above = None, math.inf
        return True


class SteppedWriter(writer._Writer):
    machine: OutboxAndJournal

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, sqlite3.Error | JournalError):
            self.machine.failure = error  # otherwise an error of the library would pass as one of the disk
        super()._fail(error)


class SteppedJournal(DiskJournal):
    """A journal whose thread is the test's."""

    def __init__(self, machine: OutboxAndJournal, path: Path, commit_every: float, bounds: Bounds) -> None:
        super().__init__(path, commit_every, bounds, machine.of_earlier.append, None)
        self._machine = machine
        self._channel = self.channel = SteppedChannel(lambda: machine.now)
        self.channel.emit = machine.emit
        self.writer = SteppedWriter(self.channel, path, None, "device", commit_every)
        self.writer.machine = machine
        self._recorded = self.writer.open()

    @property
    def recorded(self) -> Recorded:
        assert self._recorded is not None
        return self._recorded

    @property
    def is_failing(self) -> bool:
        """Whether something is in memory that the session takes for being on disk."""
        return self.channel.is_failing or self.writer._database is None

    def remove(self, number: int) -> None:
        self._machine.ends(number)
        super().remove(number)

    def close(self) -> None:
        self._is_closed = True
        self.channel.put(Batch.end, lambda: None)
        while self.writer.batch.ended is None:
            self.writer.work()

    def end(self) -> None:
        """Let go of the file."""
        if self.writer._database is not None:
            self.writer._database.close()


class TroubledDatabase(Database):
    """A file on a disk that fails when the test says so, and is slow enough for anything to happen meanwhile."""

    def __init__(self, machine: OutboxAndJournal, path: Path) -> None:
        super().__init__(path)
        self._machine = machine

    def commit(self, batch: Batch) -> None:
        self._machine.disk_is_used(writes=True)
        super().commit(batch)
        self._machine.journal.channel.written()
        self._machine.disk_was_used(writes=True)

    def page(self, after: int, limit: int) -> tuple[Sequence[RecordedMessage], bool]:
        self._machine.disk_is_used()
        page = super().page(after, limit)
        self._machine.disk_was_used()
        return page

    def load(self) -> Recorded:
        self._machine.disk_is_used()
        return super().load()


@dataclass
class Timer:
    when: float
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


class OutboxAndJournal(RuleBasedStateMachine):
    """Also the runtime of the session."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.sent: list[Sent] = []
        self.waiting: dict[int, Sent] = {}  # recorded, by their numbers
        self.unrecorded: dict[Delivery, Sent] = {}
        self.of_earlier: list[Delivery] = []
        self.timers: list[Timer] = []
        self.calls: deque[Callable[[], None]] = deque()
        self.link: Link | None = None
        self.failure: BaseException | None = None  # which the journal's thread would have swallowed
        self.publishing: Sent | None = None
        self.is_full = False  # for it
        self.made_room: list[Sent] = []
        self.woken = self.is_open = self.is_closing = self.congested = False
        self.thread_is_busy = self.disk_is_slow = self.acts_meanwhile = False
        self.attentive = True  # the broker
        self.trouble = ""  # of the disk
        self.lies = False  # the disk: it writes, and says that it has not
        self.meanwhile: dict[str, Sequence[str]] = {}  # by whether the disk is read or written
        # The broker's
        self.session_number = 1
        self.session_is_known = False  # to the client
        self.to_release: dict[int, Sent] = {}
        self.named: dict[int, Sent] = {}  # messages of QoS 2, by the identifiers that they had last
        self.resources = contextlib.ExitStack()

    @initialize(
        max_inflight=st.sampled_from([1, 3, 20]),
        commit_every=st.sampled_from([0.0, 1.0, 8.0]),
        max_queued=st.sampled_from([12, 30, 1_000]),
        max_bytes=st.sampled_from([50_000, 1_000_000]),
        when_full=st.sampled_from(["reject", "drop_oldest", "drop_newest"]),
        drain_rate=st.sampled_from([None, None, 2.0, 32.0]),
        online=st.booleans(),
        attentive=st.booleans(),
    )
    def start(
        self,
        max_inflight: int,
        commit_every: float,
        max_queued: int,
        max_bytes: int,
        when_full: str,
        drain_rate: float | None,
        online: bool,
        attentive: bool,
    ) -> None:
        self.max_inflight, self.commit_every = max_inflight, commit_every
        self.bounds = Bounds(max_queued, max_bytes, when_full, drain_rate)
        enter = self.resources.enter_context
        self.path = Path(enter(tempfile.TemporaryDirectory())) / "journal"
        enter(replaced("monotonic", monotonic, lambda: self.now))
        enter(patch("mqtt_token_client.journal.writer.Database", lambda path, _: TroubledDatabase(self, path)))
        # Nobody cuts the power of this machine, whose disk may be slow.
        enter(replaced("sync", sync, lambda _: None))
        enter(patch("mqtt_token_client.journal.database._SETTINGS", _SETTINGS.replace("=FULL", "=OFF")))
        enter(patch("mqtt_token_client.journal.database._FIRST_PAGE", PAGE))
        enter(patch("mqtt_token_client.mqtt.session.backlog._PAGE", PAGE))
        enter(patch("mqtt_token_client.mqtt.session.recorded_queue._MAX_IN_MEMORY", IN_MEMORY))
        enter(patch("mqtt_token_client.mqtt.session.recorded_queue._FEW_IN_MEMORY", FEW))
        enter(patch.object(Delivery, "finish", self.finish_once()))
        self.start_process()
        self.attentive = attentive
        if online:
            self.connect(True)

    def finish_once(self) -> Callable[..., None]:
        """Return the method of a Delivery, which is called once only."""
        finish = Delivery.finish

        def checked(delivery: Delivery, error: MqttTokenError | None = None) -> None:
            assert not delivery.done, "a Delivery ends twice"
            finish(delivery, error)
            if (sent := self.unrecorded.pop(delivery, None)) is not None:
                self.end_of(sent)

        return checked

    # One process

    def start_process(self) -> None:
        self.timers.clear()
        self.calls.clear()
        self.of_earlier.clear()
        self.unrecorded.clear()
        self.woken = self.is_open = self.was_disconnected = False
        self.drops_reported = self.drops = 0
        self.first: dict[tuple[int, bool], int] = {}  # the last that was written for the first time
        self.replaceable: dict[str, Sent] = {}
        self.journal = SteppedJournal(self, self.path, self.commit_every, self.bounds)
        self.session = Session(
            max_queued=1, max_inflight=self.max_inflight, emit=self.emit, journal=cast(Any, self.journal)
        )
        assert isinstance(self.session._outbox, RecordedOutbox)
        self.queue = self.session._outbox._recorded

    def emit(self, event: Event) -> None:
        if isinstance(event, JournalFull):
            self.drops_reported += event.count

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + max(seconds, TICK), callback))
        return self.timers[-1]

    def wake(self) -> None:
        self.woken = True

    def settle(self) -> None:
        """Let all threads and the broker do what there is to do now."""
        if self.acts_meanwhile:
            return
        for _ in range(MOST_ROUNDS):
            self.raise_failure()
            if not (self.network_thread_works() or self.journal_works() or self.broker_works()):
                return
        raise AssertionError("a thread spins")

    def raise_failure(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def network_thread_works(self) -> bool:
        if not self.calls and not (self.woken and self.link):
            return False
        if self.thread_is_busy and not self.acts_meanwhile:
            return False
        self.on_network_thread(lambda: None)
        return True

    def on_network_thread(self, function: Callable[[], None]) -> None:
        """Call a function there, and do what is to be done after it."""
        current.runtime = cast(Any, self)
        try:
            function()
            while self.calls:
                self.calls.popleft()()
            if self.link is not None and self.woken:
                self.woken = False
                self.woken |= self.session.send(cast(Any, self.link), Limits())
        finally:
            current.runtime = None

    def journal_works(self) -> bool:
        if self.disk_is_slow or not self.journal.channel.wakes():
            return False
        self.journal.writer.work()
        return True

    def broker_works(self) -> bool:
        link = self.link
        if not self.attentive or self.thread_is_busy or link is None:
            return False
        return self.broker_reads_one() or any(self.answer_comes(kind) for kind in KINDS)

    # The application

    def publish_one(self, topic: str, qos: int, size: int, *, how: str = "", held: bool = True) -> Sent:
        expires_at = self.now + 4.0 if how == "expires" else math.inf
        recorded = qos > 0 or how == "durable"
        sent = Sent(len(self.sent), topic, qos, how == "replace", recorded, expires_at)
        message: Outgoing = RecordedMessage(encode_topic(topic), b"%d " % sent.name + bytes(size), qos, False, b"")
        if how == "expires":
            message = message.expiring(b"\x05\x02\0\0\0\x04", expires_at)
        self.publishing, self.made_room = sent, []
        self.is_full = (
            self.queued >= self.bounds.max_queued
            or self.journal.size >= self.bounds.max_bytes
            or (not recorded and len(self.unrecorded) >= IN_MEMORY)
        )
        self.sent.append(sent)
        try:
            self.session.queue.put(message, durable=how == "durable", replace=how == "replace")
        except OutboxFull:
            assert self.is_full, "a message was rejected, and there was room"
            assert self.bounds.when_full == "reject"
            assert not self.made_room, "a message was rejected, and another one is gone"
            self.sent.pop()
        except ClientClosed:
            assert not self.is_open
            assert self.was_disconnected
            self.sent.pop()
        else:
            self.accepted(sent, message, held=held)
        finally:
            self.publishing = None
        return sent

    def accepted(self, sent: Sent, message: Outgoing, *, held: bool) -> None:
        if message.done:
            assert self.is_full, "a message was dropped, and there was room"
            assert self.bounds.when_full != "reject"
            sent.why = "dropped"
            self.drops += 1
            return
        assert len(self.made_room) == 1 if self.is_full else len(self.made_room) <= 1
        sent.number = message.number
        sent.delivery = message if held or not sent.recorded else None
        if sent.recorded:
            self.waiting[sent.number] = sent
        else:
            self.unrecorded[message] = sent
        if sent.replace:
            old, self.replaceable[sent.topic] = self.replaceable.get(sent.topic), sent
            # One of QoS 2 may wait for the disk with its identifier, and is sent already then.
            assert old is None or old.why or old.written or old.qos == 2, f"message {old.name} was not replaced"

    def ends(self, number: int) -> None:
        """A message is removed from the journal."""
        self.end_of(self.waiting.pop(number))  # KeyError: it ended before

    def end_of(self, sent: Sent) -> None:
        by = self.publishing
        if by is not None:  # nothing else goes on during publish()
            is_replaced = by.replace and by.topic == sent.topic and self.replaceable.get(sent.topic) is sent
            assert is_replaced or (self.is_full and self.bounds.when_full == "drop_oldest")
            # One of QoS 0 may be unsent again, as the connection did not take it.
            assert not (sent.qos and sent.written), "a message was sent, and dropped"
            sent.why = "replaced" if is_replaced else "dropped"
            self.drops += not is_replaced
            self.made_room.append(sent)
        elif sent.answered:
            sent.why = "answered"
        elif self.is_closing:
            assert not sent.recorded
            sent.why = "closed"
        else:
            assert sent.expires_at <= self.now, f"message {sent.name} is given up"
            sent.why = "expired"

    @rule(topic=TOPICS, qos=QOS, size=SIZES, count=st.sampled_from([1, 2, 5, 15]), held=st.booleans())
    def publish(self, topic: str, qos: int, size: int, count: int, held: bool) -> None:
        for _ in range(count):
            self.publish_one(topic, qos, size, held=held)
        self.settle()

    @rule(topics=st.lists(TOPICS, min_size=1, max_size=6), qos=QOS, size=SIZES, held=st.booleans())
    def publish_in_place_of_earlier_ones(self, topics: list[str], qos: int, size: int, held: bool) -> None:
        for topic in topics:
            self.publish_one(topic, qos, size, how="replace", held=held)
        self.settle()

    @rule(topic=TOPICS, qos=QOS, count=st.integers(1, 4))
    def publish_with_an_expiry(self, topic: str, qos: int, count: int) -> None:
        for _ in range(count):
            self.publish_one(topic, qos, 0, how="expires")
        self.settle()

    @rule(topic=TOPICS, qos=QOS)
    def publish_durably(self, topic: str, qos: int) -> None:
        delivery = self.publish_one(topic, qos, 0, how="durable").delivery
        self.settle()
        if delivery is not None and not self.disk_is_slow and not self.journal.is_failing:
            assert delivery.stored or delivery.done, "durable, and not written at once"

    @precondition(lambda self: not self.is_open)
    @rule()
    def open(self) -> None:
        """The client is to connect, and the broker is not there."""
        self.is_open = True
        self.session.open(self.calls.append, self.wake)
        self.settle()

    @precondition(lambda self: self.is_open)
    @rule(reads=st.integers(0, 12))
    def disconnect(self, reads: int) -> None:
        """As the core does: the connection goes first."""
        self.on_network_thread(lambda: self.lose(reads))
        self.is_open, self.was_disconnected, self.is_closing = False, True, True
        self.on_network_thread(self.close)
        self.is_closing = False
        for sent in self.sent:
            if sent.delivery is not None:
                assert sent.delivery.done, "a Delivery does not end"
                if sent.recorded and not sent.why:  # it is sent later, with another one
                    assert "the journal has it" in str(sent.delivery.error)
                    sent.delivery = None
        flushed: list[bool] = []
        self.journal.flush(lambda: flushed.append(True))
        self.settle()
        assert flushed or self.disk_is_slow or self.acts_meanwhile, "disconnect() would wait forever"

    def close(self) -> None:
        self.session.close()

    # The connection and the broker

    @precondition(lambda self: self.link is None)
    @rule(present=st.sampled_from([True, True, False]))
    def connect(self, present: bool) -> None:
        if not self.is_open:
            self.open()
        if not present or not self.session_is_known:
            self.session_number += 1
            self.to_release.clear()
        self.begin_link(present=present and self.session_is_known, rotated=False)
        self.session_is_known = True
        self.settle()

    def begin_link(self, *, present: bool, rotated: bool) -> None:
        self.link = Link(self)
        if not rotated:
            self.connected_at, self.backlog_to, self.drained = self.now, self.queue.last_number, set[Sent]()
        connected = partial(self.session.connected, cast(Any, self.link), "mqtt://broker", rotated=rotated)
        self.woken = True
        self.on_network_thread(lambda: connected(session_present=present))

    @precondition(lambda self: self.link is not None)
    @rule(reads=st.integers(0, 12))
    def lose_the_connection(self, reads: int) -> None:
        self.on_network_thread(lambda: self.lose(reads))
        self.settle()

    def lose(self, reads: int) -> None:
        """The connection ends when the broker has read so many packets more."""
        while self.link is not None and reads and self.broker_reads_one():
            reads -= 1
        link, self.link = self.link, None
        if link is not None:
            link.closed = True
            self.session.connection_lost(cast(Any, link))

    @precondition(lambda self: self.link is not None and not self.congested)
    @rule(kept=st.booleans())
    def rotate(self, kept: bool) -> None:
        """The broker reads the first connection to its end, or not; ``kept`` if the client does not know."""
        assert self.link is not None
        self.session.keep_written()
        self.on_network_thread(self.link.flush)
        if not kept:
            self.session.confirmed()
        self.lose(100)
        self.begin_link(present=True, rotated=True)
        self.settle()

    @rule(congested=st.booleans())
    def the_network(self, congested: bool) -> None:
        self.congested = congested
        if self.link is not None and not congested:
            self.on_network_thread(self.link.flush)
            self.woken = True
        self.settle()

    @rule(attentive=st.booleans())
    def the_broker(self, attentive: bool) -> None:
        self.attentive = attentive
        self.settle()

    @precondition(lambda self: self.link is not None and not self.attentive)
    @rule(count=st.integers(1, 10))
    def the_broker_reads(self, count: int) -> None:
        while count and self.broker_reads_one():
            count -= 1
        self.woken = True
        self.settle()

    @precondition(lambda self: self.link is not None and not self.attentive)
    @rule(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=10))
    def answers_come(self, kinds: list[int]) -> None:
        for kind in kinds:
            self.answer_comes(kind)
        self.settle()

    def message_of(self, packet: Sequence[Any]) -> Sent:
        return self.sent[int(packet[2].split()[0])]

    def client_writes(self, packet: tuple[Any, ...]) -> None:
        self.packet_has_waited_for_the_disk(packet)
        if packet[0] != "PUBLISH":
            assert packet[0] == PUBREL
            return
        sent, link = self.message_of(packet), self.link
        _, _, _, qos, _, packet_id, duplicate, _ = packet
        kind = qos, sent.recorded
        assert link is not None
        assert not sent.why, f"message {sent.name} is {sent.why}, and sent"
        assert sent.link is not link, "a message is sent twice over one connection"
        assert duplicate or sent.expires_at > self.now, "a message is sent that has expired"
        assert link.last.get(kind, -1) < sent.name, "a message is sent after a later one"
        link.last[kind] = sent.name
        is_first = sent.link is None
        if is_first:
            assert self.first.get(kind, -1) < sent.name, "a message is sent for the first time after a later one"
            self.first[kind] = sent.name
        elif qos and sent.session == self.session_number and not sent.forgotten:
            assert duplicate, "a message is sent again without DUP"
        sent.written, sent.link, sent.session = True, link, self.session_number
        if qos:
            link.unacknowledged.add(sent)
            assert len(link.unacknowledged) <= self.max_inflight
        if qos == 2:
            self.named[packet_id] = sent
        rate = self.bounds.drain_rate
        # One of QoS 0 that an earlier connection did not write may be sent after the end of the backlog.
        if rate is not None and sent.number <= self.backlog_to and (qos or is_first):
            self.drained.add(sent)  # once, as a rotation makes no backlog
            burst = max(1.0, rate * BURST_SECONDS)
            assert len(self.drained) <= burst + rate * (self.now - self.connected_at), "the backlog is sent too fast"

    def packet_has_waited_for_the_disk(self, packet: tuple[Any, ...]) -> None:
        """Otherwise a power cut now would have the next process send a message of QoS 2 twice, or lose it. See the
        table in journal.py of the session.
        """
        if self.journal.is_failing:
            return  # everything goes on in memory
        unwritten = self.journal.channel.unwritten
        if packet[0] == "PUBLISH":
            assert Batch.lose_session not in [change for change, _ in unwritten], "PUBLISH does not wait for the disk"
        packet_id, stage = (packet[1], Stage.RELEASED) if packet[0] == PUBREL else (packet[5], Stage.SENT)
        sent = self.named.get(packet_id) if packet[0] == PUBREL else self.message_of(packet)
        if sent is not None and sent.qos == 2:
            mark = Batch.mark, (sent.number, packet_id, stage)
            assert mark not in unwritten, f"a packet of message {sent.name} does not wait for the disk"

    def broker_reads_one(self) -> bool:
        link = self.link
        if link is None or not link.unread:
            return False
        packet = link.unread.popleft()
        if packet[0] == PUBREL:
            packet_id = packet[1]
            reason = 0 if self.to_release.pop(packet_id, None) else IDENTIFIER_NOT_FOUND
            if packet_id in self.named:
                link.answers[PUBCOMP].append((packet_id, reason, self.named[packet_id]))
            return True
        sent, packet_id = self.message_of(packet), packet[5]
        if sent.qos == 2:
            if packet_id not in self.to_release:
                assert self.session_number not in sent.arrived, "a message of QoS 2 arrives twice"
                self.to_release[packet_id] = sent
            assert self.to_release[packet_id] is sent, "the broker takes a message for another one, and drops it"
        sent.arrived.add(self.session_number)
        if sent.qos:
            link.answers[PUBACK if sent.qos == 1 else PUBREC].append((packet_id, 0, sent))
        return True

    def answer_comes(self, kind: int) -> bool:
        link = self.link
        if link is None or not link.answers[kind]:
            return False
        packet_id, reason, sent = link.answers[kind].popleft()
        if kind != PUBREC:
            sent.answered = True
            link.unacknowledged.discard(sent)

        def receive() -> None:
            self.session.receive(cast(Any, link), Acknowledgement(kind, packet_id, reason, ""))
            link.flush()

        self.woken = True
        self.on_network_thread(receive)
        return True

    # The disk

    @rule(trouble=st.sampled_from(["", "it is full", "it fails"]), lies=st.booleans())
    def the_disk(self, trouble: str, lies: bool) -> None:
        self.trouble, self.lies = trouble, lies and not trouble
        self.settle()

    def disk_is_used(self, *, writes: bool = False) -> None:
        if self.trouble == "it fails" or (writes and self.trouble):
            self.fail()

    def fail(self) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    def disk_was_used(self, *, writes: bool = False) -> None:
        steps = self.meanwhile.pop("it is written" if writes else "it is read", ())
        if steps and not self.acts_meanwhile:
            self.acts_meanwhile = True
            try:
                for step in steps:
                    self.act(step)
            except Exception as failure:  # noqa: BLE001 - raised by settle()
                self.failure = failure
            finally:
                self.acts_meanwhile = False
        if writes and self.lies:
            self.lies = False
            self.fail()

    @rule(slow=st.booleans())
    def the_disk_is_slow(self, slow: bool) -> None:
        self.disk_is_slow = slow
        self.settle()

    @precondition(lambda self: self.disk_is_slow)
    @rule(count=st.integers(1, 4))
    def the_journal_works(self, count: int) -> None:
        self.disk_is_slow = False
        while count and self.journal_works():
            count -= 1
        self.disk_is_slow = True
        self.settle()

    @rule(use=st.sampled_from(["it is read", "it is written"]), steps=STEPS)
    def when_the_disk_is_used_next(self, use: str, steps: list[str]) -> None:
        self.meanwhile[use] = steps

    @rule(hows=st.lists(st.sampled_from(["", "", "replace", "durable"]), min_size=6, max_size=14), qos=QOS, steps=STEPS)
    def much_is_published_in_an_outage(self, hows: list[str], qos: int, steps: list[str]) -> None:
        """The thick of it: something happens while messages are read that are on disk only."""
        self.thread_is_busy = self.disk_is_slow = False
        self.trouble = ""
        self.on_network_thread(lambda: self.lose(0))
        for how in hows:
            self.publish_one("a" if how else "b", qos, 0, how=how)
        self.time_passes(64.0)
        self.meanwhile["it is read"] = steps
        if self.link is None:
            self.connect(True)

    @rule(busy=st.booleans())
    def the_network_thread_is_busy(self, busy: bool) -> None:
        self.thread_is_busy = busy
        self.settle()

    def act(self, step: str) -> None:
        match step.split():
            case "publish", "at", qos:
                self.publish_one("a", int(qos), 0)
            case "replace", "at", qos:
                self.publish_one("a", int(qos), 0, how="replace")
            case "publish", "much":
                for _ in range(8):
                    self.publish_one("b", 1, 0, held=False)
            case "the", "broker", "reads":
                self.broker_reads_one()
            case ("PUBACK" | "PUBREC" | "PUBCOMP") as kind, "comes":
                self.answer_comes({"PUBACK": PUBACK, "PUBREC": PUBREC, "PUBCOMP": PUBCOMP}[kind])
            case "the", "network", "thread", "works":
                self.network_thread_works()
            case "the", "connection", "is", "lost":
                self.on_network_thread(lambda: self.lose(0))
            case "the", "client", "connects":
                if self.link is None:
                    self.connect(True)
            case "the", "client", "is", "disconnected":
                if self.is_open:
                    self.disconnect(0)

    # The process

    @rule(how=st.sampled_from(DEATHS), reads=st.integers(0, 12))
    def the_process_ends_and_another_begins(self, how: str, reads: int) -> None:
        while reads and self.broker_reads_one():
            reads -= 1
        self.link = None
        self.end_process(how)
        self.start_process()
        if self.journal.recorded.count != len(self.on_disk):  # it could not be read, and waits for the next process
            assert not self.journal.recorded.count
            self.waiting = {}
            self.session_is_known = False  # it knows none of the identifiers that are in use
        self.settle()

    def end_process(self, how: str) -> None:
        self.note_what_is_stored()
        journal, self.meanwhile = self.journal, {}
        if how == "it closes its journal":
            journal.close()
            knows_all = journal.writer._database is not None
        else:
            knows_all = not journal.is_failing and journal.writer._is_loaded
            database = journal.writer._database
            if how == "the last commit is written" and database is not None and not self.trouble:
                journal.channel.take(journal.writer.batch)
                Database.commit(database, journal.writer.batch)
        self.raise_failure()
        journal.end()
        self.take_over(knows_all=knows_all, is_clean=how == "it closes its journal" and knows_all)

    def take_over(self, *, knows_all: bool, is_clean: bool) -> None:
        """See what the next process has. If the last one took for being on disk what was not, the broker's session ends
        too: both sides would disagree on its identifiers.
        """
        self.session_is_known &= knows_all
        file = Database(self.path)
        self.on_disk = {self.message_of((0, 0, message.payload)): message for message, _ in file.ages()}
        assert file.counters.count == len(self.on_disk)
        file.close()
        for sent in self.waiting.values():
            assert sent in self.on_disk or not (sent.stored or is_clean), f"message {sent.name} is not on disk"
        for sent in self.sent:
            sent.delivery = None
            if sent in self.on_disk:
                assert not (is_clean and sent.why), f"message {sent.name} is {sent.why}, and on disk"
                row = self.on_disk[sent]
                sent.forgotten = not knows_all or (sent.qos == 1 and row.stage is Stage.NEW)
                sent.why, sent.number, sent.is_earlier, sent.written, sent.answered = "", row.number, True, False, False
                if row.packet_id and sent.qos == 2:
                    self.named[row.packet_id] = sent
            elif not sent.why:
                sent.why = "gone"
        self.waiting = {message.number: sent for sent, message in self.on_disk.items()}

    # Time

    @rule(seconds=st.sampled_from([0.03125, 0.25, 0.5, 1.0, 4.0, 64.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.next_deadline()) <= until:
            self.now = max(self.now, due)
            for timer in [timer for timer in self.timers if timer.when <= self.now]:
                self.timers.remove(timer)
                if timer.callback is not None:
                    self.calls.append(timer.callback)
            self.settle()
        self.now = until
        self.settle()

    def next_deadline(self) -> float:
        deadlines = [timer.when for timer in self.timers]
        wakes_at = self.journal.channel.wakes_at
        if wakes_at is not None and not self.disk_is_slow:
            deadlines.append(wakes_at)
        return min(deadlines, default=math.inf)

    # What holds at any time

    @property
    def queued(self) -> int:
        return len(self.waiting) + len(self.unrecorded)

    def note_what_is_stored(self) -> None:
        for sent in self.waiting.values():
            if sent.delivery is not None and not sent.delivery.done and sent.delivery.stored:
                sent.stored = True

    @invariant()
    def the_numbers_are_right(self) -> None:
        """An application sees by them whether it may end, or has to wait."""
        assert self.session.stats.queued == self.queued
        earlier = sum(sent.is_earlier for sent in self.waiting.values())
        assert self.queued - earlier <= self.bounds.max_queued

    @invariant()
    def memory_is_bounded(self) -> None:
        """The outage may take weeks, and the device has little."""
        # One of QoS 0 has no identifier, so that a new process reads those that were sent beside a page.
        recorded = sum(message.disk is not None and message.qos > 0 for message in self.queue.new)
        assert recorded <= max(IN_MEMORY, FEW + PAGE) + self.max_inflight
        # One that is not recorded may replace one that is, in a full journal too.
        unrecorded = sum(message.disk is None for message in self.queue.new)
        assert unrecorded <= IN_MEMORY + len(self.replaceable)
        for sent in self.waiting.values():
            message = sent.delivery
            if isinstance(message, RecordedMessage) and message.spilled and message.disk is True:
                assert not message.payload

    @invariant()
    def each_delivery_says_what_became_of_its_message(self) -> None:
        """The application stores no copy of what was delivered, and repeats what has failed."""
        self.note_what_is_stored()
        for sent in self.sent:
            delivery = sent.delivery
            if delivery is not None:
                assert delivery.done == bool(sent.why)
                assert sent.why in ("", "answered") if delivery.error is None else sent.why in str(delivery.error)

    @invariant()
    def each_message_of_an_earlier_process_is_reported_once(self) -> None:
        """Nobody else knows what became of it."""
        reported = Counter(cast(Outgoing, delivery).number for delivery in self.of_earlier)
        assert not reported or max(reported.values()) == 1
        if not self.was_disconnected:  # which reports all that are in memory
            earlier = {sent.number for sent in self.sent if sent.is_earlier and sent.why not in ("", "gone")}
            assert earlier >= reported.keys()

    # In the end

    def teardown(self) -> None:
        try:
            if hasattr(self, "session"):  # otherwise it was never begun
                self.all_is_sent_in_the_end()
        finally:
            if hasattr(self, "journal"):
                self.journal.end()
            self.resources.close()

    def all_is_sent_in_the_end(self) -> None:
        self.trouble, self.lies, self.meanwhile = "", False, {}
        self.thread_is_busy = self.disk_is_slow = False
        self.attentive = True
        self.the_network(False)
        if not self.journal.writer._is_loaded:
            self.time_passes(64.0)
        if not self.journal.writer._is_loaded:  # the file has messages of an earlier process
            self.the_process_ends_and_another_begins(DEATHS[2], 0)
        if self.link is None:
            self.connect(True)
        for _ in range(200):
            if self.queued:
                self.time_passes(4.0)
        assert not self.queued, "something stands still"
        for check in (self.the_numbers_are_right, self.each_delivery_says_what_became_of_its_message):
            check()
        for sent in self.sent:
            if sent.qos and sent.why == "answered":
                assert sent.arrived, f"message {sent.name} passes as delivered"
        self.time_passes(64.0)
        assert not self.session._outbox.ids._in_use, "an identifier is not free again"
        database = self.journal.writer._database
        assert database is not None, "the journal does not recover"
        assert not database.counters.count, "the journal keeps what is done"


OutboxAndJournal.TestCase.settings = model_settings(examples=80, steps=40)
test_any_order = OutboxAndJournal.TestCase
