"""An outbox whose messages are recorded in a journal, so that another process continues where this one ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from ...errors import DeliveryFailed
from .delivery import Outgoing, RecordedMessage, Stage
from .journal import CallSoon
from .journal_link import JournalLink
from .outbox import CLOSED, DISCONNECTED, Outbox, in_order
from .packet_ids import PacketIds
from .recorded_queue import RecordedQueue

_NEW, _SENT, _RELEASED = Stage  # looking up a member of an Enum takes long


def _nothing() -> None:
    """Is called while no other thread is in put()."""


class RecordedOutbox(Outbox):
    """Reports each change of a message's stage to the journal, and holds back the packets that must not go out before
    the journal has everything on disk.

    Args:
        packet_ids, max_inflight: see :class:`Outbox`.
        link: to the journal.
    """

    def __init__(self, packet_ids: PacketIds, *, max_inflight: int, link: JournalLink) -> None:
        self._recorded = RecordedQueue(link.journal, link.dropped, link.soon)
        super().__init__(packet_ids, self._recorded, max_inflight=max_inflight, journal=link.journal)
        self._link = link
        self._record = link.journal
        # In flight, but their packets wait for the journal to reach the sequence number
        self._recording: deque[tuple[int, Outgoing]] = deque()
        recorded = link.load(self.queue.wake, self)
        self.was_received = recorded.received
        self.queue.restore(recorded)
        for message in recorded.messages:
            message.disk = True
            if link.journal.on_delivery is not None:
                message.add_done_callback(link.journal.on_delivery)
        self._take_up(recorded.messages)

    def open(self, call_soon: CallSoon, wake: Callable[[], None]) -> None:
        super().open(call_soon, wake)
        self._link.open(call_soon)

    def sent(self) -> list[Outgoing]:
        """See :meth:`Outbox.sent`. A message whose packet waits for the disk is among them, so that nothing overtakes
        it. Once it is on disk, it is not: it would wait for itself.
        """
        durable = self._record.durable
        on_disk = {message for sequence, message in self._recording if sequence <= durable}
        return [message for message in super().sent() if message not in on_disk]

    def waits(self) -> bool:
        return True  # perhaps on disk

    def due(self, receive_maximum: int | None) -> Iterator[Outgoing]:
        self._recorded.read_backlog()
        return self._due_and_recorded(receive_maximum) if self._recording else self._reported(receive_maximum)

    def _due_and_recorded(self, receive_maximum: int | None) -> Iterator[Outgoing]:
        while self._recording and self._recording[0][0] <= self._record.durable:
            _, message = self._recording.popleft()
            if self._inflight.get(message.packet_id) is not message:
                continue  # it was acknowledged before its time
            if message.stage is _NEW:
                message.stage = _SENT
            yield message
        yield from self._reported(receive_maximum)

    def _reported(self, receive_maximum: int | None) -> Iterator[Outgoing]:
        for message in self._recorded.pace.limit(super().due(receive_maximum)):
            if message.disk is not None and message.stage is _SENT and not message.duplicate:
                self.queue.alone(_nothing)  # return when put() has reported it
                if message.qos:
                    self._record.mark(message.number, message.packet_id, _SENT)
                if message.qos == 2 and not self._is_durable(message):
                    message.stage = _NEW  # until it is sent
                    continue
            elif message.stage is _RELEASED and not self._is_durable(message):
                continue
            yield message

    def _is_durable(self, message: Outgoing) -> bool:
        """Whether everything reported so far is on disk; otherwise the next packet of a message waits for that."""
        sequence = self._record.sync()
        if sequence <= self._record.durable and not self._recording:  # not before those that wait already
            return True
        self._recording.append((sequence, message))
        return False

    def received(self, packet_id: int) -> int | None:
        reason = super().received(packet_id)
        if reason != 0:
            return reason
        message = self._inflight[packet_id]
        self._record.mark(message.number, packet_id, _RELEASED)
        return 0 if self._is_durable(message) else None

    def connection_lost(self, unwritten: list[Outgoing]) -> None:
        super().connection_lost(unwritten)
        self._recording.clear()

    # From one process to the next

    def _take_up(self, messages: Collection[Outgoing]) -> None:
        """Continue with messages, those at RELEASED in the order of their PUBRECs."""
        for message in in_order(messages):
            message.duplicate = message.stage is _SENT
            if message.packet_id:
                self.ids.reserve(message.packet_id)
                self._inflight[message.packet_id] = message
                self._again.append(message)
            else:
                self._recorded.take_up(message)
        self._unsent = set(self._inflight)

    def close(self, inherited: str = "") -> int:
        """Accept no more messages, and fail the deliveries of those that are queued. Those in the journal are sent when
        the client connects again, or by another process. Return how many others there are.

        Args:
            inherited: why a child cannot use the outbox of its parent, which goes on with it.
        """
        self._recording.clear()
        if inherited:
            return super().close(inherited)
        kept: list[RecordedMessage] = []
        others: list[Outgoing] = []
        new: list[Outgoing] = []
        self.queue.alone(lambda: new.extend(self.queue.close(DISCONNECTED)))
        for message in (*self._in_memory(), *new):
            if isinstance(message, RecordedMessage) and message.disk is not None:
                kept.append(message)
            else:
                others.append(message)
        self._inflight.clear()
        self._denied.clear()
        self._again = deque()
        self.queue.new.extend(others)
        abandoned = super().close()
        self._link.close()
        self._take_up([message.copy() for message in kept])
        for message in (*kept, *self._recorded.backlog_deliveries()):
            message.finish(DeliveryFailed(f"{CLOSED}; the journal has it, and it is sent after the next connect()"))
        return abandoned

    def _in_memory(self) -> Iterator[Outgoing]:
        """All but those that have never been sent."""
        yield from self._inflight.values()
        yield from (message for message in self._again if not message.packet_id)
        yield from self._denied

    def report_again(self) -> None:
        """Report everything to a journal that has lost what it had."""
        self.queue.alone(self._report_all)  # or a message that publish() replaces meanwhile stays in the new file

    def _report_all(self) -> None:
        for message in (*self._in_memory(), *self.queue.new):
            if isinstance(message, RecordedMessage) and message.disk is not None:
                self._record.append(message)
                if message.packet_id:
                    self._record.mark(message.number, message.packet_id, message.stage)
