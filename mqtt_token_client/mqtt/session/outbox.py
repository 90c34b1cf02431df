"""Messages that publish() accepted and the broker has not acknowledged, in the order of their acceptance.

The outbox outlives every connection: what was sent and not acknowledged is sent again on the next one, before anything
newer. Each change of a message's stage happens here:

    NEW       accepted, or to be sent as a new message: the session was lost, or the broker denied it
    SENT      PUBLISH was sent, PUBACK or PUBREC is awaited
    RELEASED  PUBREC was received, PUBREL is due or was sent, PUBCOMP is awaited
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from ...errors import DeliveryFailed
from ..codec.packets import PUBACK, PUBREC, Acknowledgement
from ..codec.reason_codes import IDENTIFIER_NOT_FOUND
from .delivery import Answers, Outgoing, Stage, rejection
from .flow import InflightWindow
from .journal import CallSoon, Journal
from .packet_ids import HIGHEST_PACKET_ID, PacketIds
from .queue import MessageQueue, WrittenMessages

_NEW, _SENT, _RELEASED = Stage  # looking up a member of an Enum takes long

# MQTT 3.1.1 cannot announce this; Mosquitto closes the connection at more than its max_inflight_messages.
_QOS_2_WINDOW_IF_NOT_ANNOUNCED = 20
_MAX_COLLISIONS = 1000  # an earlier process leaves fewer identifiers in use than that
CLOSED = "the client was closed before the message was acknowledged"
DISCONNECTED = "the client has been disconnected; call connect() again first"


def in_order(messages: Collection[Outgoing]) -> deque[Outgoing]:
    """Sort messages that are sent again by number; those at RELEASED keep their order among themselves, that of the
    PUBRECs [MQTT-4.6.0-4].
    """
    released = iter([message for message in messages if message.stage is Stage.RELEASED])
    by_number = sorted(messages, key=lambda message: message.number)
    return deque(next(released) if message.stage is Stage.RELEASED else message for message in by_number)


class Outbox:
    """The messages in flight, and those that wait for their turn. Runs on the network thread.

    Args:
        packet_ids: shared with everything else that takes identifiers in this session.
        queue: the accepted messages.
        max_inflight: how many messages of QoS 1 and 2 may be unacknowledged at once, at most.
        journal: records the messages; see :class:`~.recorded_outbox.RecordedOutbox`, which records their stages.

    Attributes:
        ids, queue: the packet identifiers; the accepted messages, whose ``put`` may be called on any thread.
        at_qos_0: what becomes of messages of QoS 0 that were written.
        window: how many messages may be unacknowledged.
        was_received: the identifiers of messages of QoS 2 that an earlier process received.
        answers: checks the broker's.
    """

    was_received: frozenset[int] = frozenset()

    def __init__(
        self, packet_ids: PacketIds, queue: MessageQueue, *, max_inflight: int, journal: Journal | None = None
    ) -> None:
        self.queue = queue
        self.at_qos_0 = WrittenMessages(self.queue)
        self.ids = packet_ids
        self._journal = journal
        self.window = InflightWindow(max_inflight)
        self.answers = Answers()
        self._inflight: dict[int, Outgoing] = {}  # by packet identifier; at RELEASED in the order of the PUBRECs
        self._again: deque[Outgoing] = deque()  # to be sent before anything new
        self._unsent: set[int] = set()  # the identifiers of those in flight that this connection is still to send
        self._denied: list[Outgoing] = []  # wait for a new token
        self._collisions = 0  # how often in a row an identifier was in use

    def open(self, call_soon: CallSoon, wake: Callable[[], None]) -> None:  # noqa: ARG002 - RecordedOutbox needs both
        """Accept messages, also again after :meth:`close`; ``call_soon`` runs a function on the network thread."""
        self.queue.open(wake)

    @property
    def inflight(self) -> int:
        """How many messages have an identifier and are not acknowledged."""
        return len(self._inflight)

    def sent(self) -> list[Outgoing]:
        """Return the messages that were sent on this connection and are not acknowledged, in no order."""
        return [message for packet_id, message in self._inflight.items() if packet_id not in self._unsent]

    def waits(self) -> bool:
        """Return whether :meth:`due` may yield a message."""
        return bool(self.queue.new or self._again)

    def due(self, receive_maximum: int | None) -> Iterator[Outgoing]:
        """Yield the messages whose packet is to be written now, PUBREL at stage RELEASED and PUBLISH otherwise, until
        nothing waits or as many are in flight as may be. Each is at its new stage when it is yielded.

        Args:
            receive_maximum: the broker's (MQTT 5 section 3.2.2.3.3); None if it cannot announce one.
        """
        window, new, inflight, unsent = self.window, self.queue.new, self._inflight, self._unsent
        most = min(receive_maximum or HIGHEST_PACKET_ID, window.size)
        most_at_qos_2 = min(receive_maximum or _QOS_2_WINDOW_IF_NOT_ANNOUNCED, window.size)
        while waiting := self._sent_before() if self._again else new:
            try:
                message = waiting.popleft()
            except IndexError:  # publish() has just dropped it, on another thread
                return
            if message.qos:
                used = len(inflight) - len(unsent) if unsent else len(inflight)
                if used >= (most if message.qos == 1 else most_at_qos_2):
                    window.full()
                    waiting.appendleft(message)
                    return
                if message.packet_id:
                    unsent.discard(message.packet_id)
                else:
                    packet_id = self.ids.take()
                    if not packet_id:  # all are in use; the next acknowledgement frees one
                        waiting.appendleft(message)
                        return
                    message.packet_id = packet_id
                    inflight[packet_id] = message
                if not window.timed:
                    window.sent(message.packet_id)
            if message.stage is _NEW:
                message.stage = _SENT
            yield message

    def _sent_before(self) -> deque[Outgoing]:
        """Return ``_again`` without those acknowledged in the meantime; the new messages if nothing is left of it."""
        while self._again and (first := self._again[0]).packet_id and self._inflight.get(first.packet_id) is not first:
            self._again.popleft()
        return self._again or self.queue.new

    def fail_unsent(self, message: Outgoing, error: DeliveryFailed) -> None:
        """A message that was not written on this connection fails, and will not be written."""
        if message.packet_id:
            del self._inflight[message.packet_id]
            self._unsent.discard(message.packet_id)
            self.ids.give_up(message.packet_id, finished=message.qos < 2 or not message.repeated)
            self.window.forget(message.packet_id)
        self.queue.finish(message, error)

    # Answers

    def received(self, packet_id: int) -> int | None:
        """PUBREC with Success: the broker has the message. Return the reason code of the PUBREL to write now, None if
        :meth:`due` yields the message when it may be written. Raises as :meth:`.Answers.check`, like the next two.
        """
        message = self._inflight.get(packet_id)
        if message is None:  # it is of an earlier session of this client
            return IDENTIFIER_NOT_FOUND
        if message.qos != 2:
            self.answers.check(message, PUBREC)
        self._inflight[packet_id] = self._inflight.pop(packet_id)  # as the last one: see in_order()
        if packet_id == self.window.timed:
            self.window.answered()
        message.stage = _RELEASED
        return 0

    def acknowledged(self, kind: int, packet_id: int, reason: int, text: str = "") -> Outgoing | None:
        """The exchange of a message is finished: return the message that is done, None if there is none."""
        message = self._inflight.get(packet_id)
        if message is None:
            self.ids.finish(packet_id)
            return None
        expected = message.qos == 1 if kind == PUBACK else message.stage is _RELEASED
        if not expected:  # or PUBREC that rejects the message
            self.answers.check(message, kind)
        del self._inflight[packet_id]
        if self._unsent:
            self._unsent.discard(packet_id)
        self.ids.free(packet_id)
        self._collisions = 0
        if packet_id == self.window.timed:
            self.window.answered()
        rejected = reason >= 0x80 and message.stage is not _RELEASED
        self.queue.finish(message, rejection(message, PUBACK, reason, text) if rejected else None)
        return message

    def rejected(self, packet: Acknowledgement) -> tuple[Outgoing | None, bool]:
        """A code from 0x80 on: return the message that is done, if any, and whether PUBREL may be written now."""
        from .outcomes import Outcome, outcome  # loaded only if there is a rejection

        message = self._inflight.get(packet.packet_id)
        match outcome(packet.kind, packet.reason, repeated=message is not None and message.repeated):
            case Outcome.RELEASE:
                return None, self.received(packet.packet_id) == 0
            case Outcome.DELAYED if self._delay(packet):
                return None, False
            case Outcome.IN_USE:  # PUBREL finishes the exchange that uses the identifier
                return self._identifier_in_use(packet.packet_id, packet.reason, packet.text), packet.kind == PUBREC
            case _:
                return self.acknowledged(packet.kind, packet.packet_id, packet.reason, packet.text), False

    def _identifier_in_use(self, packet_id: int, reason: int, text: str) -> Outgoing | None:
        """Send a message again with another identifier. Return it if that was done too often: it has failed then."""
        if packet_id not in self._inflight or packet_id in self._unsent:  # it was not sent on this connection
            return None
        message = self._inflight.pop(packet_id)
        self.ids.give_up(packet_id, finished=False)
        self.window.forget(packet_id)
        self._collisions += 1
        if self._collisions > _MAX_COLLISIONS:
            self.queue.finish(message, rejection(message, PUBACK, reason, text))
            return message
        message.start_anew(self._journal)
        self._again = in_order((*self._again, message))
        return None

    def _delay(self, packet: Acknowledgement) -> bool:
        """A quota: keep a message until the pause is over that follows. Return whether it is kept."""
        message = self._inflight.get(packet.packet_id)
        if message is None or message.stage is _RELEASED or not self.window.may_pause():
            return False
        self.answers.check(message, packet.kind)
        self.quota_exceeded()
        if packet.packet_id not in self._unsent:
            self.window.forget(packet.packet_id)
            self._unsent.add(packet.packet_id)
            self._again.append(message)
        return True

    def resume(self) -> None:
        """The pause may be over: send what was rejected, before anything newer."""
        if self.window.resume():
            self._again = in_order(self._again)
            self.queue.wake()

    def denied(self, packet_id: int) -> bool:
        """PUBACK or PUBREC with Not authorized, as the token has expired: the message waits for a new token. Return
        whether there is such a message.
        """
        if packet_id in self._unsent:  # it was not sent on this connection, and will be
            return True
        if (message := self._inflight.pop(packet_id, None)) is None:
            return False
        self.ids.free(packet_id)
        self.window.forget(packet_id)
        message.start_anew(self._journal)
        self._denied.append(message)
        return True

    def token_renewed(self) -> None:
        """What was denied may be sent again, before anything newer."""
        if self._denied:
            self._again = in_order((*self._again, *self._denied))
            self._denied.clear()

    # Losses, and the end

    def quota_exceeded(self) -> None:
        """The broker has rejected a message, or is about to end the connection, because of a quota."""
        self.window.quota_exceeded(len(self._inflight) - len(self._unsent))

    def connection_lost(self, unwritten: list[Outgoing]) -> None:
        """Send again what was in flight, in its order, and the messages of QoS 0 that were kept or were not written
        completely.
        """
        at_qos_0 = [*self.at_qos_0.unconfirmed(), *unwritten]
        self.window.connection_lost()
        for message in self._inflight.values():
            message.duplicate = message.stage is _SENT
        for message in at_qos_0:
            message.stage = _NEW
        waiting = (message for message in self._again if not message.packet_id)
        self._again = in_order((*self._inflight.values(), *waiting, *at_qos_0, *self._denied))
        self._denied.clear()
        self._unsent = set(self._inflight)

    def session_lost(self) -> None:
        """The broker has no session: each message in flight is a new one to it."""
        for message in self._inflight.values():
            message.stage, message.duplicate = _NEW, False
        self.ids.session_lost()
        self._again = in_order(self._again)

    def close(self, inherited: str = "") -> int:
        """Accept no more messages, fail those that are queued, and return how many these are.

        Args:
            inherited: why a child cannot use the outbox of its parent, which goes on with it.
        """
        waiting = (message for message in self._again if not message.packet_id)
        abandoned = [*self._inflight.values(), *waiting, *self._denied, *self.queue.close(inherited or DISCONNECTED)]
        for message in self._inflight.values():
            message.duplicate = message.stage is _SENT
            self.ids.give_up(message.packet_id, finished=message.qos < 2 or not message.repeated)
        self._inflight.clear()
        self._again.clear()
        self._denied.clear()
        self._unsent.clear()
        if inherited:
            self.queue.disown([*abandoned, *self.at_qos_0.unconfirmed()], DeliveryFailed(inherited))
            return 0
        for message in abandoned:
            self.queue.finish(message, DeliveryFailed(CLOSED))
        return len(abandoned)
