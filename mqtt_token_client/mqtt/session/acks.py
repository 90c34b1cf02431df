"""ManualAcks: messages that the application acknowledges itself, and the order in which the broker is told.

PUBACK and PUBREC go out in the order in which the messages came (MQTT 5 section 4.6), so one that is acknowledged early
waits for those before it. What a resumed session sends again before the application has acknowledged it is the same
message, and is not handed over twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..codec.message import Message
from ..codec.packets import PUBACK, PUBREC


@dataclass(slots=True, eq=False)
class PendingAck:
    """What is owed to the broker for one message."""

    packet_id: int
    kind: int  # PUBACK or PUBREC
    due: bool = False


class ManualAcks:
    """Those of one session, on the connection that is up."""

    def __init__(self) -> None:
        self._owed: deque[PendingAck] = deque()  # in the order in which the messages came
        self._held: dict[int, PendingAck] = {}  # by the application, which has not acknowledged these

    def open(self, message: Message, *, new: bool) -> PendingAck:
        """The receipt for a message that has come, whether it is a new one or one that came before."""
        receipt = None if new else self._held.get(message.packet_id)
        if receipt is None:
            receipt = PendingAck(message.packet_id, PUBACK if message.qos == 1 else PUBREC, due=not new)
            if not receipt.due:
                self._held[message.packet_id] = receipt
        if receipt not in self._owed:
            self._owed.append(receipt)
        return receipt

    def acknowledge(self, receipt: PendingAck) -> None:
        """The application is done with a message."""
        receipt.due = True
        if self._held.get(receipt.packet_id) is receipt:
            del self._held[receipt.packet_id]

    def next(self) -> PendingAck | None:
        """The receipt to send now, if its turn has come."""
        return self._owed.popleft() if self._owed and self._owed[0].due else None

    def connection_lost(self) -> None:
        """The broker sends again what it has no receipt for."""
        self._owed.clear()

    def session_lost(self) -> None:
        """The broker starts anew, and so do its identifiers."""
        self._owed.clear()
        self._held.clear()
