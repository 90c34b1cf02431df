"""What an application's threads and the network thread share with the journal's thread."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from .. import events

_MANY = 2000  # changes that may wait in memory before the journal's thread reduces them


class Channel:
    """Changes on their way to the journal's thread, and how far it has come. It has no lock: a signal handler may
    interrupt any of its calls and publish.

    Attributes:
        changes: methods of :class:`~.batch.Batch` with their arguments, in the order in which they happened.
        durable: the sequence number up to which everything is on disk.
        size: bytes of the file that are in use.
        notify: called when that has grown.
        lost: called when the content of the file is lost, so that everything has to be reported again.
        emit: gets events.
    """

    def __init__(self) -> None:
        self.changes: deque[tuple[Callable[..., None], Any]] = deque()
        self.durable = 0
        self.size = 0
        self.notify: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self.emit: Callable[[events.Event], None] = lambda _: None
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._ring_above: float = 0  # changes; infinite while the thread is awake or about to be

    def put(self, change: Callable[..., None], *arguments: Any) -> None:
        """Hand a change over. May be called on any thread."""
        self.changes.append((change, arguments))
        if len(self.changes) > self._ring_above:
            self.ring()

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
