"""The file of a journal: an SQLite database in WAL mode, flushed at each commit. Runs on the journal's thread.

What each setting is for:

    page_size=1024            a commit of one message writes two or three pages, and small ones
    journal_mode=WAL,         a commit is one write and one flush, at the end of a second file (….-wal) that keeps its
    wal_autocheckpoint=1000   size of 1 MiB, so that the file system has nothing else to write
    synchronous=FULL          each commit is flushed: without it, a power cut loses the last ones
    locking_mode=EXCLUSIVE    no second process; and no third file (….-shm)
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from zlib import crc32

from ..errors import ConfigurationError
from ..mqtt.session.delivery import RecordedMessage
from ..mqtt.session.journal import Recorded
from ..stores.encryption import Key
from .batch import NEW, Batch, Counters
from .identity import APPLICATION, VERSION, check_unopened, integer, is_new
from .rows import COLUMNS, DamagedError, Row, to_message, to_row
from .timeline import SCHEMA as TIMELINE_SCHEMA, Age, Timeline

_SETTINGS = """
    PRAGMA page_size=1024;
    PRAGMA locking_mode=EXCLUSIVE;
    PRAGMA journal_mode=WAL;
    PRAGMA synchronous=FULL;
    PRAGMA wal_autocheckpoint=1000;
    PRAGMA journal_size_limit=1100000;
    PRAGMA cache_size=-512;
    PRAGMA temp_store=MEMORY;
"""
# `counters` of the last message of a commit: written with it, they cost no page of their own. A commit that appends
# no new one writes them to `state`, which counts if no message above its `last_number` has any.
_SCHEMA = f"""
    BEGIN IMMEDIATE;
    CREATE TABLE messages (
        number INTEGER PRIMARY KEY, topic, payload, properties, flags, packet_id, stage, accepted_at, expires_at,
        checksum, counters
    );
    {TIMELINE_SCHEMA}
    CREATE TABLE received (packet_id INTEGER PRIMARY KEY);
    CREATE TABLE state (id INTEGER PRIMARY KEY, last_number, counters);
    CREATE TABLE owner (client_id, version, key_id, checksum);
    PRAGMA application_id={APPLICATION};
    PRAGMA user_version={VERSION};
    COMMIT;
"""
_RELEASE = "DELETE FROM received WHERE packet_id=?"
_VALUES = 11
_ROWS_AT_ONCE = (256, 32, 4, 1)  # in one statement: Python releases its lock, and waits for it, once for each
_FIRST_PAGE, _MAX_PAGE_BYTES = 1000, 2_000_000
_LARGE = 1024  # pages of a file that is empty
# Counters; an earlier version reads narrow ones only, and has the last packet identifier in the gap.
_WIDE, _NARROW = struct.Struct(">Q2xQQd"), struct.Struct(">I2xIQd")


class Database:
    """One open file.

    Args:
        path: of the file; it is created if necessary.
        key: encrypts the messages; None does not. It is checked by :meth:`claim` and :meth:`check_key`.

    Attributes:
        counters: as of the last commit.

    Raises:
        sqlite3.Error: the file cannot be opened.
        DamagedError: its content is damaged.
        ConfigurationError: it is no journal, or one of a newer version of this library.
    """

    def __init__(self, path: Path, key: Key | None = None) -> None:
        self._path = path
        self._key = key
        check_unopened(path)
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, cached_statements=64)
        self._connection.text_factory = bytes
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        self._connection.executescript(_SETTINGS)
        if is_new(self._connection, self._path):
            self._connection.executescript(_SCHEMA)
        self.counters, reached = self._read_counters()
        try:
            self._timeline = Timeline(self._connection, reached, self.counters.last_number)
        except ValueError as error:
            raise DamagedError(str(error)) from None

    def close(self) -> None:
        """Close the file. Nothing that was committed depends on it."""
        self._connection.close()

    @property
    def size(self) -> int:
        """How many bytes of the file are in use."""
        return 1024 * (
            integer(self._connection, "PRAGMA page_count") - integer(self._connection, "PRAGMA freelist_count")
        )

    def claim(self, client_id: str) -> str:
        """Return the client identifier that the journal belongs to: this one, unless it has another one already.

        Raises:
            ConfigurationError: it has another key.
        """
        if (owner := self._owner()) is not None:
            self.check_key()
            return owner[0].decode()
        owner = client_id.encode(), b"" if self._key is None else self._key.id.encode()
        self._connection.execute("INSERT INTO owner VALUES (?, ?, ?, ?)", (owner[0], VERSION, owner[1], _crc(*owner)))
        return client_id

    def check_key(self) -> None:
        """Check that the key is the one that the messages are encrypted with, if they are.

        Raises:
            ConfigurationError: it is not.
        """
        owner = self._owner()
        own = b"" if self._key is None else self._key.id.encode()
        if owner is None or owner[1] == own:
            return
        if not owner[1]:
            what = "is not encrypted; open it without a key until its messages are sent, or give another path"
        else:
            what = "is encrypted with another key; give that one" if own else "is encrypted; give its key"
        raise ConfigurationError(f"journal: {self._path} {what}")

    def _owner(self) -> tuple[bytes, bytes] | None:
        row = self._connection.execute("SELECT client_id, key_id, checksum FROM owner").fetchone()
        if row is None:
            return None
        client_id, key_id, checksum = row
        if not isinstance(client_id, bytes) or not isinstance(key_id, bytes) or _crc(client_id, key_id) != checksum:
            raise DamagedError("the checksum of the client identifier is wrong")
        return client_id, key_id

    # Reading

    def _read_counters(self) -> tuple[Counters, float]:
        rows = self._connection.execute(
            "SELECT last_number, counters, 1 FROM state UNION ALL SELECT * FROM"
            " (SELECT number, counters, 0 FROM messages WHERE counters IS NOT NULL ORDER BY number DESC LIMIT 1)"
            " ORDER BY 1 DESC, 3 DESC LIMIT 1"
        ).fetchall()
        if not rows:
            return Counters(), 0.0
        ((last_number, packed, _),) = rows
        try:
            counters = _NARROW if len(packed) == _NARROW.size else _WIDE
            count, highest_sent, last_stage, reached = counters.unpack(packed)
        except (struct.error, TypeError) as error:
            raise DamagedError(f"counters: {error}") from None
        return Counters(count, last_number, highest_sent, last_stage), reached

    def load(self) -> Recorded:
        """Return the state of the session, with the messages that may have been sent."""
        messages = list(self._messages("number <= ?", self.counters.highest_sent))
        messages.sort(key=lambda found: found[1][6])  # those at RELEASED in the order of the PUBRECs
        identifiers = [row[0] for row in self._connection.execute("SELECT packet_id FROM received")]
        unsent, _ = self.page(self.counters.highest_sent, _FIRST_PAGE)
        return Recorded(
            [*(message for message, _ in messages), *unsent],
            frozenset(identifiers),
            self.counters.last_number,
            self.counters.count,
        )

    def page(self, after: int, limit: int) -> tuple[Sequence[RecordedMessage], bool]:
        """Return the oldest messages whose number is above ``after``, up to ``limit`` of them and a few megabytes; and
        whether these are all.
        """
        page: list[RecordedMessage] = []
        size = 0
        for message, _ in self._messages("number > ? ORDER BY number LIMIT ?", after, limit):
            page.append(message)
            size += len(message.payload)
            if size > _MAX_PAGE_BYTES:
                return page, False
        return page, len(page) < limit

    def ages(self) -> Iterator[tuple[RecordedMessage, Age]]:
        """Yield each message, the oldest first, and how long it has waited."""
        for message, row in self._messages("true ORDER BY number"):
            yield message, self._timeline.age(row[7], message.number)

    def _messages(self, condition: str, *values: int) -> Iterator[tuple[RecordedMessage, Row]]:
        query = f"SELECT {COLUMNS} FROM messages WHERE {condition}"  # noqa: S608 - a condition from above
        for row in self._connection.execute(query, values):
            yield to_message(row, self._timeline, self._key), row

    # Writing

    def commit(self, batch: Batch) -> None:
        """Write a batch, and flush it."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            counters = self._write(batch)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.counters = counters
        if not counters.count and integer(connection, "PRAGMA page_count") > _LARGE:
            connection.execute("VACUUM")  # give the disk back
            connection.execute("PRAGMA wal_checkpoint")

    def _write(self, batch: Batch) -> Counters:
        execute = self._connection.execute
        if batch.session_lost:
            execute("UPDATE messages SET stage=? WHERE number <= ?", (NEW, self.counters.highest_sent))
            execute("DELETE FROM received")
        if batch.time is not None:
            self._timeline.note_time(self._connection, *batch.time)
        count = self.counters.count
        for numbers in _in_parts(batch.removed):
            places = ",".join("?" * len(numbers))
            count -= execute(f"DELETE FROM messages WHERE number IN ({places})", numbers).rowcount  # noqa: S608
        for numbers in _in_parts(batch.uncertain & batch.appended.keys()):
            places = ",".join("?" * len(numbers))
            query = f"SELECT count(*) FROM messages WHERE number IN ({places})"  # noqa: S608
            count -= execute(query, numbers).fetchone()[0]
        counters = batch.counters(count + len(batch.appended))
        self._insert(batch, counters)
        for number, (packet_id, stage) in batch.marks.items():
            if number not in batch.appended:
                execute("UPDATE messages SET packet_id=?, stage=? WHERE number=?", (packet_id, stage, number))
        for packet_id, is_received in batch.received.items():
            change = "INSERT OR IGNORE INTO received VALUES (?)" if is_received else _RELEASE
            execute(change, (packet_id,))
        return counters

    def _insert(self, batch: Batch, counters: Counters) -> None:
        numbers = sorted(batch.appended)
        numbers_of_all = counters.count, counters.highest_sent, counters.last_stage
        form = _NARROW if max(counters.count, counters.highest_sent) < 2**32 else _WIDE
        packed = form.pack(*numbers_of_all, self._timeline.now())
        if numbers and numbers[-1] > self.counters.last_number:
            ending = {numbers[-1]: packed}
        else:
            ending = {}
            if numbers or counters != self.counters:  # the row that had them may be one of these
                self._connection.execute(
                    "INSERT OR REPLACE INTO state VALUES (1, ?, ?)", (counters.last_number, packed)
                )
        for part in _in_parts(numbers):
            values: list[object] = []
            for number in part:
                message, payload, accepted_at = batch.appended[number]
                # Not what the message has by now: that may be newer than what the file gets of others.
                packet_id, stage = batch.marks.get(number, (0, NEW))
                values += to_row(message, payload, packet_id, stage, accepted_at, self._timeline, self._key)
                values.append(ending.get(number))
            places = ",".join(["(" + ",".join("?" * _VALUES) + ")"] * len(part))
            self._connection.execute(f"INSERT OR REPLACE INTO messages VALUES {places}", values)  # noqa: S608


def _crc(client_id: bytes, key_id: bytes) -> int:
    return crc32(key_id, crc32(client_id))


def _in_parts(numbers: Collection[int]) -> Iterator[tuple[int, ...]]:
    """Split them into parts of a few lengths, so that few statements are compiled."""
    left, rest = len(numbers), iter(numbers)
    for length in _ROWS_AT_ONCE:
        while left >= length:
            yield tuple(islice(rest, length))
            left -= length
