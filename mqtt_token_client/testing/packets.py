"""MQTT packets as a broker reads and writes them, of MQTT 3.1.1 and 5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..mqtt.codec.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    WILL,
)
from ..mqtt.codec.properties import pack_length, pack_properties, read_length, read_properties

_ACKNOWLEDGEMENTS = (PUBACK, PUBREC, PUBREL, PUBCOMP)
_SUBSCRIPTION_IDENTIFIER = 0x0B
_RETURN_CODES = {0: 0, 0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4}  # of MQTT 3.1.1 section 3.2.2.3; any other is 5


class Will(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any]


class Connect(NamedTuple):
    protocol: int
    client_id: str
    clean: bool
    keepalive: int
    username: str | None
    password: bytes | None
    will: Will | None
    properties: dict[str, Any]


class Publish(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any]
    packet_id: int = 0
    identifiers: tuple[int, ...] = ()  # of the subscriptions that it is sent for
    arrived_at: float = 0.0  # when the broker got it, as a reading of monotonic()


class Acknowledgement(NamedTuple):
    kind: int
    packet_id: int
    reason: int


class Subscribe(NamedTuple):
    packet_id: int
    filters: dict[str, int]  # with the options of each
    identifier: int  # of the subscription; 0 for none


class Unsubscribe(NamedTuple):
    packet_id: int
    filters: tuple[str, ...]


class Auth(NamedTuple):
    reason: int
    properties: dict[str, Any]


class Disconnect(NamedTuple):
    reason: int
    properties: dict[str, Any]


class Pingreq(NamedTuple):
    pass


Packet = Connect | Publish | Acknowledgement | Subscribe | Unsubscribe | Auth | Disconnect | Pingreq


class _Fields:
    """Reads the fields of a packet, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("a field goes beyond the end of the packet")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int = 2) -> int:
        return int.from_bytes(self.take(size))

    def binary(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        text = self.binary().decode()
        if "\0" in text:  # [MQTT-1.5.4-2]
            raise ValueError("a text contains NUL")
        return text

    def properties(self, packet: int) -> dict[str, Any]:
        properties, self._at = read_properties(packet, self._data, self._at, len(self._data))
        return properties


def split(data: bytearray) -> tuple[int, bytes] | None:
    """Take the first packet out of the data: its first byte and its body. None while it has not arrived whole.

    Raises:
        ValueError: its length has more than four bytes.
    """
    head = next((at + 1 for at in range(1, min(len(data), 5)) if data[at] < 0x80), None)
    if head is None:
        if len(data) >= 5:
            raise ValueError("the length of a packet has more than four bytes")
        return None
    end = head + read_length(bytes(data[1:head]), 0, head - 1)[0]
    if end > len(data):
        return None
    first, body = data[0], bytes(data[head:end])
    del data[:end]
    return first, body


def read(first: int, body: bytes, protocol: int) -> Packet:
    """Read a packet from a client.

    Raises:
        ValueError: it is malformed, or a client must not send it.
    """
    kind, flags, fields = first & 0xF0, first & 0x0F, _Fields(body)
    if kind == PUBLISH:
        return _read_publish(flags, fields, protocol)
    if flags != (2 if kind in (PUBREL, SUBSCRIBE, UNSUBSCRIBE) else 0):
        raise ValueError(f"the flags of a packet of type 0x{kind:02x} are 0x{flags:x}")
    if kind == CONNECT:
        return _read_connect(fields)
    if kind == PINGREQ:
        return Pingreq()
    if kind in _ACKNOWLEDGEMENTS:
        return Acknowledgement(kind, fields.number(), fields.number(1) if fields.left else 0)
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        return _read_subscribe(kind, fields, protocol)
    if kind == DISCONNECT or (kind == AUTH and protocol == 5):
        reason = fields.number(1) if fields.left else 0
        properties = fields.properties(kind) if fields.left else {}
        return Disconnect(reason, properties) if kind == DISCONNECT else Auth(reason, properties)
    raise ValueError(f"a client must not send a packet of type 0x{kind:02x}")


def _read_connect(fields: _Fields) -> Connect:
    if fields.binary() != b"MQTT":
        raise ValueError("this is not MQTT")
    protocol, flags, keepalive = fields.number(1), fields.number(1), fields.number()
    if protocol not in (4, 5):  # what follows may look different
        return Connect(protocol, "", True, 0, None, None, None, {})
    properties = fields.properties(CONNECT) if protocol == 5 else {}
    client_id, will = fields.text(), None
    if flags & 0x04:
        will_properties = fields.properties(WILL) if protocol == 5 else {}
        will = Will(fields.text(), fields.binary(), flags >> 3 & 3, bool(flags & 0x20), will_properties)
    username = fields.text() if flags & 0x80 else None
    password = fields.binary() if flags & 0x40 else None
    return Connect(protocol, client_id, bool(flags & 2), keepalive, username, password, will, properties)


def _read_publish(flags: int, fields: _Fields, protocol: int) -> Publish:
    topic, qos = fields.text(), flags >> 1 & 3
    if qos == 3 or not topic or "+" in topic or "#" in topic or topic.startswith("$"):
        raise ValueError(f"a message of QoS {qos} cannot be published to {topic!r}")
    packet_id = fields.number() if qos else 0
    if qos and not packet_id:
        raise ValueError("the packet identifier is 0")
    properties = fields.properties(PUBLISH) if protocol == 5 else {}
    return Publish(topic, fields.take(fields.left), qos, bool(flags & 1), properties, packet_id)


def _read_subscribe(kind: int, fields: _Fields, protocol: int) -> Subscribe | Unsubscribe:
    packet_id = fields.number()
    properties = fields.properties(kind) if protocol == 5 else {}
    filters: dict[str, int] = {}
    while fields.left:
        topic_filter = fields.text()
        filters[topic_filter] = fields.number(1) if kind == SUBSCRIBE else 0
    if not filters:
        raise ValueError("there is no topic filter")
    if kind == UNSUBSCRIBE:
        return Unsubscribe(packet_id, tuple(filters))
    return Subscribe(packet_id, filters, properties.get("subscription_identifier", 0))


# Packets to a client


def _packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((first,)) + pack_length(len(body)) + body


def _properties(properties: Mapping[str, Any], packet: int, protocol: int) -> bytes:
    return (pack_properties(properties, packet) or b"\0") if protocol == 5 else b""


def connack(protocol: int, reason: int, properties: Mapping[str, Any], *, session_present: bool = False) -> bytes:
    code = reason if protocol == 5 else _RETURN_CODES.get(reason, 5)
    return _packet(CONNACK, bytes((session_present, code)), _properties(properties, CONNACK, protocol))


def publish(protocol: int, message: Publish, *, duplicate: bool = False) -> bytes:
    topic = message.topic.encode()
    packed = _properties(message.properties, PUBLISH, protocol)
    if protocol == 5 and message.identifiers:
        _, start = read_length(packed, 0, len(packed))
        named = b"".join(bytes((_SUBSCRIPTION_IDENTIFIER,)) + pack_length(one) for one in message.identifiers)
        packed = pack_length(len(packed) - start + len(named)) + packed[start:] + named
    packet_id = message.packet_id.to_bytes(2) if message.qos else b""
    first = PUBLISH | duplicate << 3 | message.qos << 1 | message.retain
    return _packet(first, len(topic).to_bytes(2), topic, packet_id, packed, message.payload)


def acknowledge(kind: int, packet_id: int, reason: int = 0) -> bytes:
    first = kind | 2 if kind == PUBREL else kind
    return _packet(first, packet_id.to_bytes(2), bytes((reason,)) if reason else b"")


def suback(protocol: int, packet_id: int, codes: Iterable[int]) -> bytes:
    return _packet(SUBACK, packet_id.to_bytes(2), b"\0" if protocol == 5 else b"", bytes(codes))


def unsuback(protocol: int, packet_id: int, codes: Iterable[int]) -> bytes:
    return _packet(UNSUBACK, packet_id.to_bytes(2), b"\0" + bytes(codes) if protocol == 5 else b"")


def disconnect(reason: int) -> bytes:
    """In MQTT 5 only."""
    return _packet(DISCONNECT, bytes((reason,)))


def auth(reason: int, method: str) -> bytes:
    """In MQTT 5 only."""
    return _packet(AUTH, bytes((reason,)), pack_properties({"authentication_method": method}, AUTH))


PINGRESP = b"\xd0\x00"
