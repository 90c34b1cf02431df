"""What an application's threads and the network thread share with the journal's thread."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .. import events

if TYPE_CHECKING:
    from .batch import Batch

_MANY = 2000  # changes that may wait in memory before the journal's thread reduces them


class Channel:
    """Changes on their way to the journal's thread, and how far it has come. It has no lock: a signal handler may
    interrupt any of its calls and publish.

    Attributes:
        changes: methods of :class:`~.batch.Batch` with their arguments, in the order in which they happened.
        durable: the sequence number up to which everything is on disk.
        size: bytes of the file that are in use.
        reported: bytes of all messages so far that were handed over, see :meth:`take`.
        is_failing: whether the disk fails, so that messages stay in memory.
        notify: called when more is on disk, or the file has become smaller.
        lost: called when the content of the file is lost, so that everything has to be reported again.
        emit: gets events.
    """

    def __init__(self) -> None:
        self.changes: deque[tuple[Callable[..., None], Any]] = deque()
        self.durable = 0
        self.size = 0
        self.reported = 0
        self.is_failing = False
        self.notify: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self.emit: Callable[[events.Event], None] = lambda _: None
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._ring_above: float = 0  # changes; infinite while the thread is awake or about to be
        self._taken = self._unwritten = 0  # bytes of messages: of all that were taken, and of those not on disk
        self._is_awaited = False

    def put(self, change: Callable[..., None], *arguments: Any) -> None:
        """Hand a change over. May be called on any thread."""
        self.changes.append((change, arguments))
        if len(self.changes) > self._ring_above:
            self.ring()

    def in_memory(self, bound: int) -> int:
        """Return the bytes of the messages that are in memory while the disk fails. At more than ``bound``, have the
        journal's thread see whether some are done, and call ``notify``.
        """
        if not self.is_failing:
            return 0
        found = self._unwritten + self.reported - self._taken
        if found >= bound and self.changes and not self._is_awaited:
            self._is_awaited = True
            self.ring()
        return found

    def take(self, batch: Batch) -> None:
        """On the journal's thread: apply the changes to a batch."""
        changes, before = self.changes, batch.accepted
        is_awaited, self._is_awaited = self._is_awaited, False
        while changes:
            change, arguments = changes.popleft()
            change(batch, *arguments)
        self._taken += batch.accepted - before
        self._unwritten = batch.size
        if is_awaited:
            self.notify()

    def ring(self) -> None:
        """Wake the journal's thread up."""
        self._ring_above = math.inf
        self._bell.put(None)

    def sleep(self, seconds: float | None, *, until_next: bool) -> None:
        """On the journal's thread: wait until the bell rings, or for so many seconds (None: for any time). If
        ``until_next``, the next change rings it, otherwise only many of them do.
        """
        self._ring_above = 0 if until_next else _MANY
        try:
            if len(self.changes) <= self._ring_above:
                self._bell.get(timeout=seconds)
        except Empty:
            pass
        finally:
            self._ring_above = math.inf
