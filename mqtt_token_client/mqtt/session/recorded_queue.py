"""A queue whose messages are recorded in a journal: bounded by its size on disk, and by little in memory."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ClientClosed, DeliveryFailed, MqttTokenError, OutboxFull
from ..runtime.base import current
from .backlog import Backlog
from .delivery import Outgoing, RecordedMessage
from .journal import Journal, Recorded
from .pace import DrainPace
from .queue import MessageQueue

# Of messages that have not been sent, or that are not recorded
_MAX_IN_MEMORY, _MAX_BYTES_IN_MEMORY = 10_000, 8_000_000
_FEW_IN_MEMORY = 500  # so few that others are read
_OVERHEAD = 300  # bytes of a message beside its payload

_DROPPED = "the message was dropped, as the journal was full (when_full={!r})"
_LOST = "the message was lost, as the file of the journal was damaged"
_REPLACED = "the message was replaced by a newer one of its topic (replace=True)"


class RecordedQueue(MessageQueue):
    """See :class:`MessageQueue`.

    Args:
        journal: records messages of QoS 1 and 2, and those of QoS 0 that are durable.
        on_drop: called on any thread with the number of messages that were dropped.
        soon: runs a function on the network thread, if the session is open. Called on any thread.

    Attributes:
        pace: how fast a backlog is sent.
    """

    def __init__(
        self,
        journal: Journal,
        on_drop: Callable[[int], None],
        soon: Callable[[Callable[[], None]], None] = lambda _: None,
    ) -> None:
        super().__init__(journal.bounds.max_queued, journal)
        self.message_type = RecordedMessage
        self._record = journal
        self._on_drop = on_drop
        self._soon = soon
        self.pace = DrainPace(journal.bounds.drain_rate, self.wake)
        self._dropped = 0  # written while the lock is held
        # Messages that no journal has: those accepted, and of these the ones that the network thread has finished
        self._unrecorded = self._unrecorded_finished = 0
        self._backlog = Backlog(journal, Recorded(), self._page_arrived)
        self._newest: dict[bytes, RecordedMessage] = {}  # by topic, of those that may be replaced

    def __len__(self) -> int:
        return self._accepted - self._finished - self._dropped

    def restore(self, recorded: Recorded) -> None:
        super().restore(recorded)
        self._backlog = Backlog(self._record, recorded, self._page_arrived)

    def take_up(self, message: Outgoing) -> None:
        """Continue with a message that was accepted earlier, and is not sent."""
        self.new.append(message)
        if isinstance(message, RecordedMessage) and message.replaces:
            newest = self._newest.get(message.topic)
            if newest is None or newest.number <= message.number:  # a newer one may be on disk only
                self._newest[message.topic] = message

    def put(self, message: Outgoing, durable: bool = False, replace: bool = False) -> None:
        assert isinstance(message, RecordedMessage)
        dropped: list[tuple[Outgoing, str]] = []
        before, current.holds_lock = current.holds_lock, True
        try:
            with self._lock:
                if self._closed:
                    raise ClientClosed(f"publish: {self._closed}")
                # A signal handler that publishes here must not remove it as well.
                if replace and (old := self._newest.pop(message.topic, None)) is not None and self._remove(old):
                    dropped.append((old, _REPLACED))
                # A file shrinks at a later commit only. While the disk fails, asking has the journal forget the old.
                recorded = bool(message.qos) or durable
                has_room = self._has_room(recorded=recorded) or bool(dropped)
                accepted = has_room or self._make_room(dropped, recorded=recorded)
                if accepted:
                    if replace:
                        message.replaces = True
                        self._newest[message.topic] = message
                    self._add(message, recorded=recorded, durable=durable)
        finally:
            current.holds_lock = before
        for one, why in dropped:
            if not one.done:  # it may have failed in close()
                one.finish(DeliveryFailed(why))
        if not accepted:
            message.finish(DeliveryFailed(_DROPPED.format("drop_newest")))
        count = sum(why is not _REPLACED for _, why in dropped) + (not accepted)
        if count:
            self._on_drop(count)
            if self._few_in_memory:
                self._read_soon()
        self.wake()

    def _add(self, message: RecordedMessage, *, recorded: bool, durable: bool) -> None:
        if recorded:
            message.disk = False
        else:
            self._unrecorded += 1
        if recorded and self._is_memory_full(message):
            self._accepted = message.number = self._accepted + 1
            self._backlog.add(message)
        else:
            # Python runs signal handlers after calls and jumps only: no other message comes between these two lines.
            self._accepted = message.number = self._accepted + 1
            self.new.append(message)
        if recorded:
            self._record.append(message, urgent=durable)

    def _is_memory_full(self, message: Outgoing) -> bool:
        backlog, waiting, size = self._backlog, len(self.new), len(message.payload) + _OVERHEAD
        # What is being read may have the message too, and comes before it.
        is_behind = backlog.count > 0 or backlog.is_reading
        return is_behind or waiting >= _MAX_IN_MEMORY or waiting * size > _MAX_BYTES_IN_MEMORY

    @property
    def _few_in_memory(self) -> bool:
        """Whether few recorded messages are: those of QoS 0 would hold up what is on disk for as long as they come."""
        waiting = len(self.new)
        if waiting < _FEW_IN_MEMORY:
            return True
        if waiting - (self._unrecorded - self._unrecorded_finished) >= _FEW_IN_MEMORY:
            return False
        # Those of QoS 0 may have left `new`, and not be done: in a rotation, or if the connection takes no more.
        return sum(message.disk is not None for message in list(self.new)) < _FEW_IN_MEMORY

    def _remove(self, message: RecordedMessage) -> bool:
        """Remove a message unless it was sent; return whether it was removed."""
        try:
            self.new.remove(message)
        except ValueError:
            if message.disk is None or not self._backlog.remove(message):  # one that is not recorded was sent
                return False
        self._drop(message)
        return True

    def _drop(self, message: Outgoing) -> None:
        self._dropped += 1
        if message.disk is None:
            self._unrecorded -= 1
        else:
            self._record.remove(message.number)

    def _make_room(self, dropped: list[tuple[Outgoing, str]], *, recorded: bool) -> bool:
        """Return whether the message is to be accepted; a message that made room for it is added to ``dropped``. None
        that is recorded makes room for one that is not, and none that is not makes room in the file.
        """
        bounds = self._record.bounds
        if bounds.when_full == "reject":
            raise OutboxFull(
                f"publish: {len(self)} messages wait already (max_queued, max_bytes); publish less, or wait"
            )
        if bounds.when_full != "drop_oldest":
            return False
        full_file = recorded and self._record.size >= bounds.max_bytes
        try:
            oldest = next(one for one in list(self.new) if one.disk is not None) if full_file else self.new[0]
            if oldest.disk is not None and not recorded:
                return False
            self.new.remove(oldest)
        except (IndexError, StopIteration, ValueError):  # there is none, or it has just been sent
            return False
        self._drop(oldest)
        dropped.append((oldest, _DROPPED.format("drop_oldest")))
        return True

    def _has_room(self, *, recorded: bool) -> bool:
        bounds = self._record.bounds
        if self._record.size >= bounds.max_bytes or len(self) >= bounds.max_queued:
            return False
        return recorded or self._unrecorded - self._unrecorded_finished < _MAX_IN_MEMORY

    def wake(self) -> None:
        """See :meth:`MessageQueue.wake`. The journal calls this too, also when its file has become smaller."""
        wake = self._wake
        if wake is not None:
            wake()
        if self._on_room:
            self._call_on_room()

    def _page_arrived(self) -> None:
        self.wake()
        self._read_soon()

    def _read_soon(self) -> None:
        """Without a connection nothing is sent, so that nobody reads: then there would be no oldest one to drop."""
        if self._wake is not None and self._record.bounds.when_full == "drop_oldest" and self._backlog.count:
            self._soon(self.read_backlog)

    # On the network thread

    def finish(self, message: Outgoing, error: MqttTokenError | None = None) -> None:
        if message.disk is None:
            self._unrecorded_finished += 1
        super().finish(message, error)

    def finish_all(self, messages: list[Outgoing]) -> None:
        self._unrecorded_finished += sum(message.disk is None for message in messages)
        super().finish_all(messages)

    def connected(self, *, rotated: bool) -> None:
        if not rotated:
            self.pace.connected(self.last_number)

    def read_backlog(self) -> None:
        """Continue with messages that are on disk only, if few are in memory."""
        backlog = self._backlog
        if backlog.has_arrived:
            with self._lock:
                messages, lost = backlog.take()
                self._dropped += lost
                self.new.extend(messages)
                for message in messages:
                    newest = self._newest.get(message.topic)
                    if newest is not None and newest.number == message.number:  # its Delivery failed in close()
                        message.replaces = True
                        self._newest[message.topic] = message
                gone = backlog.take_deliveries() if lost else []
            for message in gone:
                message.finish(DeliveryFailed(_LOST))
            if lost:
                self.wake()
        if backlog.count and self._few_in_memory:
            with self._lock:
                backlog.read()

    def backlog_deliveries(self) -> list[RecordedMessage]:
        """Return the messages on disk that somebody holds; they get other Deliveries when they are read."""
        with self._lock:
            return self._backlog.take_deliveries()
