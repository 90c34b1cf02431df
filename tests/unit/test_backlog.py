"""Many messages with a journal: few of them are in memory, they keep their order, and bounds hold."""

from __future__ import annotations

import gc
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import (
    Delivery,
    DeliveryFailed,
    Disconnected,
    JournalFailed,
    JournalFull,
    JournalRecovered,
    OutboxFull,
)
from mqtt_token_client.journal.batch import Batch
from mqtt_token_client.journal.database import Database
from mqtt_token_client.journal.disk import DiskJournal
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import Outgoing, RecordedMessage
from mqtt_token_client.mqtt.session.journal import Bounds
from mqtt_token_client.mqtt.session.recorded_queue import RecordedQueue
from tests.unit import packets
from tests.unit.device import Device, Make
from tests.unit.journals import Open, disconnect, journal, make
from tests.unit.scripted_broker import Peer
from tests.unit.scripted_journal import ScriptedJournal

__all__ = ["journal", "make"]


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten messages are in memory, and ten are read at once."""
    monkeypatch.setattr("mqtt_token_client.mqtt.session.recorded_queue._MAX_IN_MEMORY", 10)
    monkeypatch.setattr("mqtt_token_client.mqtt.session.recorded_queue._FEW_IN_MEMORY", 10)
    monkeypatch.setattr("mqtt_token_client.mqtt.session.backlog._PAGE", 10)
    monkeypatch.setattr("mqtt_token_client.journal.database._FIRST_PAGE", 10)


def publish(device: Device, numbers: range, replace: bool = False) -> list[Delivery]:
    return [device.client.publish("t", b"%d" % number, qos=1, replace=replace) for number in numbers]


def payloads(peer: Peer, count: int) -> list[int]:
    """Of the messages that arrive, each acknowledged."""
    found = []
    for message in (peer.expect(packets.PUBLISH) for _ in range(count)):
        found.append(int(message.payload))
        peer.acknowledge(packets.PUBACK, message.packet_id)
    return found


def in_memory(device: Device) -> int:
    queue = device.client._core.session.queue
    assert isinstance(queue, RecordedQueue)
    return len(queue.new)


def flushed(journal: DiskJournal, device: Device) -> None:
    done: list[bool] = []
    journal.flush(lambda: done.append(True))
    device.until(lambda: bool(done))


class TestMessagesOfThisProcess:
    def test_are_sent_in_their_order(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal(), max_inflight=7)
        publish(device, range(50))
        assert in_memory(device) == 10
        peer = device.start()
        publish(device, range(50, 60))
        assert payloads(peer, 60) == list(range(60))
        device.until(lambda: device.client.stats.queued == 0)

    def test_that_are_published_after_the_others_were_read_stay_in_memory(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal())
        publish(device, range(20))
        peer = device.start()
        payloads(peer, 20)
        device.until(lambda: device.client.stats.queued == 0)
        publish(device, range(20, 25))
        assert payloads(peer, 5) == list(range(20, 25))

    def test_report_to_those_who_hold_their_deliveries_and_to_callbacks(self, make: Make, journal: Open) -> None:
        device, called = make(5, journal=journal()), list[Delivery]()
        held = publish(device, range(30))
        for delivery in publish(device, range(30, 40)):
            delivery.add_done_callback(called.append)
        del delivery
        gc.collect()
        peer = device.start()
        payloads(peer, 40)
        device.until(lambda: len(called) == 10)
        assert all(delivery.done and delivery.error is None for delivery in held)

    def test_are_forgotten_when_done_though_a_wait_for_them_has_timed_out(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal())
        delivery = publish(device, range(1))[0]
        for _ in range(2):
            with pytest.raises(TimeoutError):
                delivery.wait(0)
        gone = weakref.ref(delivery)
        del delivery
        payloads(device.start(), 1)
        device.until(lambda: gone() is None)

    def test_take_no_memory_once_they_are_on_disk(self, make: Make, journal: Open) -> None:
        opened = journal()
        device = make(5, journal=opened)
        held = publish(device, range(30))[-1]
        flushed(opened, device)
        queue = device.client._core.session.queue
        assert isinstance(queue, RecordedQueue)
        assert list(queue._backlog._deliveries.values()) == [held]
        assert held.payload == b""  # type: ignore[attr-defined]

    def test_keep_their_payloads_once_they_were_read_though_a_damaged_file_has_them_written_again(
        self, make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = journal()
        device = make(5, journal=opened, max_inflight=7)
        held = publish(device, range(20))
        flushed(opened, device)
        peer = device.start()
        assert payloads(peer, 10) == list(range(10))
        sent = [peer.expect(packets.PUBLISH) for _ in range(7)]
        assert [int(one.payload) for one in sent] == list(range(10, 17))
        committing, failed, written = Database.commit, list[Database](), set[int]()

        def find_damage(database: Database, batch: Batch) -> None:
            if len(failed) < 3:
                failed.append(database)
                raise sqlite3.DatabaseError("database disk image is malformed")
            committing(database, batch)
            written.update(batch.appended)

        monkeypatch.setattr(Database, "commit", find_damage)
        opened.flush(lambda: None)
        device.until(lambda: written == set(range(11, 21)))
        flushed(opened, device)
        assert [int(one.payload) for one in held[10:]] == list(range(10, 20))  # type: ignore[attr-defined]
        for one in sent:
            peer.acknowledge(packets.PUBACK, one.packet_id)
        assert payloads(peer, 3) == list(range(17, 20))

    def test_fail_for_their_holders_when_the_client_is_closed_and_are_sent_later(
        self, make: Make, journal: Open, pool: ThreadPoolExecutor
    ) -> None:
        device = make(5, journal=journal())
        held = publish(device, range(30))
        disconnect(device, device.start(), pool)
        assert all(isinstance(delivery.error, DeliveryFailed) for delivery in held)
        peer = device.start(session_present=True)
        assert sorted(set(payloads(peer, 30))) == list(range(30))


def kept_for_the_disk(journal: DiskJournal) -> int:
    """Bytes of the messages that the journal's thread has not looked at yet."""
    changes = list(journal._channel.changes)
    return sum(len(arguments[1]) for change, arguments in changes if change is Batch.append)


class FullDisk:
    """Commits fail until there is room.

    Attributes:
        has_room: whether they succeed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_room = False
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 0.01)
        monkeypatch.setattr("mqtt_token_client.journal.writer._LONGEST_RETRY", 0.01)
        committing = Database.commit

        def commit(database: Database, batch: Batch) -> None:
            if not self.has_room:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            committing(database, batch)

        monkeypatch.setattr(Database, "commit", commit)


class TestWhileTheDiskIsFull:
    def test_more_messages_than_belong_in_memory_are_sent_in_their_order(
        self, make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = journal()
        device = make(5, journal=opened, max_inflight=7)
        disk = FullDisk(monkeypatch)
        held = publish(device, range(50))
        peer = device.start()
        assert payloads(peer, 50) == list(range(50))
        device.until(lambda: device.client.stats.queued == 0)
        assert all(one.done and one.error is None for one in held)
        disk.has_room = True
        device.until(lambda: bool(device.reported(JournalRecovered)))
        opened.close()
        assert make(5, journal=journal()).client.stats.queued == 0

    def test_what_is_in_memory_counts_as_a_part_of_max_bytes_until_it_is_acknowledged(
        self, make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = journal(max_bytes=1_000_000)
        device = make(5, journal=opened)
        disk = FullDisk(monkeypatch)
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 60.0)
        monkeypatch.setattr("mqtt_token_client.journal.writer._LONGEST_RETRY", 60.0)
        device.client.publish("t", bytes(110_000), qos=1)
        flushed(opened, device)
        while device.client.stats.queued < 10:
            device.client.publish("t", bytes(110_000), qos=1)
        with pytest.raises(OutboxFull, match="max_bytes"):
            device.client.publish("t", bytes(110_000), qos=1)
        peer = device.start()
        for _ in range(10):
            peer.acknowledge(packets.PUBACK, peer.expect(packets.PUBLISH).packet_id)
        device.until(lambda: device.client.stats.queued == 0)
        room = threading.Event()
        device.client._core.session.queue.when_room(room.set)
        device.until(room.is_set)
        device.client.publish("t", bytes(110_000), qos=1)
        disk.has_room = True

    @pytest.mark.parametrize("others", [1, 11], ids=["in memory", "behind others"])
    def test_what_was_replaced_takes_no_memory(
        self, make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch, others: int
    ) -> None:
        opened = journal(max_bytes=1_000_000)
        device = make(5, journal=opened)
        disk = FullDisk(monkeypatch)
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 60.0)
        monkeypatch.setattr("mqtt_token_client.journal.writer._LONGEST_RETRY", 60.0)
        publish(device, range(others))
        flushed(opened, device)
        for _ in range(5):
            for _ in range(20):
                device.client.publish("t", bytes(110_000), qos=1, replace=True)
            device.until(lambda: kept_for_the_disk(opened) < 1_200_000)
        assert device.client.stats.queued == others + 1
        disk.has_room = True

    def test_what_was_taken_from_memory_is_recorded_once_when_there_is_room(
        self, make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = journal()
        device = make(5, journal=opened, max_inflight=7)
        disk = FullDisk(monkeypatch)
        held = publish(device, range(30))
        peer = device.start()
        assert payloads(peer, 10) == list(range(10))
        sent = [peer.expect(packets.PUBLISH) for _ in range(7)]
        assert [int(one.payload) for one in sent] == list(range(10, 17))
        assert not any(one.stored for one in held[10:])
        disk.has_room = True
        held[29].stored.wait(10)
        assert all(one.stored for one in held)
        for one in sent:
            peer.acknowledge(packets.PUBACK, one.packet_id)
        assert [int(peer.expect(packets.PUBLISH).payload) for _ in range(7)] == list(range(17, 24))
        device.until(lambda: device.client.stats.queued == 13)
        opened.close()
        recorded = make(5, journal=journal())
        assert recorded.client.stats.queued == 13
        assert payloads(recorded.start(session_present=True), 13) == list(range(17, 30))

    def test_those_behind_messages_that_are_on_disk_only_wait_for_these(
        self, make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = journal()
        device = make(5, journal=opened)
        publish(device, range(20))
        flushed(opened, device)
        disk = FullDisk(monkeypatch)
        publish(device, range(20, 40))
        device.until(lambda: bool(device.reported(JournalFailed)))
        peer = device.start()
        assert payloads(peer, 10) == list(range(10))
        peer.expect_nothing()
        disk.has_room = True
        assert payloads(peer, 30) == list(range(10, 40))

    def test_a_delivery_that_failed_in_disconnect_stays_failed_when_its_message_is_sent_later(
        self, make: Make, journal: Open, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = make(5, journal=journal())
        FullDisk(monkeypatch)
        held = publish(device, range(30))
        disconnect(device, device.start(), pool)
        peer = device.start(session_present=True)
        assert sorted(set(payloads(peer, 30))) == list(range(30))
        device.until(lambda: device.client.stats.queued == 0)
        assert all(isinstance(one.error, DeliveryFailed) for one in held)


class TestMessagesOfAnEarlierProcess:
    def test_are_read_as_the_window_moves(self, make: Make, journal: Open) -> None:
        first = journal()
        publish(make(5, journal=first), range(100))
        first.close()
        done: list[Delivery] = []
        second = journal(on_delivery=done.append)
        device = make(5, journal=second, max_inflight=5)
        assert (device.client.stats.queued, in_memory(device)) == (100, 10)
        publish(device, range(100, 110))
        peer = device.start()
        assert payloads(peer, 110) == list(range(110))
        device.until(lambda: device.client.stats.queued == 0)
        assert len(done) == 100
        second.close()
        assert make(5, journal=journal()).client.stats.queued == 0


def test_those_on_disk_are_read_though_many_of_qos_0_wait_in_memory(make: Make, journal: Open) -> None:
    """They may come as fast as the connection takes them."""
    device = make(5, journal=journal())
    for _ in range(10):
        device.client.publish("t", b"", qos=0)
    publish(device, range(3))
    queue = device.client._core.session.queue
    assert isinstance(queue, RecordedQueue)
    assert in_memory(device) == 10

    def all_are_in_memory() -> bool:
        queue.read_backlog()
        return in_memory(device) == 13

    device.until(all_are_in_memory)


def test_none_are_read_while_many_are_in_memory_though_some_of_qos_0_have_been_sent_and_are_not_done(
    make: Make, journal: Open
) -> None:
    device = make(5, journal=journal())
    for _ in range(5):
        device.client.publish("t", b"", qos=0)
    queue = device.client._core.session.queue
    assert isinstance(queue, RecordedQueue)
    for _ in range(5):
        queue.new.popleft()
    publish(device, range(20))
    assert in_memory(device) == 10
    queue.read_backlog()
    assert not queue._backlog.is_reading


class TestBounds:
    def test_a_message_of_qos_0_that_is_dropped_makes_no_room_in_the_file(self, make: Make, journal: Open) -> None:
        opened = journal(when_full="drop_oldest", max_bytes=100_000)
        device = make(5, journal=opened)
        for _ in range(10):
            device.client.publish("t", b"", qos=0)
        for _ in range(20):
            device.client.publish("t", bytes(20_000), qos=1)
            flushed(opened, device)
        assert opened.size < 150_000

    def test_more_than_max_queued_is_rejected(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal(max_queued=20))
        publish(device, range(20))
        with pytest.raises(OutboxFull, match="max_queued"):
            publish(device, range(1))

    def test_more_than_max_bytes_is_rejected(self, make: Make, journal: Open) -> None:
        opened = journal(max_bytes=100_000)
        device = make(5, journal=opened)
        device.client.publish("t", bytes(100_000), qos=1)
        flushed(opened, device)
        with pytest.raises(OutboxFull, match="max_bytes"):
            publish(device, range(1))

    @pytest.mark.parametrize("connected", [True, False])
    def test_whoever_waits_for_room_has_it_when_the_file_has_become_smaller(
        self, make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch, connected: bool
    ) -> None:
        opened = journal(max_bytes=100_000)
        commit, may_commit = Database.commit, threading.Event()
        may_commit.set()

        def wait_and_commit(database: Database, batch: Batch) -> None:
            assert may_commit.wait(10)
            commit(database, batch)

        monkeypatch.setattr(Database, "commit", wait_and_commit)
        device = make(5, journal=opened)
        device.client.publish("t", bytes(100_000), qos=1)
        flushed(opened, device)
        peer = device.start()
        message = peer.expect(packets.PUBLISH)
        may_commit.clear()
        peer.acknowledge(packets.PUBACK, message.packet_id)
        device.until(lambda: device.client.stats.queued == 0)
        if not connected:
            peer.close()
            device.until(lambda: bool(device.reported(Disconnected)))
        room = threading.Event()
        device.client._core.session.queue.when_room(room.set)
        assert not room.is_set()
        may_commit.set()
        device.until(room.is_set)

    def test_the_oldest_that_was_not_sent_is_dropped(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal(max_queued=20, when_full="drop_oldest"))
        deliveries = publish(device, range(23))
        assert [str(one.error) for one in deliveries[:3]] == [
            "the message was dropped, as the journal was full (when_full='drop_oldest')"
        ] * 3
        peer = device.start()
        assert payloads(peer, 20) == list(range(3, 23))
        assert device.reported(JournalFull) == [JournalFull(3)]

    def test_the_oldest_is_dropped_without_a_connection_too_once_none_of_those_in_memory_is_left(
        self, make: Make, journal: Open
    ) -> None:
        device = make(5, journal=journal(max_queued=30, when_full="drop_oldest"))
        device.start().close()
        device.until(lambda: bool(device.reported(Disconnected)))
        deliveries = publish(device, range(30))
        for number in range(30, 55):
            device.until(lambda: in_memory(device) > 0)
            deliveries += publish(device, range(number, number + 1))
        assert [one.done for one in deliveries] == [True] * 25 + [False] * 30
        assert payloads(device.answer(), 30) == list(range(25, 55))

    def test_the_newest_is_dropped(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal(max_queued=20, when_full="drop_newest"))
        deliveries = publish(device, range(23))
        assert [one.done for one in deliveries] == [False] * 20 + [True] * 3
        peer = device.start()
        assert payloads(peer, 20) == list(range(20))
        assert device.reported(JournalFull) == [JournalFull(3)]

    def test_what_was_dropped_is_not_sent_by_the_next_process(self, make: Make, journal: Open) -> None:
        first = journal(max_queued=20, when_full="drop_oldest")
        device = make(5, journal=first)
        publish(device, range(15))
        flushed(first, device)
        publish(device, range(15, 25))
        first.close()
        peer = make(5, journal=journal()).start()
        assert payloads(peer, 20) == list(range(5, 25))


class TestReplace:
    @pytest.mark.parametrize("before", [0, 10], ids=["in memory", "on disk"])
    def test_the_newest_of_a_topic_stays(self, make: Make, journal: Open, before: int) -> None:
        device = make(5, journal=journal())
        publish(device, range(before))
        deliveries = publish(device, range(100, 105), replace=True)
        assert [one.done for one in deliveries] == [True] * 4 + [False]
        assert "replaced by a newer one" in str(deliveries[0].error)
        assert device.client.stats.queued == before + 1
        peer = device.start()
        assert payloads(peer, before + 1) == [*range(before), 104]

    def test_what_was_sent_stays(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal())
        peer = device.start()
        publish(device, range(1), replace=True)
        sent = peer.expect(packets.PUBLISH)
        publish(device, range(1, 2), replace=True)
        assert payloads(peer, 1) == [1]
        peer.acknowledge(packets.PUBACK, sent.packet_id)
        device.until(lambda: device.client.stats.queued == 0)

    def test_what_was_published_before_disconnect_is_replaced_after_the_next_connect(
        self, make: Make, journal: Open, pool: ThreadPoolExecutor
    ) -> None:
        device = make(5, journal=journal(), max_inflight=1)
        peer = device.start()
        publish(device, range(1))
        peer.expect(packets.PUBLISH)
        publish(device, range(1, 2), replace=True)
        disconnect(device, peer, pool)
        device.client.connect(timeout=0)
        publish(device, range(2, 3), replace=True)
        assert payloads(device.answer(), 2) == [0, 2]

    def test_what_was_on_disk_only_in_disconnect_is_replaced_once_it_was_read(
        self, make: Make, journal: Open, pool: ThreadPoolExecutor
    ) -> None:
        device = make(5, journal=journal(), max_inflight=1)
        publish(device, range(25))
        publish(device, range(100, 101), replace=True)
        disconnect(device, device.start(), pool)
        peer = device.start(session_present=True)
        assert payloads(peer, 20) == list(range(20))
        sent = peer.expect(packets.PUBLISH)
        device.until(lambda: in_memory(device) == 5)
        publish(device, range(101, 102), replace=True)
        peer.acknowledge(packets.PUBACK, sent.packet_id)
        assert payloads(peer, 5) == [21, 22, 23, 24, 101]

    def test_what_an_earlier_process_published_stays(self, make: Make, journal: Open, pool: ThreadPoolExecutor) -> None:
        """Those that are in memory, those that are read later, and after disconnect() as well."""
        first = journal()
        device = make(5, journal=first)
        for number in range(25):
            device.client.publish(f"t/{number}", b"%d" % number, qos=1, replace=True)
        first.close()
        second = make(5, journal=journal(), max_inflight=1)
        for number in range(25):
            second.client.publish(f"t/{number}", b"%d" % (100 + number), qos=1, replace=True)
        peer = second.start()
        assert payloads(peer, 10) == list(range(10))
        peer.expect(packets.PUBLISH)
        device.until(lambda: in_memory(second) > 10)
        disconnect(second, peer, pool)
        peer = second.start(session_present=True)
        for number in range(25):
            second.client.publish(f"t/{number}", b"%d" % (200 + number), qos=1, replace=True)
        assert payloads(peer, 40) == [*range(10, 25), *range(200, 225)]

    def test_others_of_the_topic_stay(self, make: Make, journal: Open) -> None:
        device = make(5, journal=journal())
        publish(device, range(2))
        publish(device, range(2, 4), replace=True)
        peer = device.start()
        assert payloads(peer, 3) == [0, 1, 3]


@pytest.mark.parametrize("when_full", ["reject", "drop_newest", "drop_oldest"])
def test_a_message_takes_the_place_of_the_one_it_replaces_though_the_file_is_full(when_full: str) -> None:
    journal, dropped = ScriptedJournal(), list[int]()
    journal.bounds = Bounds(max_bytes=1000, when_full=when_full)
    queue = RecordedQueue(journal, dropped.append)
    other, old, new = (recorded(topic) for topic in ("other", "t", "t"))
    queue.put(other)
    queue.put(old, replace=True)
    journal.size = 1000  # the file becomes smaller at a later commit only
    queue.put(new, replace=True)
    assert list(queue.new) == [other, new]
    assert "replaced by a newer one" in str(old.error)
    assert not dropped


def recorded(topic: str = "t", qos: int = 1) -> RecordedMessage:
    return RecordedMessage(encode_topic(topic), b"x", qos, False, b"")


Pages = list[Callable[[Sequence[RecordedMessage], bool], None]]


def read_by_hand() -> tuple[ScriptedJournal, Pages]:
    """A journal, and what is being read, which gets a page when the test calls it."""
    journal, pages = ScriptedJournal(), Pages()
    journal.read = lambda after, limit, then: pages.append(then)  # type: ignore[method-assign]
    return journal, pages


class TestMessagesThatNoJournalHas:
    """Of QoS 0, and not durable: they are in memory only."""

    @pytest.fixture(params=["reject", "drop_newest", "drop_oldest"])
    def full(self, request: pytest.FixtureRequest) -> RecordedQueue:
        """A queue with as many of them as there may be."""
        journal = ScriptedJournal()
        journal.bounds = Bounds(when_full=request.param)
        queue = RecordedQueue(journal, lambda _: None)
        for _ in range(10):
            queue.put(recorded("t", 0))
        return queue

    def publish(self, queue: RecordedQueue) -> RecordedMessage:
        message = recorded("new", 0)
        if queue._record.bounds.when_full == "reject":
            with pytest.raises(OutboxFull):
                queue.put(message)
        else:
            queue.put(message)
        return message

    def test_are_bounded_in_number(self, full: RecordedQueue) -> None:
        before = list(full.new)
        new = self.publish(full)
        assert len(full) == len(full.new) == 10
        if full._record.bounds.when_full == "drop_oldest":
            assert before[0].done
            assert list(full.new) == [*before[1:], new]
        else:
            assert list(full.new) == before

    def test_take_the_place_of_none_that_is_recorded(self, full: RecordedQueue) -> None:
        waiting = list(full.new)
        full.new.clear()
        kept = recorded()
        full.put(kept)
        full.new.extend(waiting)
        self.publish(full)
        assert list(full.new) == [kept, *waiting]
        assert not kept.done

    def test_keep_no_other_from_being_accepted(self, full: RecordedQueue) -> None:
        one, durable = recorded(), recorded("t", 0)
        full.put(one)
        full.put(durable, durable=True)
        assert not one.done
        assert not durable.done
        assert len(full) == 12

    def test_may_replace_each_other(self, full: RecordedQueue) -> None:
        full.finish(full.new.popleft())
        for _ in range(3):
            full.put(recorded("live", 0), replace=True)
        assert len(full) == 10
        self.publish(full)
        assert len(full) == 10

    def test_have_room_when_one_of_them_is_written(self, full: RecordedQueue) -> None:
        called: list[int] = []
        full.when_room(lambda: called.append(0), 0)
        full.when_room(lambda: called.append(1), 1)
        assert called == [1]
        one = recorded()
        full.put(one)
        full.finish(one)
        assert called == [1]
        full.finish(full.new.popleft())
        assert called == [1, 0]
        full.put(recorded("t", 0))
        assert len(full) == 10


def test_what_was_sent_stays_though_it_is_the_last_one_before_those_on_disk() -> None:
    queue = RecordedQueue(ScriptedJournal(), print)
    for _ in range(9):
        queue.put(recorded("t"))
    sent = recorded("replaceable")
    queue.put(sent, replace=True)
    queue.put(recorded("t"))
    assert len(queue.new) == 10
    queue.new.clear()  # they are in flight
    queue.put(recorded("replaceable"), replace=True)
    assert not sent.done
    assert len(queue) == 12


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("is_done", [False, True], ids=["in flight", "delivered"])
def test_what_was_sent_while_others_are_on_disk_is_not_counted_as_one_of_them(qos: int, is_done: bool) -> None:
    journal, pages = read_by_hand()
    queue = RecordedQueue(journal, print)
    if qos:  # a recorded message is in memory only if it comes before those on disk
        queue.put(recorded("live"), replace=True)
    for _ in range(13 - len(queue)):
        queue.put(recorded())
    on_disk = queue._backlog.count
    if not qos:
        queue.put(recorded("live", 0), replace=True)
    (sent,) = (message for message in queue.new if message.topic_name == "live")
    queue.new.clear()
    if is_done:
        queue.finish(sent)
    queue.put(recorded("live", 0), replace=True)
    assert sent.error is None
    assert queue._backlog.count == on_disk
    assert len(queue) == 14 + (not qos) - is_done
    queue.read_backlog()
    assert len(pages) == 1


def test_the_newest_of_a_topic_is_replaced_though_an_older_one_is_taken_up_after_it() -> None:
    queue = RecordedQueue(ScriptedJournal(), print)
    for _ in range(10):
        queue.put(recorded())
    older, on_disk, new = (recorded("replaceable") for _ in range(3))
    queue.put(on_disk, replace=True)
    older.number, older.replaces = 5, True
    queue.take_up(older)
    queue.put(new, replace=True)
    assert on_disk.done
    assert not older.done


def test_what_was_replaced_while_it_was_read_is_forgotten_once_the_others_are_read() -> None:
    journal, pages = read_by_hand()
    queue = RecordedQueue(journal, print)
    for _ in range(10):
        queue.put(recorded())
    old, new = recorded("replaceable"), recorded("replaceable")
    queue.put(old, replace=True)
    queue.new.clear()  # they are in flight
    queue.read_backlog()
    queue.put(new, replace=True)
    assert queue._backlog._removed == {11}
    pages.pop()([old, new], True)
    queue.read_backlog()
    assert [message.number for message in queue.new] == [12]
    assert not queue._backlog._removed


def test_what_was_replaced_before_others_are_read_takes_no_memory() -> None:
    journal, pages = read_by_hand()
    queue = RecordedQueue(journal, print)
    for _ in range(10):
        queue.put(recorded())
    for _ in range(100):
        last = recorded("replaceable")
        queue.put(last, replace=True)
    assert not queue._backlog._removed
    queue.new.clear()  # they are in flight
    queue.read_backlog()
    pages.pop()([last], True)
    queue.read_backlog()
    assert list(queue.new) == [last]


@pytest.mark.parametrize("end", ["disconnect", "damage"])
def test_a_delivery_that_was_replaced_on_disk_keeps_its_error(end: str) -> None:
    journal, pages = read_by_hand()
    queue = RecordedQueue(journal, print)
    for _ in range(10):
        queue.put(recorded())
    old, new = recorded("replaceable"), recorded("replaceable")
    queue.put(old, replace=True)
    queue.put(new, replace=True)
    if end == "disconnect":
        assert queue.backlog_deliveries() == [new]
    else:
        queue.new.clear()  # they are in flight
        queue.read_backlog()
        pages.pop()([], True)
        queue.read_backlog()
        assert "lost" in str(new.error)
    assert "replaced by a newer one" in str(old.error)


def test_a_delivery_that_failed_in_disconnect_keeps_its_error_when_it_is_replaced() -> None:
    queue = RecordedQueue(ScriptedJournal(), print)
    for _ in range(10):
        queue.put(recorded())
    old = recorded("replaceable")
    queue.put(old, replace=True)
    for held in queue.backlog_deliveries():
        held.finish(DeliveryFailed("the client was closed"))
    queue.put(recorded("replaceable"), replace=True)
    assert str(old.error) == "the client was closed"
    assert len(queue) == 11


@pytest.mark.parametrize("has_both", [False, True], ids=["before the new one was", "after the new one was"])
def test_a_message_that_is_replaced_while_it_is_read_leaves_one_that_is_sent_once(has_both: bool) -> None:
    journal, pages = read_by_hand()
    queue = RecordedQueue(journal, print)
    for _ in range(10):
        queue.put(recorded())
    old, new = recorded("status"), recorded("status")
    queue.put(old, replace=True)
    queue.new.clear()  # they are in flight
    queue.read_backlog()
    queue.put(new, replace=True)
    on_disk = [old, new] if has_both else [old]
    sent: list[Outgoing] = []
    while pages:
        pages.pop()(on_disk, True)
        queue.read_backlog()
        sent += queue.new
        queue.new.clear()
        on_disk = [new]
    assert [message.number for message in sent] == [12]
    assert queue._backlog.count == 0
    assert len(queue) == 11


def test_messages_that_a_damaged_file_has_lost_fail_and_do_not_count_any_more() -> None:
    journal, pages = read_by_hand()
    queue = RecordedQueue(journal, print)
    messages = [recorded() for _ in range(15)]
    for message in messages:
        queue.put(message)
    for _ in range(10):
        queue.finish(queue.new.popleft())
    queue.read_backlog()
    pages.pop()([], True)
    queue.read_backlog()
    assert len(queue) == 0
    assert [str(one.error) for one in messages[10:]] == [
        "the message was lost, as the file of the journal was damaged"
    ] * 5
    assert not queue.backlog_deliveries(), "they have failed, so nobody waits for them any more"
    queue.put(recorded())
    assert len(queue.new) == 1


def test_functions_of_the_right_kind(journal: Open) -> None:
    handler: Callable[[Delivery], object] = print
    assert journal(on_delivery=handler).on_delivery is handler


@pytest.mark.parametrize(("most", "waiting"), [(9_999, 10), (10_000, 11), (10_999, 11), (11_000, 12)])
def test_as_many_bytes_as_may_be_are_in_memory(monkeypatch: pytest.MonkeyPatch, most: int, waiting: int) -> None:
    """Before a message is accepted, as many of its size may wait: 700 bytes of payload, and 300 of everything else."""
    monkeypatch.setattr("mqtt_token_client.mqtt.session.recorded_queue._MAX_IN_MEMORY", 100)
    monkeypatch.setattr("mqtt_token_client.mqtt.session.recorded_queue._MAX_BYTES_IN_MEMORY", most)
    queue = RecordedQueue(ScriptedJournal(), print)
    for _ in range(20):
        queue.put(RecordedMessage(encode_topic("t"), bytes(700), 1, False, b""))
    assert len(queue.new) == waiting


@pytest.mark.parametrize("when_full", ["reject", "drop_newest", "drop_oldest"])
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("waiting", [10, 11])
def test_what_is_on_disk_is_read_while_nothing_is_sent_only_if_the_oldest_may_be_dropped(
    when_full: str, is_open: bool, waiting: int
) -> None:
    journal, _ = read_by_hand()
    journal.bounds = Bounds(when_full=when_full)
    soon: list[Callable[[], None]] = []
    queue = RecordedQueue(journal, print, soon.append)
    for _ in range(waiting):
        queue.put(recorded())
    if is_open:
        queue.open(lambda: None)
    queue._page_arrived()
    assert len(soon) == (when_full == "drop_oldest" and is_open and waiting == 11)
