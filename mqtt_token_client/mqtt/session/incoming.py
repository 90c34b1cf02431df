"""Messages from the broker: which are new, who handles them, and when they are acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from ..codec.message import Message
from ..codec.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, RejectedPublish, malformed
from ..codec.reason_codes import (
    IDENTIFIER_NOT_FOUND,
    IMPLEMENTATION_SPECIFIC,
    PACKET_TOO_LARGE,
    QUOTA_EXCEEDED,
)
from .delivery import Outgoing
from .dispatch import Dispatcher
from .journal import CallSoon, Journal
from .received import ReceivedIds

if TYPE_CHECKING:
    from ..transport.connection import NetworkConnection
    from .acks import ManualAcks, PendingAck

# PUBACK and PUBREC have fewer reason codes than the decoder (MQTT 5 sections 3.4.2.1 and 3.5.2.1).
_ANSWERS = {QUOTA_EXCEEDED: QUOTA_EXCEEDED, PACKET_TOO_LARGE: QUOTA_EXCEEDED}


class Incoming:
    """The receiving half of a session. Runs on the network thread.

    Args:
        dispatcher: hands each new message to the application.
        manual_acks: for messages of QoS 1 and 2 that the application acknowledges; None acknowledges each on arrival.
        journal: records the identifiers of QoS 2; None without one.
        received: identifiers of QoS 2 that an earlier process received, and the broker has not released.

    Attributes:
        handed_over, duplicates: statistics: messages that were handed to the application, and that were not as they
            had been before.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        manual_acks: ManualAcks | None,
        journal: Journal | None,
        received: Iterable[int],
    ) -> None:
        self.handed_over = self.duplicates = 0
        self._dispatcher = dispatcher
        self._manual_acks = manual_acks
        self._journal = journal
        self._ids = ReceivedIds(received)
        self._malformed: set[int] = set()  # identifiers of malformed messages that have ended a connection
        self._connection: NetworkConnection[Outgoing] | None = None  # that messages of QoS 1 and 2 came over last
        self._recording: deque[tuple[int, bytes]] = deque()  # acks, each with the sequence number awaited
        self._call_soon: CallSoon | None = None

    def open(self, call_soon: CallSoon) -> None:
        """Let the application acknowledge messages, which ``call_soon`` brings to the network thread."""
        self._call_soon = call_soon

    def close(self) -> None:
        """Ignore what the application acknowledges from now on; the broker sends it again on the next connection."""
        self._call_soon = None
        if self._manual_acks is not None:
            for packet_id in self._manual_acks.close():
                self._ids.forget(packet_id)

    def receive(self, connection: NetworkConnection[Outgoing], message: Message) -> None:
        """PUBLISH: hand a new message over, and acknowledge it."""
        if not message.qos:
            self.handed_over += 1
            self._dispatcher.dispatch(message)
            return
        new = self._ids.is_new(message)
        if new:
            self.handed_over += 1
        else:
            self.duplicates += 1
        self._connection = connection
        if self._manual_acks is not None:
            self._receive_manually(connection, message, self._manual_acks, new=new)
            return
        if new:
            self._dispatcher.dispatch(message)
        kind = PUBACK if message.qos == 1 else PUBREC
        if self._journal is None:  # without another call, for nearly every message comes here
            connection.write(connection.engine.acknowledge(kind, message.packet_id))
        else:
            self._acknowledge(connection, kind, message.packet_id)

    def reject(self, connection: NetworkConnection[Outgoing], packet: RejectedPublish) -> bool:
        """Answer a PUBLISH that cannot be accepted, so that the broker does not send it again. A malformed one ends
        the connection (MQTT 5 section 4.13) and is answered when it comes again. Return whether it is done with.
        """
        if packet.violation and packet.packet_id not in self._malformed:
            self._malformed.add(packet.packet_id)
            connection.fail(malformed(PUBLISH, packet.violation, packet.reason))
            return False
        self._malformed.discard(packet.packet_id)
        if not packet.qos:
            return True
        kind, reason = PUBACK if packet.qos == 1 else PUBREC, _ANSWERS.get(packet.reason, IMPLEMENTATION_SPECIFIC)
        if kind == PUBREC and connection.engine.five:  # PUBREC with an error releases the identifier (section 4.3.3)
            self._ids.released(packet.packet_id)
        if self._manual_acks is None:
            connection.write(connection.engine.acknowledge(kind, packet.packet_id, reason))
        else:
            self._manual_acks.reject(packet.packet_id, kind, reason)
            self._send_due(connection, self._manual_acks)
        return True

    def _receive_manually(
        self, connection: NetworkConnection[Outgoing], message: Message, acks: ManualAcks, *, new: bool
    ) -> None:
        ack = acks.open(message, new=new)
        self._ids.held = acks.held
        if new and acks.by_handlers:
            message.pending_ack = ack
            ack.holders = len(self._dispatcher.dispatch(message))
            if not ack.holders:
                acks.acknowledge(ack)  # nobody else would
        elif new:
            handed_over = Message(
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                message.duplicate,
                message.properties,
                message.packet_id,
                partial(self.acknowledge, [ack]),
            )
            if not self._dispatcher.dispatch(handed_over):
                acks.acknowledge(ack)  # nobody else would
        self._send_due(connection, acks)

    def acknowledge(self, processed: list[PendingAck]) -> None:
        """The application has processed these messages. May be called on any thread."""
        call_soon = self._call_soon
        if call_soon is not None:
            assert self._manual_acks is not None
            call_soon(partial(self._acknowledge_manually, self._manual_acks, processed))

    def _acknowledge_manually(self, acks: ManualAcks, processed: list[PendingAck]) -> None:
        for ack in processed:
            acks.acknowledge(ack)
        if self._connection is not None:
            self._send_due(self._connection, acks)
            self._connection.flush()

    def _send_due(self, connection: NetworkConnection[Outgoing], acks: ManualAcks) -> None:
        while (ack := acks.next()) is not None:
            if ack.rejection:
                connection.write(connection.engine.acknowledge(ack.kind, ack.packet_id, ack.rejection))
            else:
                self._acknowledge(connection, ack.kind, ack.packet_id)

    def released(self, connection: NetworkConnection[Outgoing], packet_id: int) -> None:
        """PUBREL: forget the identifier, and send PUBCOMP. After a lost connection it may be forgotten already, which
        PUBCOMP says (MQTT 5 section 3.7.2.1).
        """
        known = self._ids.released(packet_id)
        pubcomp = connection.engine.acknowledge(PUBCOMP, packet_id, 0 if known else IDENTIFIER_NOT_FOUND)
        if self._journal is None:
            connection.write(pubcomp)
            return
        if known:
            self._journal.released(packet_id)
        self._record(connection, pubcomp, self._journal)

    def _acknowledge(self, connection: NetworkConnection[Outgoing], kind: int, packet_id: int) -> None:
        packet = connection.engine.acknowledge(kind, packet_id)
        if self._journal is None or kind == PUBACK:
            connection.write(packet)
        else:
            self._journal.received(packet_id)
            self._record(connection, packet, self._journal)

    def _record(self, connection: NetworkConnection[Outgoing], packet: bytes, journal: Journal) -> None:
        """Write PUBREC or PUBCOMP once the journal has on disk what was reported to it."""
        self._recording.append((journal.sync(), packet))
        self.send_recorded(connection, journal)

    def send_recorded(self, connection: NetworkConnection[Outgoing], journal: Journal) -> None:
        """Write the acknowledgements that the journal has on disk by now."""
        while self._recording and self._recording[0][0] <= journal.durable:
            connection.write(self._recording.popleft()[1])

    def report_again(self) -> None:
        """Report everything to a journal that has lost what it had. What the application still holds is recorded when
        it is acknowledged: the next process has to hand it over again.
        """
        assert self._journal is not None
        held = self._manual_acks.held_ids if self._manual_acks is not None else frozenset()
        for packet_id in self._ids.received - held:
            self._journal.received(packet_id)

    def connection_lost(self) -> None:
        """The broker sends again what was not acknowledged."""
        self._connection = None
        self._ids.connection_lost()
        self._recording.clear()
        if self._manual_acks is not None:
            self._manual_acks.connection_lost()

    def session_in_doubt(self) -> None:
        """The broker may have begun a new session."""
        self._ids.session_in_doubt()

    def session_lost(self) -> None:
        """The broker has a new session, so its packet identifiers start over."""
        self._ids.session_lost()
        self._malformed.clear()
        if self._manual_acks is not None:
            self._manual_acks.session_lost()
