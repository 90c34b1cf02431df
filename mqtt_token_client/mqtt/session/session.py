"""The session: what outlives every connection (MQTT 5 section 4.1), and how packets change it.

It has the messages to send, the identifiers of those received, and the subscriptions; a new connection goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from ... import events
from ..codec.message import cannot_reply
from ..codec.packets import PUBACK, PUBREC, PUBREL, Acknowledgement, Packet, RejectedPublish, Suback, Unsuback
from ..codec.reason_codes import NOT_AUTHORIZED, QUOTAS, UNSPECIFIED
from .delivery import Delivery, Outgoing
from .dispatch import Dispatcher, Handler
from .incoming import Incoming
from .journal import CallSoon, Journal
from .limits import Limits
from .opening import open_outbox
from .packet_ids import PacketIds
from .publishing import UnsendableError, write_message, write_releases
from .reports import Blame, SessionStats
from .subscriptions import Subscriptions, refusals

if TYPE_CHECKING:
    from ..transport import Loss
    from ..transport.connection import NetworkConnection
    from .acks import ManualAcks
    from .suspicion import Suspicion

_DENIED = frozenset((NOT_AUTHORIZED, UNSPECIFIED))  # in SUBACK; MQTT 3.1.1 has the second one only (section 3.9.3)
_FLUSHES_A_TURN = 4
_MANY_INFLIGHT = 200  # a broker is busy with them for longer than a network thread rests: nobody waits for a single one


class Session:
    """One client's session. Runs on the network thread, except ``queue.put``, :meth:`change` and ``stats``, which any
    thread may use.

    Args:
        max_queued: how many messages may wait to be acknowledged.
        max_inflight: how many messages of QoS 1 and 2 may be unacknowledged at once.
        emit: gets events.
        on_message: gets the messages that no subscription has a handler for.
        manual_acks: for messages of QoS 1 and 2 that the application acknowledges; None acknowledges each on arrival.
        last_packet_id: the packet identifier before the first that is taken.
        journal: records the session, and continues that of an earlier process; None without one.
        reply_by: publishes the responses to messages.

    Attributes:
        known: whether the broker has accepted a connection of this session before.
        journal, subscriptions: see above, and what the application wants.
        queue, receive_message, acknowledge: the messages to send, and methods of ``Incoming``.
    """

    def __init__(  # noqa: PLR0913 - the options of a client
        self,
        *,
        max_queued: int,
        max_inflight: int,
        emit: Callable[[events.Event], None],
        on_message: Handler | None = None,
        manual_acks: ManualAcks | None = None,
        last_packet_id: int = 0,
        journal: Journal | None = None,
        reply_by: Callable[..., Delivery] = cannot_reply,
    ) -> None:
        self.known = False
        self._emit = emit
        self.journal = journal
        self._began = 0  # what the journal must have on disk before anything is sent
        packet_ids = PacketIds(last_packet_id)
        self._outbox = open_outbox(
            journal, packet_ids, lambda: self._incoming, emit, max_queued=max_queued, max_inflight=max_inflight
        )
        self.queue = self._outbox.queue
        self.subscriptions = Subscriptions(packet_ids)
        dispatcher = Dispatcher(self.subscriptions.routes, on_message, emit, reply_by)
        was_received = self._outbox.was_received
        self._incoming = Incoming(dispatcher, manual_acks=manual_acks, journal=journal, received=was_received)
        self.receive_message = self._incoming.receive
        self.acknowledge = self._incoming.acknowledge
        self._delivered = self._connects = self._rotations = 0
        self._suspicion: Suspicion | None = None

    # For the application, on any thread

    def change(self, change: Callable[[Subscriptions], None]) -> None:
        """Change the subscriptions before anything that is published later."""
        self.subscriptions.change(lambda: change(self.subscriptions))
        self.queue.wake_or(self.subscriptions.make_changes)

    def make_changes(self) -> None:
        """While there is no connection: keep the changes from piling up. Runs on the network thread."""
        if self.queue.is_open:
            self.subscriptions.make_changes()

    @property
    def stats(self) -> SessionStats:
        """What has happened so far."""
        return SessionStats(
            queued=len(self.queue),
            inflight=self._outbox.inflight,
            delivered=self._delivered,
            received=self._incoming.handed_over,
            duplicates=self._incoming.duplicates,
            connects=self._connects,
            rotations=self._rotations,
        )

    # Connections

    def open(self, call_soon: CallSoon, wake: Callable[[], None]) -> None:
        """Accept messages, also again after :meth:`close`. On any thread, ``call_soon`` runs a function on the network
        thread, and ``wake`` has :meth:`send` called soon."""
        self._incoming.open(call_soon)
        self._outbox.open(call_soon, wake)

    def close(self, inherited: str = "") -> int:
        """Accept no more messages, fail those that are queued, and return how many these are. If ``inherited`` says why
        a child cannot use the session of its parent, refuse subscriptions too; the parent goes on with it.
        """
        self._incoming.close()
        if inherited:
            self.subscriptions.close(inherited)
        return self._outbox.close(inherited)

    def connected(
        self, connection: NetworkConnection[Outgoing], broker: str, *, session_present: bool, rotated: bool = False
    ) -> None:
        """The broker has accepted a connection, the one before being lost; ``rotated`` if that was planned."""
        self.known = True
        self.subscriptions.connected(broker, session_present=session_present)
        self._connects += 1
        self._rotations += rotated
        self.queue.connected(rotated=rotated)
        has_news = self.journal is not None and self.journal.note_time()
        if session_present:
            if self._suspicion is None or not self._suspicion.isolating:
                write_releases(connection, self._outbox.ids.unfinished)
        else:  # both sides start over; what is to be sent stays
            self._incoming.session_lost()
            self._outbox.session_lost()
            if self.journal is not None:
                self.journal.session_lost()
        if self.journal is not None and (has_news or not session_present):
            self._began = self.journal.sync()

    def in_doubt(self) -> None:
        """CONNECT was sent and not answered: the broker may have begun a new session, and will report it as present."""
        self._incoming.session_in_doubt()
        self.subscriptions.session_in_doubt()

    def connection_lost(
        self, connection: NetworkConnection[Outgoing], loss: Loss | None = None, *, early: bool = True
    ) -> Blame:
        """The connection is closed; the next one continues what it did not finish. ``loss`` says how it ended, if
        nobody planned that, and ``early`` whether it had just begun. Return whether a packet made the broker end it.
        """
        suspected = False
        if loss is not None and loss.reason in QUOTAS:
            self._outbox.quota_exceeded()
        elif loss is not None and (self._outbox.answers.wrong_for or (loss.by_broker and early)):
            if self._suspicion is None:
                from .suspicion import Suspicion

                self._suspicion = Suspicion(self._outbox, self.subscriptions, self._emit)
            suspected = self._suspicion.ended(loss)
        self._outbox.connection_lost(connection.unwritten())
        self.subscriptions.connection_lost()
        self._incoming.connection_lost()
        return self._suspicion.found() if self._suspicion is not None and suspected else Blame.NOTHING

    def token_renewed(self) -> None:
        """The connection has got a new token by re-authentication: ask again for what was denied."""
        self._rotations += 1
        if self.journal is not None:
            self.journal.note_time()
        self._outbox.token_renewed()
        self.subscriptions.token_renewed()

    # Sending

    def send(self, connection: NetworkConnection[Outgoing], limits: Limits) -> bool:
        """Send what waits, as far as the connection and the broker accept it. Return whether to call it again when
        other clients have had their turn: a fast publisher fills the outbox as fast as it is emptied.
        """
        if self.journal is not None:
            if self.journal.durable < self._began:
                return False
            self._incoming.send_recorded(connection, self.journal)
        outbox, subscriptions, suspicion = self._outbox, self.subscriptions, self._suspicion
        if suspicion is None and not (subscriptions.outdated or outbox.waits()):
            connection.flush()
            return False
        most = limits.receive_maximum
        for _ in range(_FLUSHES_A_TURN):
            if not connection.takes_more():
                return False
            if subscriptions.outdated:
                self._send_subscriptions(connection, limits)
            sent = False
            for message in outbox.due(most) if suspicion is None else suspicion.due(connection, most):
                if subscriptions.outdated:  # perhaps changed just before this message was published
                    self._send_subscriptions(connection, limits)
                sent = True
                try:
                    if not write_message(connection, message, limits):
                        break
                except UnsendableError as why:
                    outbox.fail_unsent(message, why.error)
                    self._emit(why.event)
            connection.flush(awaited=outbox.inflight < _MANY_INFLIGHT)
            if not (sent and outbox.waits()):
                return False
        return True

    def _send_subscriptions(self, connection: NetworkConnection[Outgoing], limits: Limits) -> None:
        if self._suspicion is not None and not self._suspicion.may_send(connection):
            return
        alone = self._suspicion is not None and self._suspicion.isolating
        for topic_filter, reason in self.subscriptions.send(connection, limits, alone=alone):
            self._emit(events.SubscriptionRefused(topic_filter, reason))

    def written(self, messages: list[Outgoing]) -> None:
        """The operating system has accepted messages of QoS 0."""
        self._delivered += self._outbox.at_qos_0.written(messages)

    def keep_written(self) -> None:
        """From now on, keep messages of QoS 0 that were written, until they are confirmed or the connection is lost."""
        self._outbox.at_qos_0.keep()

    def confirmed(self) -> None:
        """The messages of QoS 0 that were kept are not to be sent again."""
        self._delivered += self._outbox.at_qos_0.confirmed()

    def receive(
        self, connection: NetworkConnection[Outgoing], packet: RejectedPublish | Acknowledgement | Suback | Unsuback
    ) -> None:
        """Do what a packet asks for.

        Raises:
            ProtocolError: MQTT does not allow it.
        """
        if isinstance(packet, Acknowledgement):
            self.receive_acknowledgement(connection, packet)
        elif isinstance(packet, RejectedPublish):
            if self._incoming.reject(connection, packet):
                self._emit(events.MessageRejected(packet.topic, packet.reason, packet.size, packet.violation))
        else:
            self._request_answered(packet)

    def receive_acknowledgement(self, connection: NetworkConnection[Outgoing], packet: Acknowledgement) -> None:
        """:meth:`receive` for PUBACK, PUBREC, PUBREL and PUBCOMP."""
        kind, packet_id = packet.kind, packet.packet_id
        if kind == PUBREL:
            self._incoming.released(connection, packet_id)
        elif packet.reason >= 0x80:
            self._rejected(connection, packet)
        elif kind != PUBREC:
            if self._outbox.acknowledged(kind, packet_id, packet.reason) is not None:
                self._delivered += 1
        elif (released := self._outbox.received(packet_id)) is not None:
            connection.write(connection.engine.acknowledge(PUBREL, packet_id, released))

    def _rejected(self, connection: NetworkConnection[Outgoing], packet: Acknowledgement) -> None:
        message, release = self._outbox.rejected(packet)
        if release:
            connection.write(connection.engine.acknowledge(PUBREL, packet.packet_id))
        if message is not None and message.error is None:
            self._delivered += 1
        elif message is not None:
            self._emit(events.DeliveryRefused(message.topic_name, packet.reason, reason_string=packet.text))
        elif packet.reason in QUOTAS:
            from .quota import pause  # few brokers have one

            pause(self._outbox, connection, packet, self._emit)

    def _request_answered(self, packet: Suback | Unsuback, ignored: Container[int] = ()) -> None:
        if self._suspicion is not None:
            self._suspicion.answered(packet.packet_id)
        for refusal in refusals(self.subscriptions, packet):
            if refusal.reason not in ignored:
                self._emit(refusal)

    def denied(self, packet: Packet) -> bool:
        """Whether the broker has rejected something for lack of rights, and the reason may be that the token has
        expired: then it waits for :meth:`token_renewed`, or for another connection.
        """
        match packet:
            case Acknowledgement(kind, packet_id, reason, _) if reason == NOT_AUTHORIZED and kind in (PUBACK, PUBREC):
                return self._outbox.denied(packet_id)
            case Suback() | Unsuback() if not _DENIED.isdisjoint(packet.reasons):
                self._request_answered(packet, ignored=_DENIED)
                return True
        return False
