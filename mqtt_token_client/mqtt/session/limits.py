"""What a broker takes on a connection, as its CONNACK tells (MQTT 5 section 3.2.2.3)."""

from __future__ import annotations

from dataclasses import dataclass

from ..codec.packets import Connack

QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, PACKET_TOO_LARGE = 0x9B, 0x9A, 0x95
NO_SHARED_SUBSCRIPTIONS, NO_SUBSCRIPTION_IDENTIFIERS, NO_WILDCARDS = 0x9E, 0xA1, 0xA2


@dataclass(frozen=True, slots=True)
class Limits:
    """MQTT 3.1.1 has no way to tell any of them.

    Attributes:
        receive_maximum: unacknowledged messages of QoS 1 and 2; None if it cannot tell.
        packet_size: bytes of a packet, or None.
        qos: the highest QoS of a message.
        retain: whether it takes messages to be retained.
        shared, identifiers, wildcards: whether it takes such subscriptions.
    """

    receive_maximum: int | None = None
    packet_size: int | None = None
    qos: int = 2
    retain: bool = True
    shared: bool = True
    identifiers: bool = True
    wildcards: bool = True

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
            bool(told.get("shared_subscription_available", 1)),
            bool(told.get("subscription_identifier_available", 1)),
            bool(told.get("wildcard_subscription_available", 1)),
        )

    def violation(self, qos: int, retain: bool, size: int) -> int | None:
        """Why a message must not be sent, as a reason code, or None if it may."""
        if qos > self.qos:
            return QOS_NOT_SUPPORTED
        if retain and not self.retain:
            return RETAIN_NOT_SUPPORTED
        if self.packet_size is not None and size > self.packet_size:
            return PACKET_TOO_LARGE
        return None

    def filter_violation(self, topic_filter: str, *, identified: bool) -> int | None:
        """Why a filter must not be subscribed to, as a reason code, or None if it may; many a broker answers by ending
        the connection.
        """
        if not self.shared and topic_filter.startswith("$share/"):
            return NO_SHARED_SUBSCRIPTIONS
        if not self.identifiers and identified:
            return NO_SUBSCRIPTION_IDENTIFIERS
        if not self.wildcards and not {"+", "#"}.isdisjoint(topic_filter):
            return NO_WILDCARDS
        return None
