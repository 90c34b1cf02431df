"""The packet that a message is to send next, unless it must not be sent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ... import events
from ...clock import monotonic
from ...errors import DeliveryFailed
from ..codec.packets import CONNACK, PUBREL
from ..codec.properties import replace_expiry
from .delivery import Outgoing, Stage, rejection
from .limits import Limits

if TYPE_CHECKING:
    from ..transport.connection import NetworkConnection

_ROUNDING = 0.001  # seconds
_RELEASED = Stage.RELEASED  # looking up a member of an Enum takes long


class UnsendableError(Exception):
    """A message must not be sent.

    Attributes:
        error: of its Delivery.
        event: that reports it.
    """

    def __init__(self, error: DeliveryFailed, event: events.Event) -> None:
        super().__init__()
        self.error, self.event = error, event


def write_releases(connection: NetworkConnection[Outgoing], packet_ids: Iterable[int]) -> None:
    """Write PUBREL for exchanges of QoS 2 that were given up, so that the broker finishes them too: in MQTT 5 it counts
    them against its Receive Maximum until then, also on later connections.
    """
    if connection.engine.five:
        for packet_id in packet_ids:
            connection.write(connection.engine.acknowledge(PUBREL, packet_id))


def write_message(connection: NetworkConnection[Outgoing], message: Outgoing, limits: Limits) -> bool:
    """Write PUBLISH, or PUBREL if the broker has the message. Return whether the connection takes more.

    Args:
        connection: to the broker.
        message: the message.
        limits: that the broker announced.

    Raises:
        UnsendableError: the message expired while it waited (MQTT 5 section 3.3.2.3.3), or the broker accepts no such
            message, as its CONNACK says (section 3.2.2.3).
    """
    if message.stage is _RELEASED:
        return connection.write_item(connection.engine.acknowledge(PUBREL, message.packet_id), None)
    properties = message.properties
    if properties and message.expires_at is not None:
        left = message.expires_at - monotonic()
        if left <= 0 and not message.duplicate:
            text = f"the message on {message.topic_name} expired before it could be sent (message_expiry_interval)"
            raise UnsendableError(DeliveryFailed(text), events.MessageExpired(message.topic_name))
        properties = replace_expiry(properties, max(1, math.ceil(left - _ROUNDING)))
    packet = connection.engine.publish(
        message.topic,
        message.payload,
        message.qos,
        message.retain,
        message.packet_id,
        message.duplicate,
        properties,
    )
    if message.qos > limits.qos or message.retain or limits.packet_size is not None:  # nothing else is ever rejected
        violation = limits.violation(message.qos, message.retain, len(packet))
        if violation is not None:
            event = events.DeliveryRefused(message.topic_name, violation)
            raise UnsendableError(rejection(message, CONNACK, violation), event)
    return connection.write_item(packet, None if message.qos else message)
