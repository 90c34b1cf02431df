"""Reading PUBLISH, by far the most frequent packet (MQTT 5 and MQTT 3.1.1 section 3.3)."""

from __future__ import annotations

from typing import Any

from .message import Message
from .packets import PUBLISH, RejectedPublish
from .properties import TooManyPropertiesError, read_properties
from .reason_codes import MALFORMED_PACKET, PROTOCOL_ERROR, QUOTA_EXCEEDED
from .topics import decode_topic
from .violations import TOO_SHORT, malformed, reason_of

_MOST_TOPICS, _LONGEST_TOPIC = 1024, 256  # that are remembered, so that they take a bounded number of bytes


def read_publish(
    five: bool, command: int, data: bytes, start: int, body: int, end: int, topics: dict[bytes, str]
) -> Message | RejectedPublish:
    """Read a PUBLISH.

    Args:
        five: whether it is that of MQTT 5.
        command: its first byte.
        data, start, body, end: where it is: its fixed header begins at ``start``, and the rest of it at ``body``.
        topics: those that were read before, by their bytes; the new one is added. To look one up takes less time than
            to decode and check it, and later lookups by the same string take less time too.

    Raises:
        ProtocolError: it is malformed, and cannot be answered or need not be.
    """
    qos = command >> 1 & 3
    packet_id = 0
    properties: dict[str, Any] = {}
    try:
        position = body + 2 + (data[body] << 8 | data[body + 1])
        encoded = data[body + 2 : position]
        topic = topics.get(encoded) or _read_topic(encoded, topics)
        if qos:
            packet_id = data[position] << 8 | data[position + 1]
            position += 2
        if five:
            if data[position] == 0:
                position += 1
            else:
                properties, position = read_properties(PUBLISH, data, position, end)
    except TooManyPropertiesError:
        return rejected_publish(command, data, start, body, end, QUOTA_EXCEEDED)
    except IndexError:
        return rejected_publish(command, data, start, body, end, MALFORMED_PACKET, TOO_SHORT)
    except ValueError as error:
        return rejected_publish(command, data, start, body, end, reason_of(error), str(error))
    if position > end or qos == 3 or (qos and not packet_id):  # a violation of the QoS or the identifier comes first
        return rejected_publish(command, data, start, body, end, MALFORMED_PACKET, TOO_SHORT)
    return Message(topic, data[position:end], qos, bool(command & 1), bool(command & 8), properties, packet_id)


def _read_topic(encoded: bytes, topics: dict[bytes, str]) -> str:
    topic = decode_topic(encoded)
    if len(topics) < _MOST_TOPICS and len(encoded) <= _LONGEST_TOPIC:
        topics[encoded] = topic
    return topic


def rejected_publish(
    command: int, data: bytes, start: int, body: int, end: int, reason: int, violation: str = ""
) -> RejectedPublish:
    """A PUBLISH that cannot be accepted, of which topic and packet identifier are there.

    Raises:
        ProtocolError: it is malformed, and cannot be answered or need not be.
    """
    qos = command >> 1 & 3
    if qos == 3:  # [MQTT-3.3.1-4]
        raise malformed(PUBLISH, "QoS 3")
    topic_end = body + 2 + (data[body] << 8 | data[body + 1]) if body + 2 <= end else end + 1
    if topic_end + (2 if qos else 0) > end:
        raise malformed(PUBLISH, violation or TOO_SHORT)
    packet_id = data[topic_end] << 8 | data[topic_end + 1] if qos else 0
    if qos and not packet_id:  # [MQTT-2.2.1-2]
        raise malformed(PUBLISH, "packet identifier 0", PROTOCOL_ERROR)
    if violation and not qos:
        raise malformed(PUBLISH, violation, reason)
    topic = data[body + 2 : topic_end].decode(errors="replace")
    return RejectedPublish(topic, qos, packet_id, reason, end - start, violation)
