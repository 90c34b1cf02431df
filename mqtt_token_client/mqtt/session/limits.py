"""What a broker accepts on a connection, as its CONNACK says (MQTT 5 section 3.2.2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...value import Value
from ..codec.packets import Connack

QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED, PACKET_TOO_LARGE = 0x9B, 0x9A, 0x95
_MAX_FILTERS = 8  # a packet: AWS IoT accepts no more (https://docs.aws.amazon.com/general/latest/gr/iot-core.html)
_SUBSCRIBE_OVERHEAD = 5 + 2 + 1  # bytes: fixed header, packet identifier, empty properties
_FILTER_OVERHEAD = 2 + 1  # bytes: its length and its options
NO_SHARED_SUBSCRIPTIONS, NO_SUBSCRIPTION_IDENTIFIERS, NO_WILDCARDS = 0x9E, 0xA1, 0xA2


class Limits(Value):
    """The limits of one connection. A broker that speaks MQTT 3.1.1 cannot announce any of them.

    Attributes:
        receive_maximum: how many messages of QoS 1 and 2 may be unacknowledged; None if it was not announced.
        packet_size: bytes of a packet, None for any size.
        qos: the highest QoS of a message.
        retain: whether the broker retains messages.
        shared, identifiers, wildcards: whether the broker accepts such subscriptions.
        session_expiry: seconds that the broker keeps the session instead of those that CONNECT asked for; None if it
            keeps it as asked.
    """

    receive_maximum: int | None = None
    packet_size: int | None = None
    qos: int = 2
    retain: bool = True
    shared: bool = True
    identifiers: bool = True
    wildcards: bool = True
    session_expiry: int | None = None

    @classmethod
    def of(cls, accepted: Connack, protocol: int) -> Limits:
        """Return the limits that a CONNACK announces."""
        if protocol != 5:
            return cls(identifiers=False)
        announced = accepted.properties
        return cls(
            announced.get("receive_maximum", 65_535),
            announced.get("maximum_packet_size"),
            announced.get("maximum_qos", 2),
            bool(announced.get("retain_available", 1)),
            bool(announced.get("shared_subscription_available", 1)),
            bool(announced.get("subscription_identifier_available", 1)),
            bool(announced.get("wildcard_subscription_available", 1)),
            announced.get("session_expiry_interval"),
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

    def filter_violation(self, topic_filter: str, properties: bytes = b"", *, identified: bool) -> int | None:
        """Return the reason code why a filter must not be subscribed to, None if it may be.

        Many brokers would close the connection.

        Args:
            topic_filter: the filter.
            properties: those of its SUBSCRIBE, packed.
            identified: whether they have a Subscription Identifier.
        """
        if not self.fits(topic_filter, properties):
            return PACKET_TOO_LARGE
        if not self.shared and topic_filter.startswith("$share/"):
            return NO_SHARED_SUBSCRIPTIONS
        if not self.identifiers and identified:
            return NO_SUBSCRIPTION_IDENTIFIERS
        if not self.wildcards and not {"+", "#"}.isdisjoint(topic_filter):
            return NO_WILDCARDS
        return None

    def fits(self, topic_filter: str, properties: bytes = b"") -> bool:
        """Whether a packet with this filter alone, and with these ``properties``, may be sent [MQTT-3.2.2-15]."""
        room = self._room(properties)
        return room is None or _size(topic_filter) <= room

    def divide(self, filters: Iterable[str], properties: bytes = b"") -> Iterator[list[str]]:
        """Divide filters into SUBSCRIBE or UNSUBSCRIBE packets with these ``properties`` that a broker accepts."""
        room = self._room(properties)
        packet: list[str] = []
        size = 0
        for topic_filter in filters:
            size += _size(topic_filter)
            if packet and (len(packet) == _MAX_FILTERS or (room is not None and size > room)):
                yield packet
                packet, size = [], _size(topic_filter)
            packet.append(topic_filter)
        if packet:
            yield packet

    def _room(self, properties: bytes) -> int | None:
        """Return how many bytes the filters of a packet may have, None for any number."""
        return None if self.packet_size is None else self.packet_size - _SUBSCRIBE_OVERHEAD - len(properties)


def _size(topic_filter: str) -> int:
    return _FILTER_OVERHEAD + len(topic_filter.encode())
