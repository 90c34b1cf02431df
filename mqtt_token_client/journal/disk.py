"""The journal on disk, as an application opens it and a session reports to it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from ..clock import TimesOfDay, monotonic
from ..errors import ConfigurationError, MqttTokenError
from ..events import Event
from ..forking import reset_after_fork, works_in_one_process
from ..logs import get_logger
from ..mqtt.session.delivery import Delivery, RecordedMessage, Stage
from ..mqtt.session.journal import Bounds, Recorded
from ..oneshot import OneShot
from ..stores.encryption import Key
from ..value import hidden
from .batch import Batch, size_of
from .channel import Channel

_log = get_logger("mqtt_token_client.journal")

_WHEN_FULL = ("reject", "drop_oldest", "drop_newest")
_TIME_CHANGE = 1.0  # seconds: less is not worth a commit
_LONGEST_CLOSE = 60  # seconds: a disk that takes longer may never come back


def open_journal(  # noqa: PLR0913 - the options of a journal
    path: str | os.PathLike[str],
    *,
    commit_every: float = 1.0,
    max_queued: int = 1_000_000,
    max_bytes: int = 256_000_000,
    when_full: str = "reject",
    on_delivery: Callable[[Delivery], object] | None = None,
    drain_rate: float | None = None,
    key: str | bytes | None = None,
) -> DiskJournal:
    """Return a journal for the argument ``journal`` of a client: messages that ``publish()`` accepted, and the state of
    the MQTT session, are kept in a file. Another process, also one after a power cut, continues where this one ended.

    Args:
        path: of the file, an SQLite database. It is created if necessary, with mode 600, and so is its folder, with
            mode 700. Each client has its own.
        commit_every: seconds after which a message is on disk at the latest, 1 by default. A message that the broker
            acknowledges earlier is never written. 0 writes each message as soon as the disk takes it.
        max_queued: messages that may wait to be acknowledged, in place of the client's argument of this name. Most of
            them are on disk only.
        max_bytes: of the file, about, and of what is in memory while the disk fails. SQLite needs up to 1.1 MB more for
            a second file.
        when_full: ``"reject"`` has ``publish()`` raise :class:`OutboxFull`; ``"drop_oldest"`` drops the oldest message
            that was not sent, and ``"drop_newest"`` the one that is being published, which
            :class:`JournalFull` reports.
        on_delivery: gets the :class:`Delivery` of each message of an earlier process when it is done.
        drain_rate: messages a second, of those that have waited when the client connects; None sends them as fast as
            the connection allows. Messages keep their order: new ones are sent after those, and without a limit.
        key: encrypts topics, payloads and properties with the cipher of a :class:`FileStore` (AES-128-CBC and
            HMAC-SHA256): 32 bytes in URL-safe base64, as ``Fernet.generate_key()`` returns. None does not encrypt.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ConfigurationError(f"path must be the path of a file, got {path!r}")
    if isinstance(commit_every, bool) or not isinstance(commit_every, int | float) or not 0 <= commit_every <= 3600:
        raise ConfigurationError(f"commit_every must be from 0 to 3600 seconds, got {commit_every!r}")
    for name, value, least in (("max_queued", max_queued, 1), ("max_bytes", max_bytes, 100_000)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(f"{name} must be an integer of at least {least}, got {value!r}")
    if when_full not in _WHEN_FULL:
        raise ConfigurationError(f"when_full must be one of {', '.join(_WHEN_FULL)}, got {when_full!r}")
    if on_delivery is not None and not callable(on_delivery):
        raise ConfigurationError(f"on_delivery must be a function, got {type(on_delivery).__name__}")
    if drain_rate is not None and (
        isinstance(drain_rate, bool) or not isinstance(drain_rate, int | float) or not 0 < drain_rate <= 1e6
    ):
        raise ConfigurationError(f"drain_rate must be messages a second, above 0, got {drain_rate!r}")
    opened_key = None if key is None else read_key(key)
    try:
        bounds = Bounds(max_queued, max_bytes, when_full, None if drain_rate is None else float(drain_rate))
        file = Path(path).expanduser().absolute()
        return DiskJournal(file, float(commit_every), bounds, on_delivery, opened_key)
    except RuntimeError as error:  # of expanduser()
        raise ConfigurationError(f"path: {error}") from None


def read_key(key: str | bytes) -> Key:
    """Return the key of a journal.

    Raises:
        ConfigurationError: it is not one.
    """
    key = hidden(key)
    try:
        return Key("argument", key)
    except ValueError:
        raise ConfigurationError("key must be 32 bytes in URL-safe base64, as Fernet.generate_key() returns") from None


class DiskJournal:
    """A :class:`~mqtt_token_client.mqtt.session.journal.Journal` in a file. Made by :func:`open_journal`."""

    __reduce__ = works_in_one_process

    def __init__(
        self,
        path: Path,
        commit_every: float,
        bounds: Bounds,
        on_delivery: Callable[[Delivery], object] | None,
        key: Key | None,
    ) -> None:
        self.path = path
        self.bounds = bounds
        self.on_delivery = on_delivery
        self._commit_every = commit_every
        self._key = key
        self._channel = Channel()
        self._sequence = count(1)
        self._times_of_day: Callable[[], TimesOfDay] = TimesOfDay
        self._clock_offsets: list[float | None] = [None, None]  # of those noted last, against the monotonic clock
        self._recorded: Recorded | None = None  # None until a client has opened it
        self._is_closed = False
        reset_after_fork(self)

    def __repr__(self) -> str:
        return f"<journal {str(self.path)!r}>"

    def after_fork(self) -> None:
        """In a child: the file is the parent's."""
        self._channel, self._is_closed = Channel(), True

    def open(
        self,
        client_id: str,
        emit: Callable[[Event], None],
        times_of_day: Callable[[], TimesOfDay] = TimesOfDay,
    ) -> None:
        """Open the file for a client. If the disk fails, the client goes on in memory, as :class:`JournalFailed` says.

        Args:
            client_id: the MQTT client identifier, whose session the journal has.
            emit: gets events, on any thread.
            times_of_day: returns what the clocks say that can be trusted.

        Raises:
            JournalLocked: another process uses the file, or another client of this one.
            ConfigurationError: the file is another client's, or no journal of this version of the library, or was
                written with another key.
        """
        if self._recorded is not None:
            raise ConfigurationError(f"journal: a client uses {self.path} already; give each client its own")
        self._channel.emit = emit
        answer: SimpleQueue[Recorded | MqttTokenError] = SimpleQueue()
        from .writer import run  # SQLite is loaded by those who use it only

        arguments = self._channel, self.path, self._key, client_id, self._commit_every, answer.put
        threading.Thread(target=run, args=arguments, name="mqtt-token-journal", daemon=True).start()
        opened = answer.get()
        if isinstance(opened, MqttTokenError):
            raise opened
        self._recorded = opened
        self._times_of_day = times_of_day
        self.note_time()
        atexit.register(self.close)

    def close(self) -> None:
        """Write everything, and close the file. Called when the process ends, too; a client must not use it after
        that.
        """
        if self._recorded is None or self._is_closed:
            return
        self._is_closed, ended = True, OneShot()
        self._channel.put(Batch.end, ended.set)
        self._channel.ring()
        if not ended.wait(_LONGEST_CLOSE):
            _log.warning("%s could not be written within %d s", self.path, _LONGEST_CLOSE)
        atexit.unregister(self.close)

    # Journal

    @property
    def size(self) -> int:
        in_file = self._channel.size
        return in_file + self._channel.in_memory(self.bounds.max_bytes - in_file)

    @property
    def durable(self) -> int:
        return self._channel.durable

    def load(self, notify: Callable[[], None], lost: Callable[[], None]) -> Recorded:
        assert self._recorded is not None, "open() comes first"
        self._channel.notify, self._channel.lost = notify, lost
        return self._recorded

    def append(self, message: RecordedMessage, *, urgent: bool = False) -> None:
        payload = message.payload
        size = size_of(message, payload)
        self._channel.reported += size  # Python runs a signal handler, and another thread, after calls and jumps only
        self._channel.put(Batch.append, message, payload, monotonic())
        if urgent:
            self._hurry(0)

    def mark(self, number: int, packet_id: int, stage: Stage) -> None:
        self._channel.put(Batch.mark, number, packet_id, stage)

    def remove(self, number: int) -> None:
        self._channel.put(Batch.remove, number)

    def received(self, packet_id: int) -> None:
        self._channel.put(Batch.receive, packet_id, True)

    def released(self, packet_id: int) -> None:
        self._channel.put(Batch.receive, packet_id, False)

    def session_lost(self) -> None:
        self._channel.put(Batch.lose_session)

    def note_time(self) -> bool:
        times, at, known = self._times_of_day(), monotonic(), self._clock_offsets
        is_first = is_new = False
        for clock, (time, before) in enumerate(zip(times, known, strict=True)):
            if time is not None and (before is None or abs(time - at - before) >= _TIME_CHANGE):
                known[clock], is_new = time - at, True
                is_first |= before is None
        if is_new:
            self._channel.put(Batch.note_time, times, at)
        return is_first

    def sync(self) -> int:
        sequence = next(self._sequence)
        self._hurry(sequence)
        return sequence

    def read(self, after: int, limit: int, then: Callable[[Sequence[RecordedMessage], bool], None]) -> None:
        self._channel.put(Batch.read, after, limit, then)
        self._channel.ring()

    def flush(self, then: Callable[[], None]) -> None:
        if self._is_closed:
            then()
            return
        self._channel.put(Batch.flush, then)
        self._channel.ring()

    def _hurry(self, sequence: int) -> None:
        self._channel.put(Batch.sync, sequence)
        self._channel.ring()
