"""A journal whose writes to disk the test controls: what was reported is on disk once the test commits it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mqtt_token_client.mqtt.session.delivery import Delivery, Outgoing, RecordedMessage, Stage
from mqtt_token_client.mqtt.session.journal import Bounds, Recorded

_Row = tuple[bytes, bytes, int, bool, bytes, int, Stage]


@dataclass
class _Record:
    """What is recorded: the rows by number, those that were released last in the end."""

    rows: dict[int, _Row] = field(default_factory=dict)
    received: set[int] = field(default_factory=set)

    def copy(self) -> _Record:
        return _Record(dict(self.rows), set(self.received))


class ScriptedJournal:
    """Notes every call.

    Attributes:
        automatic: whether to commit at each sync().
        calls: what was reported, as tuples of the method's name and its arguments; a message as its number.
        on_append: called by append() before it returns.
        loaded: what load() returned.
    """

    def __init__(self, *, automatic: bool = False, record: _Record | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.durable = 0
        self.size = 0
        self.bounds = Bounds()
        self.on_delivery: Callable[[Delivery], object] | None = None
        self.on_append: Callable[[], None] = lambda: None
        self.notify: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self.loaded = Recorded()
        self.automatic = automatic
        self._seen = 0
        self._now = record or _Record()
        self._on_disk = self._now.copy()
        self._lock = threading.Lock()

    # What the test does

    def commit(self) -> None:
        """Everything reported so far is on disk."""
        with self._lock:
            self._on_disk = self._now.copy()
            self.durable = len(self.calls)
        self.notify()

    def after_power_cut(self) -> ScriptedJournal:
        """The journal that the next process finds."""
        return ScriptedJournal(automatic=self.automatic, record=self._on_disk.copy())

    def after_death(self) -> ScriptedJournal:
        """The journal that the next process finds if everything had reached the disk when this one died."""
        return ScriptedJournal(automatic=self.automatic, record=self._now.copy())

    @property
    def empty(self) -> bool:
        """Whether nothing is waiting, in either direction."""
        return not self._now.rows and not self._now.received

    def reported(self) -> list[tuple[object, ...]]:
        """What was reported since the last time."""
        reported, self._seen = self.calls[self._seen :], len(self.calls)
        return reported

    # Journal

    def load(self, notify: Callable[[], None], lost: Callable[[], None]) -> Recorded:
        self.notify, self.lost = notify, lost
        messages = []
        for number, (topic, payload, qos, retain, properties, packet_id, stage) in self._now.rows.items():
            message = RecordedMessage(topic, payload, qos, retain, properties)
            message.number, message.packet_id, message.stage = number, packet_id, stage
            messages.append(message)
        received, last_number = frozenset(self._now.received), max(self._now.rows, default=0)
        self.loaded = Recorded(messages, received, last_number, len(messages))
        return self.loaded

    def append(self, message: Outgoing, *, urgent: bool = False) -> None:
        m = message
        with self._lock:
            self.calls.append(("append", m.number))
            self._now.rows[m.number] = (m.topic, m.payload, m.qos, m.retain, m.properties, m.packet_id, m.stage)
        self.on_append()

    def mark(self, number: int, packet_id: int, stage: Stage) -> None:
        with self._lock:
            self.calls.append(("mark", number, packet_id, stage))
            if (row := self._now.rows.pop(number, None)) is not None:
                self._now.rows[number] = (*row[:5], packet_id, stage)

    def remove(self, number: int) -> None:
        with self._lock:
            self.calls.append(("remove", number))
            self._now.rows.pop(number, None)

    def received(self, packet_id: int) -> None:
        self.calls.append(("received", packet_id))
        self._now.received.add(packet_id)

    def released(self, packet_id: int) -> None:
        self.calls.append(("released", packet_id))
        self._now.received.discard(packet_id)

    def session_lost(self) -> None:
        self.calls.append(("session_lost",))
        self._now.received.clear()
        self._now.rows = {number: (*row[:6], Stage.NEW) for number, row in self._now.rows.items()}

    def read(self, after: int, limit: int, then: Callable[[Sequence[RecordedMessage], bool], None]) -> None:
        raise AssertionError("everything is in memory")

    def flush(self, then: Callable[[], None]) -> None:
        then()

    def note_time(self) -> bool:
        return False

    def sync(self) -> int:
        if self.automatic:
            self.commit()
        return len(self.calls)
