"""The journal on disk: what the next process finds, when it is written, and what is never written."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from mqtt_token_client import events
from mqtt_token_client.errors import ConfigurationError, DeliveryFailed, JournalLocked
from mqtt_token_client.journal.batch import Batch, Counters
from mqtt_token_client.journal.channel import Channel
from mqtt_token_client.journal.database import Database
from mqtt_token_client.journal.disk import DiskJournal, open_journal
from mqtt_token_client.journal.place import set_aside
from mqtt_token_client.journal.rows import DamagedError
from mqtt_token_client.journal.writer import _Writer
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import RecordedMessage, Stage
from mqtt_token_client.mqtt.session.journal import Recorded
from mqtt_token_client.mqtt.session.journal_events import JournalFailed, JournalRecovered

NEW, SENT, RELEASED = Stage
Open = Callable[..., DiskJournal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox" / "journal"


@pytest.fixture
def reported() -> list[events.Event]:
    return []


@pytest.fixture
def reopen(path: Path, reported: list[events.Event]) -> Iterator[Open]:
    """Opens the journal, after closing the one before."""
    made: list[DiskJournal] = []

    def reopen(client_id: str = "pump", commit_every: float = 0) -> DiskJournal:
        for journal in made:
            journal.close()
        made.append(open_journal(path, commit_every=commit_every))
        made[-1].open(client_id, reported.append)
        return made[-1]

    yield reopen
    for journal in made:
        journal.close()


def message(number: int, topic: str = "t", payload: bytes = b"x", qos: int = 1) -> RecordedMessage:
    one = RecordedMessage(encode_topic(topic), payload, qos, False, b"")
    one.number, one.disk = number, False
    return one


def load(journal: DiskJournal, notify: Callable[[], None] = lambda: None) -> Recorded:
    return journal.load(notify, lambda: None)


def flush(journal: DiskJournal) -> None:
    done = threading.Event()
    journal.flush(done.set)
    assert done.wait(10)


def numbers(path: Path) -> list[int]:
    """Of the messages that are on disk now, in another connection's view."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT number FROM messages ORDER BY number").fetchall()
    connection.close()
    return [number for (number,) in rows]


class TestTheNextProcess:
    def test_finds_messages_with_all_that_belongs_to_them(self, reopen: Open) -> None:
        journal = reopen()
        one = RecordedMessage(encode_topic("pump/17"), b"\x00payload", 2, True, b"\x26\x00\x01a\x00\x01b")
        one.number = 1
        journal.append(one)
        journal.mark(1, 7, SENT)
        recorded = load(reopen())
        (found,) = recorded.messages
        assert (found.topic, found.payload, found.qos, found.retain) == (one.topic, b"\x00payload", 2, True)
        assert (found.properties, found.number, found.packet_id, found.stage) == (one.properties, 1, 7, SENT)
        assert (recorded.last_number, recorded.count) == (1, 1)

    def test_finds_the_order_of_the_pubrecs(self, reopen: Open) -> None:
        journal = reopen()
        for number in (1, 2, 3):
            journal.append(message(number, qos=2))
            journal.mark(number, number, SENT)
        journal.sync()
        journal.mark(3, 3, RELEASED)
        journal = reopen()
        journal.mark(1, 1, RELEASED)
        found = load(reopen()).messages
        assert [(one.number, one.stage) for one in found] == [(2, SENT), (3, RELEASED), (1, RELEASED)]

    def test_does_not_find_what_is_done(self, reopen: Open) -> None:
        journal = reopen()
        journal.append(message(1))
        journal.append(message(2))
        journal.mark(1, 1, SENT)
        journal.mark(2, 2, SENT)
        flush(journal)
        journal.remove(1)
        recorded = load(reopen())
        assert [one.number for one in recorded.messages] == [2]
        assert (recorded.count, recorded.last_number) == (1, 2)

    def test_finds_the_numbers_when_everything_is_done(self, reopen: Open) -> None:
        journal = reopen()
        journal.append(message(5))
        journal.mark(5, 9, SENT)
        flush(journal)
        journal.remove(5)
        recorded = load(reopen())
        assert (recorded.count, recorded.last_number) == (0, 5)

    def test_finds_received_identifiers_that_are_not_released(self, reopen: Open) -> None:
        journal = reopen()
        journal.received(1)
        journal.received(2)
        journal.released(1)
        assert load(reopen()).received == {2}

    def test_finds_every_message_as_new_after_a_lost_session(self, reopen: Open) -> None:
        journal = reopen()
        for number in (1, 2, 3):
            journal.append(message(number, qos=2))
        journal.mark(1, 1, SENT)
        journal.mark(2, 2, RELEASED)
        journal.received(8)
        flush(journal)
        journal.session_lost()
        journal.mark(1, 1, SENT)
        journal.received(9)
        recorded = load(reopen())
        found = {one.number: (one.packet_id, one.stage) for one in recorded.messages}
        assert (found[1], found[2]) == ((1, SENT), (2, NEW))
        assert recorded.received == {9}

    def test_finds_no_identifier_that_was_not_reported_when_its_message_was_written(self, reopen: Open) -> None:
        """The network thread has given it to the message already, and is about to report it after that of an older
        message: the next process would send this one first.
        """
        journal = reopen()
        journal.append(message(1))
        flush(journal)
        newer = message(2)
        newer.packet_id = 8  # as the older one has 7, which is not reported either
        journal.append(newer)
        flush(journal)
        assert [one.packet_id for one in load(reopen()).messages] == [0, 0]

    def test_finds_a_denied_message_without_an_identifier(self, reopen: Open) -> None:
        journal = reopen()
        journal.append(message(1))
        journal.mark(1, 4, SENT)
        flush(journal)
        journal.mark(1, 0, NEW)
        (found,) = load(reopen()).messages
        assert (found.packet_id, found.stage) == (0, NEW)

    def test_finds_a_message_whose_number_takes_more_than_32_bits(self, reopen: Open) -> None:
        journal = reopen()
        number = 2**32 + 1
        journal.append(message(number, qos=2))
        journal.mark(number, 7, RELEASED)
        flush(journal)
        recorded = load(reopen())
        assert [(one.number, one.packet_id, one.stage) for one in recorded.messages] == [(number, 7, RELEASED)]
        assert (recorded.last_number, recorded.count) == (number, 1)

    @pytest.mark.parametrize("is_done", [False, True], ids=["that waits", "that is done"])
    def test_is_written_for_an_earlier_version_and_reads_its_file_while_the_numbers_are_small(
        self, reopen: Open, path: Path, *, is_done: bool
    ) -> None:
        journal = reopen()
        journal.append(message(5))
        journal.mark(5, 9, SENT)
        flush(journal)
        if is_done:
            journal.remove(5)
        journal.close()
        table, count = ("state", 0) if is_done else ("messages", 1)
        with sqlite3.connect(path) as connection:
            ((packed,),) = connection.execute(f"SELECT counters FROM {table}")
            counters = struct.unpack(">IHIQd", packed)
            assert counters[:3] == (count, 0, 5)
            of_earlier_version = struct.pack(">IHIQd", count, 9, *counters[2:])  # with the last packet identifier
            connection.execute(f"UPDATE {table} SET counters=?", (of_earlier_version,))
        connection.close()
        recorded = load(reopen())
        assert (recorded.count, recorded.last_number) == (count, 5)

    def test_finds_thousands_that_were_written_at_once(self, reopen: Open) -> None:
        journal = reopen(commit_every=60)
        for number in range(1, 3001):
            journal.append(message(number, payload=b"%d" % number))
            journal.mark(number, number, SENT)
        for number in range(1, 3001, 3):
            journal.remove(number)
        recorded = load(reopen())
        assert [int(one.payload) for one in recorded.messages] == [n for n in range(1, 3001) if n % 3 != 1]
        assert recorded.count == 2000


class TestCommits:
    def test_a_message_is_stored_once_it_is_on_disk(self, reopen: Open, path: Path) -> None:
        journal = reopen()
        one = message(1)
        assert not one.stored
        journal.append(one)
        one.stored.wait(10)
        assert one.stored
        journal.close()
        assert numbers(path) == [1]

    def test_a_message_that_is_done_before_its_commit_is_never_written(self, reopen: Open, path: Path) -> None:
        journal = reopen(commit_every=60)
        written = path.with_name("journal-wal").stat().st_size
        for number in range(1, 100):
            journal.append(message(number))
            journal.mark(number, number, SENT)
            journal.remove(number)
        flush(journal)
        assert path.with_name("journal-wal").stat().st_size == written

    def test_of_a_steady_stream_nothing_is_written_as_long_as_each_message_is_done_in_time(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some are always under way: a commit each second would write these."""
        now = 0.0
        monkeypatch.setattr("mqtt_token_client.journal.writer.monotonic", lambda: now)
        channel = Channel()
        monkeypatch.setattr(channel, "sleep", lambda _seconds, *, until_next: until_next)
        writer = _Writer(channel, path, None, "pump", 1.0)
        writer.open()
        stream = [message(number) for number in range(1, 100)]
        for one in stream:
            now, number = now + 0.1, one.number
            channel.put(Batch.append, one, b"x", now)
            channel.put(Batch.mark, number, number, SENT)
            if number > 5:
                channel.put(Batch.remove, number - 5)
            writer.work()
        assert not any(one.stored for one in stream)
        now += 0.7  # the oldest waits for more than a second
        writer.work()
        assert [one.number for one in stream if one.stored] == [95, 96, 97, 98, 99]
        channel.put(Batch.end, lambda: None)
        writer.work()
        writer.close()

    @pytest.mark.parametrize(
        ("commit_every", "expected"),
        [
            (0.0, [(0.0, [1, 2], []), (0.06, [3], [1, 2]), (1.2, [], [3])]),
            (0.02, [(0.02, [1, 2], []), (0.08, [3], [1, 2]), (1.2, [], [3])]),
            (1.0, []),
        ],
    )
    def test_what_nobody_waits_for_is_written_with_the_next_message_or_after_a_second(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, commit_every: float, expected: list[Any]
    ) -> None:
        """The broker acknowledges some messages a little later than others: that is no commit of its own."""
        channel, now, wakes_at = Channel(), 0.0, 0.0
        changes: list[tuple[float, Callable[..., None], Any]] = [
            *((0.0, Batch.append, (message(number), b"x", 0.0)) for number in (1, 2)),
            (0.05, Batch.remove, (1,)),
            (0.06, Batch.append, (message(3), b"x", 0.06)),
            (0.06, Batch.remove, (2,)),
            (0.2, Batch.remove, (3,)),
        ]
        commits: list[tuple[float, list[int], list[int]]] = []
        commit = Database.commit

        def counted_commit(database: Database, batch: Batch) -> None:
            commits.append((round(now, 6), [*batch.appended], sorted(batch.removed)))
            commit(database, batch)

        def sleep(seconds: float | None, *, until_next: bool) -> None:
            nonlocal wakes_at
            wakes_at = 3.0 if seconds is None else now + seconds
            if until_next and changes:
                wakes_at = min(wakes_at, changes[0][0])

        monkeypatch.setattr("mqtt_token_client.journal.writer.monotonic", lambda: now)
        monkeypatch.setattr(channel, "sleep", sleep)
        monkeypatch.setattr(Database, "commit", counted_commit)
        writer = _Writer(channel, path, None, "pump", commit_every)
        writer.open()
        while now < 3.0:
            while changes and changes[0][0] <= now:
                _, change, arguments = changes.pop(0)
                channel.put(change, *arguments)
            writer.work()
            now = max(now, wakes_at)
        assert commits == expected
        channel.put(Batch.end, lambda: None)
        writer.work()
        writer.close()

    def test_messages_are_read_though_others_arrive_in_each_commit(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        channel, arriving, commit = Channel(), iter(range(100, 200)), Database.commit
        writer = _Writer(channel, path, None, "pump", 0.0)
        writer.open()
        for number in (1, 2, 3):
            channel.put(Batch.append, message(number), b"x", 0.0)
        writer.work()

        def slow_commit(database: Database, batch: Batch) -> None:
            channel.put(Batch.append, message(next(arriving)), b"x", 0.0)
            commit(database, batch)

        monkeypatch.setattr(Database, "commit", slow_commit)
        pages: list[list[int]] = []
        channel.put(Batch.append, message(99), b"x", 0.0)
        channel.put(Batch.read, 0, 10, lambda page, _: pages.append([one.number for one in page]))
        writer.work()
        assert pages == [[1, 2, 3, 99]]
        channel.put(Batch.end, lambda: None)
        writer.work()
        writer.close()

    def test_what_was_removed_is_not_read(self, path: Path) -> None:
        channel = Channel()
        writer = _Writer(channel, path, None, "pump", 0.0)
        writer.open()
        for number in (1, 2):
            channel.put(Batch.append, message(number), b"x", 0.0)
        writer.work()
        pages: list[list[int]] = []
        channel.put(Batch.remove, 1)
        channel.put(Batch.read, 0, 10, lambda page, _: pages.append([one.number for one in page]))
        writer.work()
        assert pages == [[2]]
        channel.put(Batch.end, lambda: None)
        writer.work()
        writer.close()

    def test_what_changed_before_the_end_is_written_though_messages_are_to_be_read(self, path: Path) -> None:
        channel = Channel()
        writer = _Writer(channel, path, None, "pump", 0.0)
        writer.open()
        for number in (1, 2):
            channel.put(Batch.append, message(number), b"x", 0.0)
        writer.work()
        done: list[str] = []
        channel.put(Batch.read, 0, 10, lambda _page, _complete: done.append("read"))
        channel.put(Batch.remove, 1)
        channel.put(Batch.receive, 17, True)
        channel.put(Batch.flush, lambda: done.append("flushed"))
        channel.put(Batch.end, lambda: done.append("ended"))
        writer.work()
        writer.close()
        database = Database(path)
        recorded = database.load()
        database.close()
        assert [one.number for one in recorded.messages] == [2]
        assert recorded.received == {17}
        assert done == ["flushed", "ended"], "nobody is left to send what would be read"

    def test_a_message_that_is_done_while_it_is_written_keeps_its_payload(self, reopen: Open) -> None:
        """A delivered message loses its payload at once, and its removal is another commit."""
        journal = reopen(commit_every=3600)
        one = message(1, payload=b"kept")
        journal.append(one)
        one.payload = b""
        flush(journal)
        journal.mark(1, 1, SENT)
        (found,) = load(reopen()).messages
        assert found.payload == b"kept"

    def test_an_urgent_message_does_not_wait_for_the_others(self, reopen: Open) -> None:
        journal = reopen(commit_every=3600)
        first, urgent = message(1), message(2)
        journal.append(first)
        journal.append(urgent, urgent=True)
        urgent.stored.wait(10)
        assert first.stored

    def test_a_number_of_sync_is_durable_once_it_is_on_disk(self, reopen: Open) -> None:
        journal = reopen(commit_every=3600)
        grown = threading.Event()
        load(journal, grown.set)
        journal.append(message(1))
        sequence = journal.sync()
        assert grown.wait(10)
        assert journal.durable == sequence

    def test_waiting_for_a_message_that_is_acknowledged_ends(self, reopen: Open) -> None:
        journal = reopen(commit_every=3600)
        one = message(1)
        journal.append(one)
        threading.Timer(0.01, one.finish).start()
        one.stored.wait(10)
        assert one.stored

    def test_waiting_for_a_message_that_fails_raises(self) -> None:
        one = message(1)
        one.finish(DeliveryFailed("rejected"))
        with pytest.raises(DeliveryFailed, match="rejected"):
            one.stored.wait(10)
        assert not one.stored

    def test_waiting_without_a_journal_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match="journal"):
            RecordedMessage(encode_topic("t"), b"", 1, False, b"").stored.wait()

    def test_waiting_may_be_limited(self) -> None:
        with pytest.raises(TimeoutError, match="on disk"):
            message(1).stored.wait(0)

    def test_is_awaited_on_an_event_loop(self, reopen: Open) -> None:
        journal = reopen()

        async def store() -> bool:
            one = message(1)
            journal.append(one)
            await asyncio.wait_for(one.stored, 10)
            return bool(one.stored)

        assert asyncio.run(store())

    def test_callbacks_are_called_once_it_is_on_disk(self, reopen: Open) -> None:
        journal = reopen(commit_every=3600)
        one, called = message(1), threading.Event()
        one.stored.add_done_callback(lambda _: called.set())
        journal.append(one)
        assert not called.is_set()
        flush(journal)
        assert called.wait(10)


class TestFile:
    def test_is_for_this_user_only_and_so_is_its_folder(self, reopen: Open, path: Path) -> None:
        reopen().append(message(1))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}

    def test_of_another_client_is_refused(self, reopen: Open, path: Path) -> None:
        reopen("pump-1")
        with pytest.raises(ConfigurationError, match=r"belongs to the client 'pump-1', not to 'pump-2'"):
            reopen("pump-2")

    def test_that_another_client_uses_is_refused(self, reopen: Open, path: Path, reported: list[events.Event]) -> None:
        reopen()
        with pytest.raises(JournalLocked, match="another process"):
            open_journal(path).open("pump", reported.append)

    def test_that_another_process_uses_is_refused(self, reopen: Open, path: Path) -> None:
        reopen()
        program = f"from mqtt_token_client import open_journal; open_journal({str(path)!r}).open('pump', print)"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
        assert "JournalLocked: journal: another process uses" in ended.stderr

    def test_is_not_touched_by_a_child_that_was_forked_and_ends(self, reopen: Open, path: Path) -> None:
        """Closing the database there would write what the child remembers over what the parent has written since."""
        program = f"""
import gc, os, sys, warnings
from mqtt_token_client import open_journal
from mqtt_token_client.mqtt.session.delivery import RecordedMessage
warnings.simplefilter("ignore")
journal = open_journal({str(path)!r}, commit_every=0)
journal.open("pump", print)
def put(number):
    message = RecordedMessage(b"\\0\\1t", b"x", 1, False, b"")
    message.number, message.disk = number, False
    journal.append(message)
    message.stored.wait(10)
for number in range(1, 50):
    put(number)
reading, writing = os.pipe()
if not (child := os.fork()):
    os.read(reading, 1)
    gc.collect()
    sys.exit()
for number in range(50, 100):
    put(number)
os.write(writing, b"x")
os.waitpid(child, 0)
for number in range(100, 150):
    put(number)
os._exit(0)
"""
        subprocess.run([sys.executable, "-c", program], timeout=30, check=True)
        assert [one.number for one in load(reopen()).messages] == list(range(1, 150))

    def test_of_another_program_is_refused_and_left_as_it_is(self, reopen: Open, path: Path) -> None:
        path.parent.mkdir(mode=0o700)
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE theirs (a)")
        connection.close()
        theirs = path.read_bytes()
        with pytest.raises(ConfigurationError, match="another program"):
            reopen()
        assert path.read_bytes() == theirs

    def test_whose_first_page_is_damaged_is_read_from_the_second_file(self, reopen: Open, path: Path) -> None:
        journal = reopen()
        load(journal)
        copies = {name: path.with_name(name).read_bytes() for name in (path.name, f"{path.name}-wal")}
        journal.close()
        for name, content in copies.items():
            path.with_name(name).write_bytes(content)
        with path.open("r+b") as file:
            file.seek(68)  # the application identifier
            file.write(b"text")
        assert load(reopen()).count == 0
        assert not path.with_name(f"{path.name}.corrupt").exists()

    def test_is_made_by_an_sqlite_that_knows_the_table_of_tables_by_its_old_name_only(
        self, reopen: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite has the name sqlite_schema since 3.33."""

        class Old(sqlite3.Connection):
            def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
                return super().execute(query.replace("sqlite_schema", "no_such_table"), *values)

        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Old))
        journal = reopen()
        one = message(1)
        journal.append(one)
        one.stored.wait(10)

    def test_of_a_newer_version_is_refused(self, reopen: Open, path: Path) -> None:
        reopen().close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version=2")
            connection.execute("UPDATE owner SET version=2")
        connection.close()
        with pytest.raises(ConfigurationError, match="newer version"):
            reopen()

    def test_a_journal_serves_one_client(self, reopen: Open) -> None:
        journal = reopen()
        with pytest.raises(ConfigurationError, match="a client uses"):
            journal.open("pump", print)


class TestSize:
    def test_an_empty_file_is_small_again(self, reopen: Open, path: Path) -> None:
        journal = reopen()
        for number in range(1, 41):
            journal.append(message(number, payload=bytes(50_000)))
        flush(journal)
        assert journal.size > 2_000_000
        for number in range(1, 41):
            journal.remove(number)
        flush(journal)
        assert journal.size < 20_000
        assert path.stat().st_size < 20_000
        assert path.with_name("journal-wal").stat().st_size < 1_200_000

    def test_a_message_counts_once_though_its_commit_was_repeated(self, reopen: Open, path: Path) -> None:
        """A commit may reach the disk and fail all the same: the message is written again."""
        reopen().close()
        database = Database(path)
        batch = Batch(database.counters)
        batch.append(message(1), b"x", 0.0)
        database.commit(batch)
        batch.failed()
        batch.append(message(2), b"x", 0.0)
        database.commit(batch)
        database.close()
        assert load(reopen()).count == 2

    def test_numbers_go_on_after_a_commit_that_was_repeated(self, reopen: Open, path: Path) -> None:
        """It had reached the disk, and its last row has the counters."""
        reopen().close()
        database = Database(path)
        batch = Batch(database.counters)
        batch.append(message(1), b"x", 0.0)
        batch.mark(1, 7, SENT)
        for _ in range(2):
            database.commit(batch)
            batch.failed()
            database.close()
            database = Database(path)
            batch.rebase(database.counters)
        database.close()
        recorded = load(reopen())
        assert (recorded.count, recorded.last_number) == (1, 1)


class TestArguments:
    @pytest.mark.parametrize("path", ["", None, 3])
    def test_the_path_must_be_one(self, path: object) -> None:
        with pytest.raises(ConfigurationError, match=r"^path must be the path of a file"):
            open_journal(path)  # type: ignore[arg-type]

    @pytest.mark.parametrize("seconds", [-1, "1", None, True, float("nan"), 4000])
    def test_commit_every_must_be_seconds(self, seconds: object) -> None:
        with pytest.raises(ConfigurationError, match=r"^commit_every must be from 0 to 3600 seconds"):
            open_journal("j", commit_every=seconds)  # type: ignore[arg-type]


class TestFaults:
    def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
        self, reopen: Open, path: Path, reported: list[events.Event]
    ) -> None:
        path.parent.mkdir(mode=0o700)
        path.write_bytes(b"damaged" * 1000)
        journal = reopen()
        assert load(journal).count == 0
        (event,) = reported
        assert isinstance(event, JournalFailed)
        assert "was renamed to journal.corrupt" in str(event.error)
        assert path.with_name("journal.corrupt").read_bytes().startswith(b"damaged")
        one = message(1)
        journal.append(one)
        one.stored.wait(10)

    def test_the_first_damaged_files_are_kept(self, reopen: Open, path: Path, reported: list[events.Event]) -> None:
        """Each may have messages that nothing else has; a disk that damages every file must not be filled by them."""
        path.parent.mkdir(mode=0o700)
        for number in (1, 2, 3, 4):
            path.write_bytes(b"damaged %d" % number * 1000)
            journal = reopen()
            assert load(journal).count == 0
            journal.close()
        aside = {one.name: one.read_bytes()[:9] for one in path.parent.glob("*corrupt*")}
        assert aside == {
            "journal.corrupt": b"damaged 1",
            "journal.corrupt-2": b"damaged 2",
            "journal.corrupt-3": b"damaged 4",
        }
        assert ["corrupt-3" in str(event) for event in reported] == [False, False, True, True]

    def test_a_damaged_file_gets_no_second_file_of_another(self, path: Path) -> None:
        """SQLite would apply it to the wrong one when somebody opens the copy."""
        path.parent.mkdir(mode=0o700)
        path.with_name("journal.corrupt-wal").write_bytes(b"of another")
        for number in (2, 3, 4):
            path.write_bytes(b"damaged %d" % number)
            path.with_name("journal.corrupt-3-wal").write_bytes(b"of another")
            set_aside(path)
        assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == {
            "journal.corrupt-wal": b"of another",
            "journal.corrupt-2": b"damaged 2",
            "journal.corrupt-3": b"damaged 4",
        }

    def test_a_damaged_file_that_is_not_renamed_at_once_loses_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not its second file either, which is renamed first."""
        path.parent.mkdir(mode=0o700)
        path.write_bytes(b"damaged")
        path.with_name("journal-wal").write_bytes(b"messages")
        rename, failures = Path.replace, [OSError(5, "Input/output error")]

        def fail_once(old: Path, new: Path) -> Path:
            if old == path and failures:
                raise failures.pop()
            return rename(old, new)

        monkeypatch.setattr(Path, "replace", fail_once)
        with pytest.raises(OSError, match="Input/output"):
            set_aside(path)
        set_aside(path)
        assert {one.read_bytes() for one in path.parent.iterdir()} == {b"damaged", b"messages"}

    def test_a_damaged_name_that_is_no_text_is_damage_like_any_other(
        self, reopen: Open, path: Path, reported: list[events.Event]
    ) -> None:
        """SQLite has it in its message, which Python cannot decode then."""
        reopen().close()
        path.write_bytes(path.read_bytes().replace(b"tablereceived", b"table\xff\x80ceived"))
        assert load(reopen()).count == 0
        assert [type(event) for event in reported] == [JournalFailed]
        assert path.with_name("journal.corrupt").exists()

    def test_a_damaged_client_identifier_is_not_another_client(
        self, reopen: Open, path: Path, reported: list[events.Event]
    ) -> None:
        reopen().close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE owner SET client_id='bump'")
        connection.close()
        reopen()
        assert [type(event) for event in reported] == [JournalFailed]

    def test_a_read_that_fails_for_once_is_no_damage(
        self, reopen: Open, path: Path, reported: list[events.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite reports EIO as a malformed file."""
        journal = reopen()
        journal.append(message(1))
        journal.close()
        loading = Database.load
        failed: list[Database] = []

        def fail_twice(database: Database) -> Recorded:
            if len(failed) < 2:
                failed.append(database)
                raise sqlite3.DatabaseError("database disk image is malformed")
            return loading(database)

        monkeypatch.setattr(Database, "load", fail_twice)
        assert load(reopen()).count == 1
        assert reported == []

    def test_a_commit_that_finds_damage_is_not_reported_before_it_is_repeated(
        self, reopen: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = reopen()
        committing = Database.commit
        failed: list[Database] = []

        def fail_once(database: Database, batch: Batch) -> None:
            if not failed:
                failed.append(database)
                raise sqlite3.DatabaseError("database disk image is malformed")
            committing(database, batch)

        monkeypatch.setattr(Database, "commit", fail_once)
        one = message(1)
        journal.append(one)
        flush(journal)
        assert failed
        assert one.disk is True

    @pytest.mark.parametrize("acknowledged", [True, False])
    def test_a_message_that_a_new_file_has_when_it_is_reported_again_counts_once_until_it_is_done(
        self, reopen: Open, monkeypatch: pytest.MonkeyPatch, acknowledged: bool
    ) -> None:
        journal = reopen(commit_every=3600)
        lost = threading.Event()
        journal.load(lambda: None, lost.set)
        committing = Database.commit
        failed: list[Database] = []

        def find_damage(database: Database, batch: Batch) -> None:
            if len(failed) < 3:
                failed.append(database)
                raise DamagedError("damaged")
            committing(database, batch)

        monkeypatch.setattr(Database, "commit", find_damage)
        one = message(1)
        journal.append(one)
        flush(journal)
        assert lost.is_set()
        journal.append(one)
        if acknowledged:
            journal.remove(1)
        flush(journal)
        recorded = load(reopen())
        assert (len(recorded.messages), recorded.count) == ((0, 0) if acknowledged else (1, 1))

    def test_an_error_that_a_new_file_has_too_sets_nothing_aside_again(
        self, reopen: Open, path: Path, reported: list[events.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise the journal would begin new files without end, and the empty ones would replace the first copy."""
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 0.001)
        journal = reopen()
        journal.append(message(1))
        journal.close()
        loading = Database.load
        failed: list[Database] = []

        def fail_ten_times(database: Database) -> Recorded:
            if len(failed) < 10:
                failed.append(database)
                raise sqlite3.DatabaseError("database disk image is malformed")
            return loading(database)

        monkeypatch.setattr(Database, "load", fail_ten_times)
        journal = reopen()
        one = message(1)
        journal.append(one)
        one.stored.wait(10)
        flush(journal)
        assert [type(event) for event in reported] == [JournalFailed, JournalFailed, JournalRecovered]
        assert "was renamed" in str(reported[0])
        assert "kept in memory" in str(reported[1])
        assert numbers(path.with_name("journal.corrupt")) == [1]

    def test_a_message_that_is_damaged_far_behind_the_first_ones_has_the_file_set_aside(
        self, reopen: Open, path: Path, reported: list[events.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is found when it is read, and not when the file is opened again."""
        monkeypatch.setattr("mqtt_token_client.journal.database._FIRST_PAGE", 1)
        journal = reopen()
        for number in (1, 2):
            journal.append(message(number))
        journal.close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE messages SET payload=x'00' WHERE number=2")
        connection.close()
        journal = reopen()
        pages: SimpleQueue[Sequence[RecordedMessage]] = SimpleQueue()
        journal.read(1, 10, lambda page, _: pages.put(page))
        assert pages.get(timeout=10) == []
        assert "was renamed" in str(reported[0])
        assert numbers(path.with_name("journal.corrupt")) == [1, 2]

    def test_an_unexpected_error_of_a_commit_is_reported_and_the_commit_is_repeated(
        self, reopen: Open, reported: list[events.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If it ended the journal's thread, messages of QoS 2 would wait forever, and nobody would learn why."""
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 0.01)
        journal = reopen()
        inserting = Database._insert
        failed: list[Database] = []

        def fail_once(database: Database, batch: Batch, counters: Counters) -> None:
            if not failed:
                failed.append(database)
                raise struct.error("int too large to convert")
            inserting(database, batch, counters)

        monkeypatch.setattr(Database, "_insert", fail_once)
        one = message(1)
        journal.append(one)
        one.stored.wait(10)
        flush(journal)
        assert [type(event) for event in reported] == [JournalFailed, JournalRecovered]
        assert "int too large to convert; messages are kept in memory" in str(reported[0])

    def test_an_unexpected_error_of_a_read_is_reported_and_the_read_is_repeated(
        self, reopen: Open, reported: list[events.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 0.01)
        journal = reopen()
        journal.append(message(1))
        flush(journal)
        paging = Database.page
        failed: list[Database] = []

        def fail_at_first(database: Database, after: int, limit: int) -> tuple[Sequence[RecordedMessage], bool]:
            if len(failed) < 2:  # the second time when the file is opened again
                failed.append(database)
                raise ValueError("unexpected")
            return paging(database, after, limit)

        monkeypatch.setattr(Database, "page", fail_at_first)
        pages: SimpleQueue[Sequence[RecordedMessage]] = SimpleQueue()
        journal.read(0, 10, lambda page, _: pages.put(page))
        assert [one.number for one in pages.get(timeout=10)] == [1]
        assert [type(event) for event in reported] == [JournalFailed, JournalRecovered]

    @pytest.mark.parametrize("damage", ["payload=x'00'", "stage=-5", "packet_id=-1", "packet_id=65536", "stage='x'"])
    def test_a_message_whose_row_is_damaged_is_not_sent(
        self, reopen: Open, path: Path, reported: list[events.Event], damage: str
    ) -> None:
        journal = reopen()
        journal.append(message(1))
        journal.mark(1, 1, SENT)
        journal.close()
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE messages SET {damage}")
        connection.close()
        assert load(reopen()).messages == []
        assert [type(event) for event in reported] == [JournalFailed]

    def test_without_a_place_to_write_the_client_goes_on_in_memory_and_comes_back(
        self, reopen: Open, path: Path, reported: list[events.Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 0.01)
        path.parent.parent.joinpath("outbox").write_text("a file where the folder should be")
        journal = reopen()
        one = message(1)
        journal.append(one)
        assert isinstance(reported[0], JournalFailed)
        sequence = journal.sync()
        flush(journal)
        assert journal.durable == sequence
        assert not one.stored
        path.parent.unlink()
        one.stored.wait(10)
        flush(journal)
        assert isinstance(reported[-1], JournalRecovered)

    def test_messages_that_could_not_be_read_at_the_start_stay_for_the_next_process(
        self, reopen: Open, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """This one counts its own messages from 1, as they do."""
        journal = reopen()
        journal.append(message(1, payload=b"earlier"))
        journal.close()
        monkeypatch.setattr("mqtt_token_client.journal.writer._FIRST_RETRY", 0.01)
        path.rename(path.with_name("away"))
        path.mkdir()
        journal = reopen()
        one = message(1, payload=b"later")
        journal.append(one)
        path.rmdir()
        path.with_name("away").rename(path)
        with pytest.raises(TimeoutError):
            one.stored.wait(0.05)
        (earlier,) = load(reopen()).messages
        assert earlier.payload == b"earlier"

    def test_a_disk_that_fails_for_long_costs_no_memory_for_what_is_done(self) -> None:
        batch = Batch(Counters())
        batch.append(message(1), b"x", 0.0)
        batch.failed()  # the first one may be on disk all the same
        batch.append(message(2), b"x", 0.0)
        batch.remove(1)
        batch.remove(2)
        assert batch.removed == {1}
        assert not batch.appended
