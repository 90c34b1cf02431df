"""What has happened since the last commit, reduced to what has to be written.

A message that is acknowledged before its commit is never written, and of several changes only the last one is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..clock import TimesOfDay
from ..mqtt.session.delivery import RecordedMessage, Stage
from ..value import Value

# A message's stage as a number. Higher ones: PUBREC was received; the order of the numbers is that of the PUBRECs.
NEW, SENT, FIRST_RELEASED = 0, 1, 2
_OVERHEAD = 100  # bytes of a row beside its fields


class Counters(Value):
    """What a journal knows of its messages as a whole.

    Attributes:
        count: how many messages are recorded.
        last_number: the highest number of a message so far.
        highest_sent: the highest number of a message that had an identifier. All messages above it are unsent.
        last_stage: the highest number of a stage so far.
    """

    count: int = 0
    last_number: int = 0
    highest_sent: int = 0
    last_stage: int = SENT


def size_of(message: RecordedMessage, payload: bytes) -> int:
    """Return about how many bytes a message takes."""
    return len(message.topic) + len(payload) + len(message.properties) + _OVERHEAD


class _Latest:
    """The counters as of the last change, see :class:`Counters`."""

    def __init__(self, counters: Counters) -> None:
        self.number = counters.last_number
        self.sent = counters.highest_sent
        self.stage = counters.last_stage


class Batch:
    """The changes of one commit. They can be applied twice, as after a failure nobody knows whether they were applied.

    Args:
        counters: as of the last commit.
        ended: see the attribute.

    Attributes:
        appended: messages that are not on disk, by number, with their payloads as they were accepted (a message that is
            delivered loses its payload, perhaps while it is written) and when that was, on the monotonic clock.
        marks: packet identifier and stage of messages whose row has to have them, by number.
        removed: numbers of messages that may be on disk, and are done.
        received: packet identifiers of QoS 2 that were received (True) or released (False).
        sequence: the highest number of a sync() so far, 0 if there was none.
        urgent: whether somebody waits for the commit.
        reads: what to read: numbers above the first one, up to the second one of them, and who gets them.
        flushed: called after the commit, or when it has failed.
        ended: called when the journal is closed, after the last commit; None until then.
        size: about how many bytes the messages in ``appended`` take.
        accepted: the same of all messages that were ever appended.
        uncertain: numbers of messages in ``appended`` that may be on disk, as a commit of them failed, or they were
            reported before.
        time: what the clocks say that can be trusted, and when they said that, on the monotonic clock; None if that is
            nothing new.
        session_lost: whether all that is on disk is at stage NEW, and no identifier there is received. What the other
            attributes say comes after that.
    """

    def __init__(self, counters: Counters, ended: Callable[[], None] | None = None) -> None:
        self.appended: dict[int, tuple[RecordedMessage, bytes, float]] = {}
        self.size = self.accepted = 0
        self.marks: dict[int, tuple[int, int]] = {}
        self.removed: set[int] = set()
        self.received: dict[int, bool] = {}
        self.session_lost = False
        self.time: tuple[TimesOfDay, float] | None = None
        self.sequence = 0
        self.urgent = False
        self.reads: list[tuple[int, int, Callable[[Sequence[RecordedMessage], bool], None]]] = []
        self.flushed: list[Callable[[], None]] = []
        self.ended = ended
        self.uncertain: set[int] = set()
        self._latest = _Latest(counters)

    def __bool__(self) -> bool:
        changed = self.appended or self.marks or self.removed or self.received or self.session_lost or self.time
        return bool(changed)

    @property
    def changes_disk(self) -> bool:
        """Whether it changes what is on disk, and not only adds messages."""
        others = self.removed or self.received or self.session_lost or self.time
        return bool(others or self.marks.keys() - self.appended.keys())

    def counters(self, count: int) -> Counters:
        """Return the counters after this batch; ``count`` messages are recorded then."""
        latest = self._latest
        return Counters(count, latest.number, latest.sent, latest.stage)

    def rebase(self, counters: Counters) -> None:
        """The file was opened, and has these counters."""
        latest = self._latest
        latest.number = max(latest.number, counters.last_number)
        latest.sent = max(latest.sent, counters.highest_sent)
        latest.stage = max(latest.stage, counters.last_stage)

    def failed(self) -> None:
        """A commit of this batch failed, and may have reached the disk all the same: elide nothing of it."""
        self.uncertain.update(self.appended)

    def sync(self, sequence: int) -> None:
        """Somebody waits for the commit of everything up to here, which has this number; 0 for none."""
        self.sequence = max(self.sequence, sequence)
        self.urgent = True

    def flush(self, then: Callable[[], None]) -> None:
        """Have a function called after the commit."""
        self.flushed.append(then)
        self.urgent = True

    def read(self, after: int, limit: int, then: Callable[[Sequence[RecordedMessage], bool], None]) -> None:
        """Read messages, once those that were reported so far are on disk."""
        self.reads.append((after, limit, then))

    def read_from_memory(self, on_disk_to: int) -> None:
        """Answer what is to be read above this number, the highest one on disk; the rest waits for the disk."""
        reads, self.reads = self.reads, []
        for after, limit, then in reads:
            if after < on_disk_to:
                self.reads.append((after, limit, then))
            else:
                then(*self._page(after, limit))

    def _page(self, after: int, limit: int) -> tuple[Sequence[RecordedMessage], bool]:
        page: list[RecordedMessage] = []
        for number in sorted(self.appended):
            message, *_ = self.appended[number]
            if number <= after or not isinstance(message, RecordedMessage) or not message.spilled:
                continue
            if len(page) == limit:
                return page, False
            message.spilled = False  # it is sent from memory, so it keeps its payload when it is written
            page.append(message)
        return page, True

    def end(self, ended: Callable[[], None]) -> None:
        """The journal is closed."""
        self.ended, self.urgent = ended, True

    # What happened, in its order

    def append(self, message: RecordedMessage, payload: bytes, at: float) -> None:
        """A message was accepted, at this time of the monotonic clock."""
        size = size_of(message, payload)
        self.accepted += size
        self.size += size - self._size(message.number)
        self.appended[message.number] = message, payload, at
        if message.number <= self._latest.number:
            self.uncertain.add(message.number)  # reported again: a new file may have it already
        self._latest.number = max(self._latest.number, message.number)

    def mark(self, number: int, packet_id: int, stage: Stage) -> None:
        """A message has a new packet identifier and stage."""
        if packet_id:
            self._latest.sent = max(self._latest.sent, number)
        if stage is Stage.RELEASED:
            self._latest.stage = max(self._latest.stage + 1, FIRST_RELEASED)
            self.marks[number] = packet_id, self._latest.stage
        else:
            self.marks[number] = packet_id, SENT if stage is Stage.SENT else NEW

    def remove(self, number: int) -> None:
        """A message is done."""
        self.marks.pop(number, None)
        self.size -= self._size(number)
        if self.appended.pop(number, None) is None or number in self.uncertain:
            self.removed.add(number)

    def _size(self, number: int) -> int:
        message, payload, _ = self.appended.get(number, (None, b"", 0.0))
        return 0 if message is None else size_of(message, payload)

    def receive(self, packet_id: int, is_received: bool) -> None:
        """A message of QoS 2 with this identifier was handed over, or released."""
        self.received[packet_id] = is_received

    def note_time(self, times: TimesOfDay, at: float) -> None:
        """A clock that can be trusted has said the time of day."""
        self.time = times, at

    def lose_session(self) -> None:
        """The broker has no session."""
        self.session_lost = True
        self.received.clear()
        for number, (packet_id, _) in self.marks.items():
            self.marks[number] = packet_id, NEW
