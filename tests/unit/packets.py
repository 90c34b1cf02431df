"""MQTT packets as a broker sees them, written from the specifications 3.1.1 and 5, without any code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15

# MQTT 5 section 2.2.2.2
AUTHENTICATION_METHOD, AUTHENTICATION_DATA = 0x15, 0x16
SESSION_EXPIRY_INTERVAL, SERVER_KEEP_ALIVE, WILL_DELAY_INTERVAL, RECEIVE_MAXIMUM = 0x11, 0x13, 0x18, 0x21
MAXIMUM_QOS, RETAIN_AVAILABLE, MAXIMUM_PACKET_SIZE, SUBSCRIPTION_IDENTIFIER = 0x24, 0x25, 0x27, 0x0B
WILDCARDS_AVAILABLE, IDENTIFIERS_AVAILABLE, SHARED_AVAILABLE = 0x28, 0x29, 0x2A
_BYTE, _TWO, _FOUR, _VARIABLE, _STRING, _PAIR = "!B", "!H", "!I", "variable", "string", "pair"
_TYPES = {
    **dict.fromkeys((0x01, 0x17, 0x19, MAXIMUM_QOS, RETAIN_AVAILABLE), _BYTE),
    **dict.fromkeys((WILDCARDS_AVAILABLE, IDENTIFIERS_AVAILABLE, SHARED_AVAILABLE), _BYTE),
    **dict.fromkeys((SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM, 0x22), _TWO),
    **dict.fromkeys((0x02, SESSION_EXPIRY_INTERVAL, WILL_DELAY_INTERVAL, MAXIMUM_PACKET_SIZE), _FOUR),
    **dict.fromkeys((0x03, 0x08, 0x09, AUTHENTICATION_METHOD, AUTHENTICATION_DATA), _STRING),
    SUBSCRIPTION_IDENTIFIER: _VARIABLE,
    0x26: _PAIR,
}


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[int, Any]


@dataclass(frozen=True)
class Packet:
    """A packet from the client; fields that its kind does not have are empty."""

    kind: int
    packet_id: int = 0
    reason: int = 0
    properties: dict[int, Any] = field(default_factory=dict)
    # PUBLISH
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    # SUBSCRIBE with the options of each filter, UNSUBSCRIBE with 0
    filters: dict[str, int] = field(default_factory=dict)
    # CONNECT
    protocol: int = 0
    clean: bool = False
    keepalive: int = 0
    client_id: str = ""
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data), "a field goes beyond the end of its packet"
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def field(self) -> bytes:
        return self.take(self.number(_TWO))

    def text(self) -> str:
        return self.field().decode()

    def length(self) -> int:
        """A Variable Byte Integer."""
        value = shift = 0
        while True:
            byte = self.number(_BYTE)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            assert shift < 28, "a Variable Byte Integer has four bytes at most"

    def properties(self) -> dict[int, Any]:
        reader, found = _Reader(self.take(self.length())), dict[int, Any]()
        while reader.at < len(reader.data):
            name = reader.length()
            form = _TYPES[name]
            if form == _PAIR:
                found.setdefault(name, []).append((reader.text(), reader.text()))
                continue
            assert name not in found, f"property 0x{name:02x} twice"
            if form == _VARIABLE:
                found[name] = reader.length()
                continue
            found[name] = reader.field() if form == _STRING else reader.number(form)
        return found


def split(data: bytearray) -> tuple[int, bytes, int] | None:
    """The first byte and the body of the first packet, and its size; None while it is not complete."""
    for head in range(2, min(len(data), 5) + 1):
        if data[head - 1] < 0x80:
            size = head + _Reader(bytes(data[1:head])).length()
            return (data[0], bytes(data[head:size]), size) if size <= len(data) else None
    return None


def parse(first: int, body: bytes, five: bool) -> Packet:
    """A packet from a client; fails on anything that the specification does not allow."""
    kind, flags, reader = first >> 4, first & 0x0F, _Reader(body)
    if kind == CONNECT:
        return _parse_connect(reader)
    if kind == PUBLISH:
        topic, qos = reader.text(), flags >> 1 & 3
        assert qos < 3, "QoS 3"
        packet_id = reader.number(_TWO) if qos else 0
        assert bool(qos) == bool(packet_id), "a packet identifier of 0"
        properties = reader.properties() if five else {}
        return Packet(
            PUBLISH, packet_id, 0, properties, topic, reader.rest(), qos, bool(flags & 1), bool(flags & 8)
        )  # fmt: skip
    assert flags == (2 if kind in (PUBREL, SUBSCRIBE, UNSUBSCRIBE) else 0), f"flags {flags} in packet type {kind}"
    packet_id = reader.number(_TWO) if kind not in (PINGREQ, DISCONNECT, AUTH) else 0
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        properties, filters = reader.properties() if five else {}, dict[str, int]()
        while reader.at < len(body):
            name = reader.text()
            filters[name] = reader.number(_BYTE) if kind == SUBSCRIBE else 0
        assert filters, "no topic filter"
        return Packet(kind, packet_id, properties=properties, filters=filters)
    reason = reader.number(_BYTE) if five and reader.at < len(body) else 0
    properties = reader.properties() if five and reader.at < len(body) else {}
    assert reader.at == len(body), f"packet type {kind} is too long"
    return Packet(kind, packet_id, reason, properties)


def _parse_connect(reader: _Reader) -> Packet:
    assert reader.field() == b"MQTT"
    protocol, flags, keepalive = reader.number(_BYTE), reader.number(_BYTE), reader.number(_TWO)
    five = protocol == 5
    assert not flags & 1, "the reserved flag of CONNECT is set"
    properties = reader.properties() if five else {}
    client_id, will = reader.text(), None
    if flags & 0x04:
        will_properties = reader.properties() if five else {}
        will = Will(reader.text(), reader.field(), flags >> 3 & 3, bool(flags & 0x20), will_properties)
    username = reader.text() if flags & 0x80 else None
    password = reader.field() if flags & 0x40 else None
    assert reader.at == len(reader.data), "CONNECT is too long"
    return Packet(
        CONNECT, properties=properties, protocol=protocol, clean=bool(flags & 2), keepalive=keepalive,
        client_id=client_id, username=username, password=password, will=will,
    )  # fmt: skip


# Packets from the broker


def _packet(first: int, body: bytes) -> bytes:
    length, head = len(body), bytearray((first,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(head) + bytes((length,)) + body


def pack(properties: dict[int, int]) -> bytes:
    packed = b"".join(bytes((name,)) + struct.pack(_TYPES[name], value) for name, value in properties.items())
    return bytes((len(packed),)) + packed


def connack(
    five: bool, code: int = 0, *, session_present: bool = False, properties: dict[int, int] | None = None
) -> bytes:
    return _packet(0x20, bytes((session_present, code)) + (pack(properties or {}) if five else b""))


def publish(
    five: bool, topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, *, dup: bool = False, retain: bool = False
) -> bytes:
    identifier = struct.pack("!H", packet_id) if qos else b""
    name = topic.encode()
    body = struct.pack("!H", len(name)) + name + identifier + (b"\0" if five else b"") + payload
    return _packet(0x30 | dup << 3 | qos << 1 | retain, body)


def acknowledgement(kind: int, packet_id: int, reason: int = 0) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP; a reason in MQTT 5 only."""
    body = struct.pack("!H", packet_id) + (bytes((reason,)) if reason else b"")
    return _packet(kind << 4 | (2 if kind == PUBREL else 0), body)


def suback(five: bool, packet_id: int, codes: list[int]) -> bytes:
    return _packet(0x90, struct.pack("!H", packet_id) + (b"\0" if five else b"") + bytes(codes))


def unsuback(five: bool, packet_id: int, count: int) -> bytes:
    return _packet(0xB0, struct.pack("!H", packet_id) + (b"\0" + bytes(count) if five else b""))


def auth(reason: int, method: str = "OAUTH2-JWT") -> bytes:
    """In MQTT 5 only; every AUTH carries the method (section 3.15.2.2.2)."""
    name = bytes((AUTHENTICATION_METHOD,)) + struct.pack("!H", len(method)) + method.encode()
    return _packet(0xF0, bytes((reason, len(name))) + name)


def disconnect(reason: int) -> bytes:
    """From a broker, in MQTT 5 only."""
    return _packet(0xE0, bytes((reason,)))


PINGRESP_PACKET = b"\xd0\x00"
