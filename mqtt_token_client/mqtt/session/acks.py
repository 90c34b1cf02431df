"""Messages that are acknowledged once the application has processed them, and the order in which that is sent.

PUBACK and PUBREC are sent in the order in which the messages were received (MQTT 5 section 4.6), so one that is
acknowledged early waits for those before it. A message that a resumed session sends again before the application has
acknowledged it is the same message, and is not handed over twice.
"""

from __future__ import annotations

from collections import deque

from ..codec.message import Message
from ..codec.packets import PUBACK, PUBREC


class PendingAck:
    """An acknowledgement that has not been sent.

    Attributes:
        packet_id: the message's.
        kind: PUBACK or PUBREC.
        due: whether the application has acknowledged the message.
        holders: how many have to do that: one, or each handler of the message.
        rejection: the reason code of an acknowledgement that rejects the message, 0 of any other.
    """

    __slots__ = ("due", "holders", "kind", "packet_id", "rejection")

    def __init__(self, packet_id: int, kind: int, *, due: bool, rejection: int = 0) -> None:
        self.packet_id = packet_id
        self.kind = kind
        self.due = due
        self.holders = 1
        self.rejection = rejection


class ManualAcks:
    """The acknowledgements of one session. Runs on the network thread.

    Args:
        by_handlers: whether each handler of a message acknowledges it, by ``pending_ack``; otherwise
            :meth:`Message.acknowledge` does, once for all of them.

    Attributes:
        held: how many messages the broker may send again: those that the application has not acknowledged, and those
            whose acknowledgement waits for an earlier one.
    """

    def __init__(self, *, by_handlers: bool = False) -> None:
        self.by_handlers = by_handlers
        self.held = 0
        self._unsent: deque[PendingAck] = deque()  # on this connection, in the order of their messages
        self._held: dict[int, PendingAck] = {}  # by packet identifier: the application has not acknowledged these

    @property
    def held_ids(self) -> frozenset[int]:
        """The identifiers of these messages."""
        return frozenset(self._held)

    def open(self, message: Message, *, new: bool) -> PendingAck:
        """Return the acknowledgement for a message that was received; ``new`` is false if it was received before."""
        ack = None if new else self._held.get(message.packet_id)
        if ack is None:
            ack = PendingAck(message.packet_id, PUBACK if message.qos == 1 else PUBREC, due=not new)
            if not ack.due:
                self._held[message.packet_id] = ack
        if new or ack not in self._unsent:
            self._unsent.append(ack)
        held, unsent = len(self._held), len(self._unsent)  # which begins anew with each connection
        self.held = held if held > unsent else unsent  # without a call, for each message
        return ack

    def reject(self, packet_id: int, kind: int, reason: int) -> None:
        """Acknowledge a message that is rejected, when its turn comes."""
        self._unsent.append(PendingAck(packet_id, kind, due=True, rejection=reason))

    def acknowledge(self, ack: PendingAck) -> None:
        """The application has acknowledged a message, or one of its handlers has."""
        ack.holders -= 1
        if ack.holders > 0:
            return
        ack.due = True
        if self._held.get(ack.packet_id) is ack:
            del self._held[ack.packet_id]

    def next(self) -> PendingAck | None:
        """Return the acknowledgement to send now, None if its turn has not come."""
        return self._unsent.popleft() if self._unsent and self._unsent[0].due else None

    def close(self) -> list[int]:
        """Forget everything, and return the identifiers of the messages that the application has not acknowledged."""
        held = list(self._held)
        self.session_lost()
        return held

    def connection_lost(self) -> None:
        """The broker sends again what was not acknowledged."""
        self._unsent.clear()

    def session_lost(self) -> None:
        """The broker has a new session, so its packet identifiers start over."""
        self._unsent.clear()
        self._held.clear()
        self.held = 0
