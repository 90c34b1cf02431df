"""The session: what outlives every connection, and what its packets do to it.

It holds the messages on their way out, the identifiers of those that came in, and the subscriptions. A connection
lends it a link to speak over; after a loss the next one goes on where the last one ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass

from ... import events
from ..codec.message import Message
from ..codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Acknowledgement, Packet, Suback, Unsuback
from ..codec.reason_codes import NOT_AUTHORIZED, UNSPECIFIED
from ..transport.connection import NetworkConnection
from .acks import ManualAcks, PendingAck
from .delivery import Outgoing, Stage
from .limits import Limits
from .outbox import Outbox, PacketIds
from .received import ReceivedIds
from .subscriptions import Subscriptions

_DENIED = frozenset((NOT_AUTHORIZED, UNSPECIFIED))  # in SUBACK; MQTT 3.1.1 has the second one only (section 3.9.3)
_FLUSHES_A_TURN = 4
_SENT, _RELEASED = Stage.SENT, Stage.RELEASED  # a member of an Enum takes long to look up


@dataclass(slots=True)
class Counters:
    """What has happened so far."""

    connects: int = 0
    rotations: int = 0
    delivered: int = 0
    received: int = 0
    duplicates: int = 0


class Session:
    """One client's session. All of it runs on the network thread, except ``outbox.put`` and ``change_subscriptions``.

    Args:
        max_queued: messages that may wait to be acknowledged.
        max_inflight: messages of QoS 1 and 2 that may be unacknowledged at once.
        emit: gets events.
        deliver: gets each new message, and the receipt for it if the application is to give it; it does not raise.
        manual: whether the application acknowledges messages of QoS 1 and 2 itself.
        last_packet_id: the packet identifier before the first that is taken.
    """

    def __init__(
        self,
        *,
        max_queued: int,
        max_inflight: int,
        emit: Callable[[events.Event], None],
        deliver: Callable[[Message, PendingAck | None], None],
        manual: bool = False,
        last_packet_id: int = 0,
    ) -> None:
        packet_ids = PacketIds(last_packet_id)
        self.outbox = Outbox(packet_ids, max_queued=max_queued, max_inflight=max_inflight)
        self.subscriptions = Subscriptions(packet_ids)
        self.counters = Counters()
        self._inbox = ReceivedIds()
        self._receipts = ManualAcks()
        self._manual = manual
        self._link: NetworkConnection[Outgoing] | None = None  # that messages come over
        self._changes: deque[Callable[[], None]] = deque()  # of the subscriptions, not made yet
        self._emit = emit
        self._deliver = deliver

    def lost(self) -> None:
        """The broker has not kept it: both sides start anew, without forgetting what is to be sent."""
        self._inbox.session_lost()
        self._receipts.session_lost()
        self.subscriptions.session_lost()
        self.outbox.session_lost()

    def in_doubt(self) -> None:
        """CONNECT went out, and no answer came: the broker may have begun a new session unbeknown to the client, and
        will say truly that there is one.
        """
        self._inbox.session_in_doubt()
        self.subscriptions.session_in_doubt()

    def connection_lost(self, link: NetworkConnection[Outgoing]) -> None:
        """The link is closed: what it did not finish is for the next one."""
        self.outbox.connection_lost(link.unwritten())
        self.subscriptions.connection_lost()
        self._receipts.connection_lost()
        self._link = None

    def change_subscriptions(self, change: Callable[[], None]) -> None:
        """Have a change made, and told to the broker before whatever is published after it."""
        self._changes.append(change)

    def subscribe(self, link: NetworkConnection[Outgoing], limits: Limits) -> None:
        """Send SUBSCRIBE and UNSUBSCRIBE for what is not as the application wants it."""
        while self._changes:
            self._changes.popleft()()
        for topic_filter, reason in self.subscriptions.beyond(limits):
            self._emit(events.SubscriptionRefused(topic_filter, reason))
        for properties, wanted in self.subscriptions.to_subscribe(limits):
            packet_id = self.subscriptions.ask([name for name, _ in wanted])
            link.write(link.engine.subscribe(packet_id, wanted, properties))
        for unwanted in self.subscriptions.to_unsubscribe(limits):
            link.write(link.engine.unsubscribe(self.subscriptions.ask(unwanted), unwanted))
        link.flush()

    def send(self, link: NetworkConnection[Outgoing], limits: Limits) -> bool:
        """Send changed subscriptions, and from the outbox what the socket and the broker take. Returns whether more is
        to be sent when the others have had their turn: who publishes fast fills the outbox as fast as it is emptied.
        """
        if self._changes:
            self.subscribe(link, limits)
        for _ in range(_FLUSHES_A_TURN):
            if link.closed or not link.takes_more():
                return False
            sent = False
            for message in self.outbox.due(limits.receive_maximum):
                if self._changes:  # perhaps made just before this message was published
                    self.subscribe(link, limits)
                self._send_one(link, message, limits)
                sent = True
                if not link.takes_more():
                    break
            link.flush()
            if not sent:
                return False
        return True

    def denied(self, packet: Packet) -> bool:
        """Whether the broker has not done what was asked for lack of rights, and that may be because the token has
        ended: then it waits for :meth:`token_renewed`, or for another connection.
        """
        match packet:
            case Acknowledgement(kind, packet_id, reason) if reason == NOT_AUTHORIZED and kind in (PUBACK, PUBREC):
                return self.outbox.denied(packet_id)
            case Suback(packet_id, reasons) if not _DENIED.isdisjoint(reasons):
                self._subscribed(packet_id, reasons, but=_DENIED)
                return True
        return False

    def token_renewed(self, link: NetworkConnection[Outgoing], limits: Limits) -> None:
        """The connection that is up has got a new token: what was denied is asked for again."""
        self.outbox.token_renewed()
        self.subscriptions.token_renewed()
        self.subscribe(link, limits)

    def written(self, messages: list[Outgoing]) -> None:
        """Messages of QoS 0 have gone out."""
        self.counters.delivered += self.outbox.written(messages)

    def confirmed(self) -> None:
        """What was written of QoS 0 is not to be sent again."""
        self.counters.delivered += self.outbox.confirmed()

    def receive(self, link: NetworkConnection[Outgoing], packet: Packet) -> None:
        """Do what a packet asks for."""
        match packet:
            case Message():
                self.receive_message(link, packet)
            case Acknowledgement():
                self.receive_acknowledgement(link, packet)
            case Suback(packet_id, reasons):
                self._subscribed(packet_id, reasons)
            case Unsuback(packet_id):
                self.subscriptions.unsubscribed(packet_id)
            case _:
                pass  # PINGRESP has done its work by arriving

    def _subscribed(self, packet_id: int, reasons: list[int], but: Container[int] = ()) -> None:
        for topic_filter, reason in self.subscriptions.subscribed(packet_id, reasons):
            if reason not in but:
                self._emit(events.SubscriptionRefused(topic_filter, reason))

    def _send_one(self, link: NetworkConnection[Outgoing], message: Outgoing, limits: Limits) -> None:
        if message.stage is _RELEASED:
            link.write(link.engine.acknowledge(PUBREL, message.packet_id))
            return
        duplicate = message.stage is _SENT
        packet = link.engine.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            message.packet_id,
            duplicate,
            message.properties,
        )
        violation = limits.violation(message.qos, message.retain, len(packet))
        if violation is not None:
            self.outbox.refused(message, violation)
            self._emit(events.DeliveryRefused(message.topic_name, violation))
            return
        message.stage = _SENT
        link.write(packet, None if message.qos else message)

    def receive_message(self, link: NetworkConnection[Outgoing], message: Message) -> None:
        """PUBLISH."""
        if not message.qos:
            self.counters.received += 1
            self._deliver(message, None)
            return
        new = self._inbox.is_new(message)
        receipt = None
        if self._manual:
            self._link = link
            receipt = self._receipts.open(message, new=new)
        if new:
            self.counters.received += 1
            self._deliver(message, receipt)
        else:
            self.counters.duplicates += 1
        if receipt is not None:
            self._send_receipts(link)
        else:
            link.write(link.engine.acknowledge(PUBACK if message.qos == 1 else PUBREC, message.packet_id))

    def acknowledge(self, receipt: PendingAck) -> None:
        """The application is done with a message; the broker is told now, or when it asks again."""
        self._receipts.acknowledge(receipt)
        if self._link is not None:
            self._send_receipts(self._link)
            self._link.flush()

    def _send_receipts(self, link: NetworkConnection[Outgoing]) -> None:
        while (receipt := self._receipts.next()) is not None:
            link.write(link.engine.acknowledge(receipt.kind, receipt.packet_id))

    def receive_acknowledgement(self, link: NetworkConnection[Outgoing], packet: Acknowledgement) -> None:
        """PUBACK, PUBREC, PUBREL or PUBCOMP."""
        kind, packet_id, reason = packet
        if kind == PUBREL:
            self._inbox.released(packet_id)
            link.write(link.engine.acknowledge(PUBCOMP, packet_id))
        elif kind == PUBREC and reason < 0x80:
            self.outbox.received(packet_id)
            link.write(link.engine.acknowledge(PUBREL, packet_id))
        else:
            self._finished(self.outbox.acknowledged(packet_id, reason), reason)

    def _finished(self, message: Outgoing | None, reason: int) -> None:
        if message is None:
            return
        if message.error is None:
            self.counters.delivered += 1
        else:
            self._emit(events.DeliveryRefused(message.topic_name, reason))
