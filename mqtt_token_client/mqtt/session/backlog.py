"""Messages that are on disk only, as too many wait: newer than those in memory, and read when their turn comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from .delivery import RecordedMessage
from .journal import Journal, Recorded

_PAGE = 1000  # messages that are read at once


class Backlog:
    """The messages of one journal that are not in memory. Its methods are called while the queue's lock is held.

    Args:
        journal: the journal.
        recorded: what it has.
        wake: called when messages have been read.

    Attributes:
        count: how many messages there are.
        is_reading: whether some are being read, or were read and not taken yet.
    """

    def __init__(self, journal: Journal, recorded: Recorded, wake: Callable[[], None]) -> None:
        self.count = recorded.count - len(recorded.messages)
        self._journal = journal
        self._wake = wake
        self._last = self._earlier = recorded.last_number
        # Messages up to this one are in memory, or done; if there is a backlog.
        self._read_to = max((one.number for one in recorded.messages), default=0)
        self._deliveries: WeakValueDictionary[int, RecordedMessage] = WeakValueDictionary()  # somebody may wait
        self._removed: set[int] = set()  # numbers of those that may be among what is being read
        self.is_reading = False
        self._pages: deque[tuple[int, Sequence[RecordedMessage], bool]] = deque()  # appended to by the journal's thread

    def add(self, message: RecordedMessage) -> None:
        """A message was accepted, and is reported to the journal."""
        message.spilled = True
        before = message.number - 1
        # A signal handler may have published in the meantime, so that a higher number is there already.
        self._read_to = min(self._read_to, before) if self.count else before
        self._last = max(self._last, message.number)
        self.count += 1
        self._deliveries[message.number] = message

    def remove(self, message: RecordedMessage) -> bool:
        """A message is not to be sent. Return false if it is in memory, or done."""
        if not self.count or message.number <= self._read_to:
            return False
        self.count -= 1
        if self.is_reading:
            self._removed.add(message.number)
        self._deliveries.pop(message.number, None)
        return True

    def take_deliveries(self) -> list[RecordedMessage]:
        """Return the messages that somebody holds, and forget that."""
        found = list(self._deliveries.values())
        self._deliveries.clear()
        return found

    # Reading

    def read(self) -> None:
        """Have the oldest messages read, unless that is under way or there is none."""
        if self.count and not self.is_reading:
            self.is_reading = True
            last = self._last
            self._journal.read(self._read_to, _PAGE, lambda page, complete: self._arrived(last, page, complete))

    def _arrived(self, last: int, page: Sequence[RecordedMessage], complete: bool) -> None:
        self._pages.append((last, page, complete))
        self._wake()

    @property
    def has_arrived(self) -> bool:
        """Whether messages have been read."""
        return bool(self._pages)

    def take(self) -> tuple[list[RecordedMessage], int]:
        """Return the messages that have been read, in their order, and how many are lost: as the file was damaged."""
        last, page, complete = self._pages.popleft()
        self.is_reading = False
        found = []
        for message in page:
            self._read_to = message.number
            if message.number not in self._removed:
                self.count -= 1
                found.append(self._with_delivery(message))
        self._removed.clear()
        if complete:
            self._read_to = max(self._read_to, last)
        if self._read_to < self._last:
            return found, 0
        lost, self.count = self.count, 0
        return found, lost

    def _with_delivery(self, message: RecordedMessage) -> RecordedMessage:
        if message.done:  # it never reached the disk, and its Delivery failed in close()
            message = message.copy()
        if message.disk is None:  # it is of the disk
            message.disk = True
        held = self._deliveries.pop(message.number, None)
        if held is None:
            if message.number <= self._earlier and self._journal.on_delivery is not None:
                message.add_done_callback(self._journal.on_delivery)
            return message
        held.payload = message.payload
        held.spilled = False  # or the payload is dropped again if a new file has to be written
        return held
