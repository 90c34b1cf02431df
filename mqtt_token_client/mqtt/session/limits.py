"""What a broker accepts on a connection, as its CONNACK says (MQTT 5 section 3.2.2.3)."""

from __future__ import annotations

from ...value import Value
from ..codec.packets import Connack

QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, PACKET_TOO_LARGE = 0x9B, 0x9A, 0x95
NO_SHARED_SUBSCRIPTIONS, NO_SUBSCRIPTION_IDENTIFIERS, NO_WILDCARDS = 0x9E, 0xA1, 0xA2


class Limits(Value):
    """The limits of one connection. A broker that speaks MQTT 3.1.1 cannot announce any of them.

    Attributes:
        receive_maximum: how many messages of QoS 1 and 2 may be unacknowledged; None if it was not announced.
        packet_size: bytes of a packet, None for any size.
        qos: the highest QoS of a message.
        retain: whether the broker retains messages.
        shared, identifiers, wildcards: whether the broker accepts such subscriptions.
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
        """Return the limits that a CONNACK announces."""
        if protocol != 5:
            return cls()
        announced = accepted.properties
        return cls(
            announced.get("receive_maximum", 65_535),
            announced.get("maximum_packet_size"),
            announced.get("maximum_qos", 2),
            bool(announced.get("retain_available", 1)),
            bool(announced.get("shared_subscription_available", 1)),
            bool(announced.get("subscription_identifier_available", 1)),
            bool(announced.get("wildcard_subscription_available", 1)),
        )

    def violation(self, qos: int, retain: bool, size: int) -> int | None:
        """Return the reason code why a message must not be sent, None if it may be sent."""
        if qos > self.qos:
            return QOS_NOT_SUPPORTED
        if retain and not self.retain:
            return RETAIN_NOT_SUPPORTED
        if self.packet_size is not None and size > self.packet_size:
            return PACKET_TOO_LARGE
        return None

    def filter_violation(self, topic_filter: str, *, identified: bool) -> int | None:
        """Return the reason code why a filter must not be subscribed to, None if it may be.

        Many brokers would close the connection.
        """
        if not self.shared and topic_filter.startswith("$share/"):
            return NO_SHARED_SUBSCRIPTIONS
        if not self.identifiers and identified:
            return NO_SUBSCRIPTION_IDENTIFIERS
        if not self.wildcards and not {"+", "#"}.isdisjoint(topic_filter):
            return NO_WILDCARDS
        return None
