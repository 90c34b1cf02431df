"""The journal's thread: commits what has changed, and keeps it in memory while the disk fails."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..clock import monotonic
from ..errors import ConfigurationError, JournalError, JournalLocked, MqttTokenError
from ..mqtt.session.delivery import RecordedMessage
from ..mqtt.session.journal import Recorded
from ..mqtt.session.journal_events import JournalFailed, JournalRecovered
from ..mqtt.session.stored import note_on_disk
from ..stores.encryption import Key
from ..stores.folder import sync
from .batch import Batch, Counters
from .channel import Channel
from .database import Database
from .faults import DAMAGES, FAILURES, is_damage, result_code
from .place import create, set_aside

_LEAST_DELAY = 1.0  # seconds until a change is written that nobody waits for, unless a message is written earlier
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0  # seconds
_DAMAGES_IN_A_ROW = 3


def run(
    channel: Channel,
    path: Path,
    key: Key | None,
    client_id: str,
    commit_every: float,
    opened: Callable[[Recorded | MqttTokenError], None],
) -> None:
    """Be the journal's thread, until the journal is closed.

    Nothing but the frame of this function refers to the database. So a child that was forked never closes it: its locks
    and its cache are the parent's.

    Args:
        channel: where the changes come from.
        path: the file.
        key: encrypts its messages; None does not.
        client_id: whose session it is.
        commit_every: seconds that a message may wait for its commit; 0 commits at once.
        opened: called once, with the state of the session or why the journal cannot be used.
    """
    writer = _Writer(channel, path, key, client_id, commit_every)
    try:
        recorded = writer.open()
    except MqttTokenError as error:
        opened(error)
        return
    except BaseException as error:
        opened(JournalError(f"journal: an error of this library, please report it: {type(error).__name__}"))
        raise
    opened(recorded)
    while writer.batch.ended is None:
        writer.work()
    writer.close()


class _Writer:
    """Runs on the journal's thread."""

    def __init__(self, channel: Channel, path: Path, key: Key | None, client_id: str, commit_every: float) -> None:
        self.batch = Batch(Counters())
        self._channel = channel
        self._path = path
        self._key = key
        self._client_id = client_id
        self._commit_every = commit_every
        self._database: Database | None = None  # None while the disk fails
        self._change_at = 0.0  # when the batch is committed, if it changes what is on disk
        self._is_loaded = False  # whether the session knows what the file had at the start
        self._failures = self._damages = 0  # in a row
        self._on_disk_to = 0  # the highest number of a message that is on disk only, at most
        self._is_new = False  # whether a damaged file was set aside, and nothing has come of the new one yet
        self._retry_at = 0.0

    # The file

    def open(self) -> Recorded:
        """Open the file and return what it has; nothing if the disk fails.

        Raises:
            JournalLocked: another process uses it.
            ConfigurationError: it is no journal of this version, another client's, or has another key.
        """
        try:
            recorded = self._open()
        except (JournalLocked, ConfigurationError):
            raise
        except FAILURES as error:
            self._fail(error)
            return Recorded()
        self._is_loaded = True
        self._on_disk_to = recorded.last_number if recorded.count else 0
        return recorded

    def _open(self) -> Recorded:
        create(self._path)
        while True:
            try:
                return self._load()
            except (sqlite3.Error, *DAMAGES) as error:
                if not self._is_damage(error):
                    raise
                self._found_damage(error)

    def _load(self) -> Recorded:
        try:
            database = Database(self._path, self._key)
        except sqlite3.OperationalError as error:
            if result_code(error) == sqlite3.SQLITE_BUSY:
                raise JournalLocked(f"journal: another process uses {self._path}; give each client its own") from None
            raise
        try:
            _check_owner(self._path, database.claim(self._client_id), self._client_id)
            recorded, size = database.load(), database.size
            sync(self._path.parent)  # SQLite does not mind if this fails, and the second file is new
        except BaseException:
            database.close()
            raise
        self._database = database
        self._channel.size = size
        self.batch.rebase(database.counters)
        return recorded

    def _is_damage(self, error: Exception) -> bool:
        """Whether to set the file aside for an error. An error that a new file has as well is not one of the file, and
        the copy that has the messages would be replaced by an empty one.
        """
        return is_damage(error) and not self._is_new

    def _found_damage(self, error: Exception) -> bool:
        """Set the file aside the third time in a row, as SQLite says the same of a read that has failed for once.
        Return whether that was done.
        """
        self._damages += 1
        if self._damages < _DAMAGES_IN_A_ROW:
            return False
        self._damages = 0
        self._set_aside(error)
        return True

    def _set_aside(self, error: Exception) -> None:
        aside = set_aside(self._path)
        create(self._path)
        self._is_new, self._on_disk_to = True, 0
        text = f"journal: {self._path} is damaged ({error}); it was renamed to {aside.name}, and a new one begun"
        self._channel.emit(JournalFailed(JournalError(text), 0.0))
        self._channel.lost()

    def close(self) -> None:
        """Close the file, and say so to whoever waits for that."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        assert self.batch.ended is not None
        self.batch.ended()

    # Its changes

    def work(self) -> None:
        """Commit what is due, or wait for it. An error of this library counts as one of the disk: it must not end the
        thread that others wait for.
        """
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - any
            self.batch.failed()
            self._fail(error)

    def _work(self) -> None:
        changed_disk = self.batch.changes_disk
        self._channel.take(self.batch)
        batch, now = self.batch, monotonic()
        if not changed_disk:
            self._change_at = now + max(self._commit_every, _LEAST_DELAY)
        if self._database is None and (now >= self._retry_at or batch.ended is not None):
            self._retry()
        elif self._database is None:
            self._channel.is_failing = True
            self._report_durable()  # in memory, for now
            batch.read_from_memory(self._on_disk_to)
            self._channel.sleep(self._retry_at - now, until_next=False)
        elif now >= (due := self._due()):
            self._commit(self._database)
            if self._database is not None and self.batch.reads and batch.ended is None:
                self._read(self._database)  # before the next changes: each of them would mean another commit
        else:
            # The next message does not wake this thread, and must not wait for longer than commit_every.
            waiting = min(due - now, self._commit_every or math.inf) if batch else None
            self._channel.sleep(waiting, until_next=not batch or not self._commit_every)

    def _due(self) -> float:
        """When to commit. The oldest message waits for ``commit_every``, unless the broker acknowledges it earlier."""
        batch = self.batch
        if batch.urgent or batch.reads:
            return 0.0
        due = self._change_at if batch.changes_disk else math.inf
        if batch.appended:
            _, _, accepted_at = next(iter(batch.appended.values()))
            due = min(due, accepted_at + self._commit_every)
        return due

    def _commit(self, database: Database) -> None:
        batch, size = self.batch, self._channel.size
        try:
            if batch:
                database.commit(batch)
                self._channel.size = database.size
        except FAILURES as error:
            batch.failed()
            self._fail(error)
            return
        self._channel.is_failing = False
        for message, *_ in batch.appended.values():
            note_on_disk(message)
            if isinstance(message, RecordedMessage) and message.spilled:
                message.payload = b""  # read again when its turn comes
        if not batch.reads:  # if they find damage each time, it is in a row, whatever can be written meanwhile
            self._damages, self._is_new = 0, self._is_new and not batch
        self._report_durable()
        if self._channel.size < size:
            self._channel.notify()
        counters = database.counters
        self._on_disk_to = counters.last_number if counters.count else 0
        self.batch = Batch(counters, batch.ended)
        self.batch.reads = batch.reads

    def _read(self, database: Database) -> None:
        after, limit, then = self.batch.reads[0]
        try:
            page, complete = database.page(after, limit)
        except FAILURES as error:
            self._fail(error)
            return
        self._damages, self._is_new = 0, False
        del self.batch.reads[0]
        then(page, complete)

    def _report_durable(self) -> None:
        channel, batch = self._channel, self.batch
        batch.urgent = False
        flushed, batch.flushed = batch.flushed, []
        for then in flushed:
            then()
        if batch.sequence > channel.durable:
            channel.durable = batch.sequence
            channel.notify()

    # Faults

    def _fail(self, error: Exception) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        if self._is_damage(error):
            with suppress(OSError):
                self._failures += self._found_damage(error)
                self._retry_at = 0.0
                return
        self._failures += 1
        retry_in = min(_FIRST_RETRY * 2.0 ** (self._failures - 1), _LONGEST_RETRY)
        self._retry_at = monotonic() + retry_in
        if self._failures == 1:
            text = f"journal: {self._path}: {error}; messages are kept in memory until it can be written again"
            self._channel.emit(JournalFailed(JournalError(text), retry_in))

    def _retry(self) -> None:
        try:
            if self._open().count and not self._is_loaded:
                raise JournalError("it has messages of an earlier process, which are sent when this one starts again")
        except (*FAILURES, ConfigurationError) as error:
            self._fail(error)
            return
        self._is_loaded = True
        assert self._database is not None
        self._commit(self._database)
        if self._database is not None and self._failures:
            self._failures = 0
            self._channel.emit(JournalRecovered(str(self._path)))


def _check_owner(path: Path, owner: str, client_id: str) -> None:
    if owner != client_id:
        raise ConfigurationError(
            f"journal: {path} belongs to the client {owner!r}, not to {client_id!r}; give each client its own"
        )
