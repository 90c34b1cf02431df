"""Reading the bodies of packets: what follows the fixed header. PUBLISH, by far the most frequent one, comes first.

The functions for the others raise ``IndexError`` if a field goes beyond the end of the body, and ``ValueError`` if MQTT
does not allow what is there; see :class:`.packets.NotAllowedError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...logs import printable
from .message import Message
from .packets import (
    AUTH,
    CONNACK,
    DISCONNECT,
    MALFORMED_PACKET,
    PINGRESP,
    PROTOCOL_ERROR,
    PUBLISH,
    TOO_SHORT,
    UNSUBACK,
    Acknowledgement,
    Auth,
    Connack,
    Disconnect,
    NotAllowedError,
    Pingresp,
    RejectedPublish,
    Suback,
    Unsuback,
    malformed,
    reason_of,
)
from .properties import TooManyPropertiesError, read_properties
from .reason_codes import QUOTA_EXCEEDED, is_defined
from .topics import decode_topic

_MOST_TOPICS, _LONGEST_TOPIC = 1024, 256  # that are remembered, so that they take a bounded number of bytes
# MQTT 3.1.1 section 3.2.2.3, as reason codes of MQTT 5; any other is an Unspecified error.
_RETURN_CODES = {0: 0, 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}


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


def read_connack(body: bytes, *, five: bool, clean: bool) -> Connack:
    """CONNACK (section 3.2).

    Args:
        body: the body.
        five: whether it is that of MQTT 5.
        clean: whether CONNECT asked for a new session.
    """
    flags, code = body[0], body[1]
    if flags > 1:  # [MQTT-3.2.2-1]
        raise ValueError(f"flags 0x{flags:02x}")
    session_present = flags == 1
    if session_present and clean and not code:  # [MQTT-3.2.2-4]
        raise NotAllowedError("Session Present, though CONNECT asked for a new session")
    if not five or (len(body) == 2 and code):  # that of a broker that knows MQTT 3.1.1 only
        return Connack(session_present, _RETURN_CODES.get(code, 0x80), {})
    if 0 < code < 0x80:
        raise NotAllowedError(f"reason code 0x{code:02x}")
    properties, end = read_properties(CONNACK, body, 2, len(body))
    _expect_end(body, end)
    return Connack(session_present, code, properties)


def read_suback(kind: int, body: bytes, *, five: bool, expected: dict[tuple[int, int], int]) -> Suback | Unsuback:
    """SUBACK (section 3.9) or UNSUBACK (section 3.11).

    Args:
        kind: which of the two.
        body: the body.
        five: whether it is that of MQTT 5.
        expected: the number of codes by kind and packet identifier; the one that was read is removed.
    """
    packet_id, position = body[0] << 8 | body[1], 2
    text = ""
    if five:
        properties, position = read_properties(kind, body, 2, len(body))
        text = reason_string(properties)
    count = expected.pop((kind, packet_id), None)
    if count is None:
        raise NotAllowedError(f"packet identifier {packet_id} is not that of a request")
    codes = body[position:]
    if kind == UNSUBACK and not codes:  # nor have those of some brokers in MQTT 5; they would be asked forever
        return Unsuback(packet_id)
    if len(codes) != count:
        raise NotAllowedError(f"{len(codes)} codes for {count} filters")
    if kind == UNSUBACK:
        return Unsuback(packet_id, tuple(codes), text)
    if any(2 < code < 0x80 or (code > 0x80 and not five) for code in codes):  # [MQTT-3.9.3-2]
        raise NotAllowedError(f"codes 0x{codes.hex()}")
    return Suback(packet_id, list(codes), text)


def read_other(kind: int, body: bytes) -> Acknowledgement | Pingresp | Disconnect | Auth:
    """Any other packet of a broker."""
    if kind == PINGRESP:
        return Pingresp()
    if kind == DISCONNECT:
        properties = _read_disconnect_properties(body)
        return Disconnect(body[0] if body else 0, properties.get("server_reference"), reason_string(properties))
    if kind == AUTH:
        if len(body) > 1:
            _expect_end(body, read_properties(AUTH, body, 1, len(body))[1])
        return Auth(body[0] if body else 0)
    return _read_acknowledgement(kind, body)


def _read_acknowledgement(kind: int, body: bytes) -> Acknowledgement:
    packet_id, reason = body[0] << 8 | body[1], body[2] if len(body) > 2 else 0
    if not packet_id:
        raise NotAllowedError("packet identifier 0")
    if not is_defined(reason):
        raise NotAllowedError(f"reason code 0x{reason:02x}")
    if len(body) <= 3:
        return Acknowledgement(kind, packet_id, reason)
    properties, end = read_properties(kind, body, 3, len(body))
    _expect_end(body, end)
    return Acknowledgement(kind, packet_id, reason, reason_string(properties))


def _read_disconnect_properties(body: bytes) -> dict[str, Any]:
    """The properties of a DISCONNECT. Its reason code counts even if they are malformed."""
    if len(body) < 2:
        return {}
    try:
        return read_properties(DISCONNECT, body, 1, len(body))[0]
    except ValueError:
        return {}


def reason_string(properties: Mapping[str, Any]) -> str:
    """The Reason String among the properties of a packet, in a form that is safe to show; empty if there is none."""
    return printable(properties.get("reason_string", ""))


def _expect_end(body: bytes, end: int) -> None:
    if end != len(body):
        raise ValueError(f"{len(body) - end} bytes too many")
