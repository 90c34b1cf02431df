"""What a broker may do wrong in a packet (MQTT 5 section 4.13.1)."""

from __future__ import annotations

from ...errors import ProtocolError
from .packets import NAMES
from .reason_codes import MALFORMED_PACKET, PROTOCOL_ERROR

TOO_SHORT = "a field goes beyond the end of the packet"


class NotAllowedError(ValueError):
    """A packet can be parsed, and MQTT does not allow what it contains (Protocol Error, MQTT 5 section 1.2). Any other
    ``ValueError`` of the codec means that the packet cannot be parsed (Malformed Packet).

    Attributes:
        reason: the reason code for DISCONNECT.
    """

    def __init__(self, violation: str, reason: int = PROTOCOL_ERROR) -> None:
        super().__init__(violation)
        self.reason = reason


def reason_of(error: ValueError) -> int:
    """The reason code for DISCONNECT after what the codec found in a packet."""
    return error.reason if isinstance(error, NotAllowedError) else MALFORMED_PACKET


def malformed(kind: int, violation: str, reason: int = MALFORMED_PACKET) -> ProtocolError:
    """The error for a packet that MQTT does not allow, and why."""
    return ProtocolError(f"the broker sent a malformed {NAMES[kind]} ({violation})", reason=reason)
