"""What a broker takes on a connection, as its CONNACK tells (MQTT 5 section 3.2.2.3)."""

from __future__ import annotations

from dataclasses import dataclass

from .engine import Connack

QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, PACKET_TOO_LARGE = 0x9B, 0x9A, 0x95


@dataclass(frozen=True, slots=True)
class Limits:
    """MQTT 3.1.1 has no way to tell any of them.

    Attributes:
        receive_maximum: unacknowledged messages of QoS 1 and 2; None if it cannot tell.
        packet_size: bytes of a packet, or None.
        qos: the highest QoS of a message.
        retain: whether it takes messages to be retained.
    """

    receive_maximum: int | None = None
    packet_size: int | None = None
    qos: int = 2
    retain: bool = True

    @classmethod
    def of(cls, accepted: Connack, protocol: int) -> Limits:
        if protocol != 5:
            return cls()
        told = accepted.properties
        return cls(
            told.get("receive_maximum", 65_535),
            told.get("maximum_packet_size"),
            told.get("maximum_qos", 2),
            bool(told.get("retain_available", 1)),
        )

    def objection(self, qos: int, retain: bool, size: int) -> int | None:
        """Why a message must not be sent, as a reason code, or None if it may."""
        if qos > self.qos:
            return QOS_NOT_SUPPORTED
        if retain and not self.retain:
            return RETAIN_NOT_SUPPORTED
        if self.packet_size is not None and size > self.packet_size:
            return PACKET_TOO_LARGE
        return None
