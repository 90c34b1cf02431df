"""The packets that a broker sends, as values; the first byte of each kind of packet; and what is malformed."""

from __future__ import annotations

from typing import Any

from ...errors import ProtocolError
from ...value import Value
from .message import Message

# MQTT 5 section 2.1.2: the type of the packet in the higher four bits.
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP = 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0
DISCONNECT, AUTH = 0xE0, 0xF0
WILL = 0x00  # not a packet: for the properties of the will, which is part of CONNECT
CONTINUE_AUTHENTICATION, RE_AUTHENTICATE = 0x18, 0x19  # reason codes of AUTH (section 3.15.2.1)
MALFORMED_PACKET, PROTOCOL_ERROR = 0x81, 0x82  # reason codes of DISCONNECT (section 4.13.1)

NAMES = {
    CONNECT: "CONNECT", CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", PUBREC: "PUBREC", PUBREL: "PUBREL",
    PUBCOMP: "PUBCOMP", SUBSCRIBE: "SUBSCRIBE", SUBACK: "SUBACK", UNSUBSCRIBE: "UNSUBSCRIBE", UNSUBACK: "UNSUBACK",
    PINGREQ: "PINGREQ", PINGRESP: "PINGRESP", DISCONNECT: "DISCONNECT", AUTH: "AUTH",
}  # fmt: skip

MAX_PACKET_SIZE = 16 * 1024 * 1024  # bytes of the largest packet to accept, by default
SMALLEST_PACKET_SIZE = 16  # to choose instead; no broker can do with fewer, for its CONNACK and SUBACK
LARGEST_PACKET_SIZE = 268_435_460  # MQTT has none that is larger (section 2.1.4)
PINGREQ_PACKET = b"\xc0\x00"


class Connack(Value):
    session_present: bool
    reason: int  # of MQTT 5; return codes of 3.1.1 are translated
    properties: dict[str, Any]


class RejectedPublish(Value):
    """A PUBLISH that the decoder could not accept.

    Attributes:
        topic: the topic name, as far as it could be decoded.
        qos: 0, 1 or 2; with 1 and 2 the broker sends it again until it is answered.
        packet_id: the packet identifier; 0 with QoS 0.
        reason: why, as a reason code of MQTT 5.
        size: bytes of the packet.
        violation: why the packet is malformed; empty if it is well-formed.
    """

    topic: str
    qos: int
    packet_id: int
    reason: int
    size: int
    violation: str = ""


# The text of these packets is their Reason String, printable; empty if there is none.


class Acknowledgement:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, which ``kind`` says."""

    # One for each message: to make a Value, and to read a NamedTuple, takes several times as long.

    __match_args__ = __slots__ = ("kind", "packet_id", "reason", "text")

    def __init__(self, kind: int, packet_id: int, reason: int, text: str = "") -> None:
        self.kind = kind
        self.packet_id = packet_id
        self.reason = reason
        self.text = text

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"Acknowledgement{self.kind, self.packet_id, self.reason, self.text}"


class Suback(Value):
    packet_id: int
    reasons: list[int]
    text: str = ""


class Unsuback(Value):
    packet_id: int
    reasons: tuple[int, ...] = ()  # empty in MQTT 3.1.1
    text: str = ""


class Pingresp(Value):
    pass


class Disconnect(Value):
    reason: int
    server: str | None = None  # another server, which the broker names (MQTT 5 section 3.14.2.2.5)
    text: str = ""


class Auth(Value):
    reason: int  # 0 at the end of an exchange


Packet = Connack | Message | RejectedPublish | Acknowledgement | Suback | Unsuback | Pingresp | Disconnect | Auth

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
