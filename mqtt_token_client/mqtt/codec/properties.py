"""MQTT 5 properties (section 2.2.2): their names, and how they are packed and read.

paho-mqtt's public tables say which property has which identifier and type, and which packets may carry it. Reading
takes time in proportion to the size of the properties, and their number is limited: each costs far more than its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ...errors import ConfigurationError
from .packets import NAMES, PUBLISH, WILL, NotAllowedError
from .reason_codes import TOPIC_ALIAS_INVALID
from .topics import check_topic, decode_string

MOST_PROPERTIES = 4096  # in one packet: an empty one has 5 bytes, and takes more than ten times as much memory

# The types of section 2.2.2.2, by their places in paho's table.
_BYTE, _TWO_BYTES, _FOUR_BYTES, _VARIABLE, _BINARY, _STRING, _PAIR = range(7)
_LARGEST = {_BYTE: 1, _TWO_BYTES: 0xFFFF, _FOUR_BYTES: 0xFFFF_FFFF, _VARIABLE: 268_435_455}  # every Byte is a flag
_FIXED_SIZE = {_BYTE: 1, _TWO_BYTES: 2, _FOUR_BYTES: 4}  # bytes
_NOT_ZERO = frozenset(("subscription_identifier", "receive_maximum", "topic_alias", "maximum_packet_size"))
# In PUBLISH: the broker sets the first [MQTT-3.3.4-6]; the other is valid on one connection only, and a message may
# outlive that.
_NOT_FOR_APPLICATIONS = frozenset(("subscription_identifier", "topic_alias"))


class TooManyPropertiesError(ValueError):
    """A packet has more than ``MOST_PROPERTIES``."""


class _Property(NamedTuple):
    name: str
    identifier: int
    type: int
    lowest: int
    highest: int
    repeats: bool  # may be there more than once in the packet


def _table() -> dict[int, dict[int, _Property]]:
    """By the first byte of the packet, and by identifier."""
    paho = Properties(PacketTypes.CONNECT)
    table: dict[int, dict[int, _Property]] = {}
    for spelled, identifier in paho.names.items():
        name = spelled.lower().replace(" ", "_")
        kind, packets = paho.properties[identifier]
        lowest, highest = int(name in _NOT_ZERO), _LARGEST.get(kind, 0)
        if name == "maximum_qos":
            highest = 2  # 0 or 1 (section 3.2.2.3.4); a broker that says 2 means the same as one that says nothing
        for packet in packets:
            first_byte = WILL if packet == PacketTypes.WILLMESSAGE else packet << 4
            repeats = kind == _PAIR or (kind == _VARIABLE and first_byte == PUBLISH)
            table.setdefault(first_byte, {})[identifier] = _Property(name, identifier, kind, lowest, highest, repeats)
    return table


_BY_IDENTIFIER = _table()
_BY_NAME = {packet: {one.name: one for one in known.values()} for packet, known in _BY_IDENTIFIER.items()}
_NAMES = frozenset(name for known in _BY_NAME.values() for name in known)
_ANYWHERE = {identifier: one for known in _BY_IDENTIFIER.values() for identifier, one in known.items()}


# Variable Byte Integers (section 1.5.5)


def pack_length(value: int) -> bytes:
    """A Variable Byte Integer, of a value from 0 to 268,435,455."""
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def read_length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The Variable Byte Integer that begins at a position, and the position after it.

    Raises:
        ValueError: it goes beyond ``end``, or has more bytes than it needs, or more than four [MQTT-1.5.5-1].
    """
    value = 0
    for shift in (0, 7, 14, 21):
        if at >= end:
            raise ValueError("a length goes beyond the end of the packet")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if shift and not byte:
                raise ValueError("a length has more bytes than it needs")
            return value, at
    raise ValueError("a length has more than four bytes")


# Reading


def read_properties(packet: int, data: bytes, at: int, end: int) -> tuple[dict[str, Any], int]:
    """The properties that begin with their length at a position, by name, and the position after them.

    Args:
        packet: the first byte of the kind of packet that they are in.
        data: the bytes.
        at: where their length begins.
        end: where the packet ends.

    Raises:
        ValueError: they are malformed, or not allowed in this packet.
    """
    length, at = read_length(data, at, end)
    stop = at + length
    if stop > end:
        raise ValueError("the properties go beyond the end of the packet")
    known, found, left = _BY_IDENTIFIER[packet], dict[str, Any](), MOST_PROPERTIES
    while at < stop:
        identifier = data[at]
        property_ = known.get(identifier)
        if property_ is None:
            raise _unexpected(identifier, data, at, stop)
        left -= 1
        if left < 0:
            raise TooManyPropertiesError(f"more than {MOST_PROPERTIES} properties")
        name = property_.name
        value, at = _READ[property_.type](data, at + 1, stop)
        if property_.highest and not property_.lowest <= value <= property_.highest:
            raise NotAllowedError(f"{name} is {value}")
        if property_.repeats:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise NotAllowedError(f"{name} is there twice")
        else:
            found[name] = value
    if packet == PUBLISH:
        _check_publish(found)
    return found, stop


def _unexpected(identifier: int, data: bytes, at: int, stop: int) -> ValueError:
    """The error for a property that the packet must not have: MQTT 5 has it in other packets, or does not have it."""
    property_ = _ANYWHERE.get(identifier)
    if property_ is None:
        return ValueError(f"0x{identifier:02x} is not a property")
    try:
        _READ[property_.type](data, at + 1, stop)
    except ValueError as error:
        return error
    return NotAllowedError(f"property 0x{identifier:02x} is not allowed there")


def _check_publish(found: Mapping[str, Any]) -> None:
    if "topic_alias" in found:  # CONNECT allows none [MQTT-3.1.2-26]
        raise NotAllowedError(f"topic_alias is {found['topic_alias']}, the maximum is 0", TOPIC_ALIAS_INVALID)
    response_topic = found.get("response_topic", "t")
    if not response_topic or "+" in response_topic or "#" in response_topic:  # [MQTT-4.7.3-1], [MQTT-3.3.2-14]
        raise NotAllowedError(f"response_topic is {'empty' if not response_topic else 'a topic filter'}")


def _read_number(size: int) -> Callable[[bytes, int, int], tuple[int, int]]:
    def read(data: bytes, at: int, stop: int) -> tuple[int, int]:
        if at + size > stop:
            raise ValueError("a property goes beyond the end of the properties")
        return int.from_bytes(data[at : at + size]), at + size

    return read


def _read_binary(data: bytes, at: int, stop: int) -> tuple[bytes, int]:
    begin = at + 2
    end = begin + (data[at] << 8 | data[at + 1]) if begin <= stop else begin
    if end > stop:
        raise ValueError("a property goes beyond the end of the properties")
    return data[begin:end], end


def _read_string(data: bytes, at: int, stop: int) -> tuple[str, int]:
    encoded, at = _read_binary(data, at, stop)
    return decode_string(encoded), at


def _read_pair(data: bytes, at: int, stop: int) -> tuple[tuple[str, str], int]:
    key, at = _read_string(data, at, stop)
    value, at = _read_string(data, at, stop)
    return (key, value), at


_READ: dict[int, Callable[[bytes, int, int], tuple[Any, int]]] = {
    **{kind: _read_number(size) for kind, size in _FIXED_SIZE.items()},
    _VARIABLE: read_length,
    _BINARY: _read_binary,
    _STRING: _read_string,
    _PAIR: _read_pair,
}


# Packing


def pack_properties(properties: Mapping[str, Any] | None, packet: int = PUBLISH) -> bytes:
    """Properties as they stand in a packet, with their length before them; empty bytes for none.

    Args:
        properties: by their names in snake_case: "Content Type" is ``content_type``. A ``user_property`` is a pair of
            strings, or a list of pairs.
        packet: the first byte of the kind of packet that they are for, or ``WILL``.

    Raises:
        ConfigurationError: MQTT 5 does not allow such a name or value in this packet.
    """
    if not properties and (properties is None or isinstance(properties, Mapping)):
        return b""
    if not isinstance(properties, Mapping):
        raise ConfigurationError(f"properties must be a mapping, got {type(properties).__name__}")
    packed = bytearray()
    for name, value in properties.items():
        property_ = _property(name, packet)
        for one in value if property_.type == _PAIR and isinstance(value, list) else (value,):
            packed.append(property_.identifier)
            packed += _pack(property_, one)
    return pack_length(len(packed)) + packed


def add_subscription_identifier(packed: bytes, identifier: int) -> bytes:
    """Packed properties of SUBSCRIBE, which have no Subscription Identifier (section 3.8.2.1.2), with this one."""
    _, start = read_length(packed, 0, len(packed)) if packed else (0, 0)
    properties = b"\x0b" + pack_length(identifier) + packed[start:]
    return pack_length(len(properties)) + properties


def replace_expiry(packed: bytes, seconds: int) -> bytes:
    """Properties that begin with a Message Expiry Interval (section 3.3.2.3.3), with this one in its place."""
    _, start = read_length(packed, 0, len(packed))
    return packed[: start + 1] + seconds.to_bytes(4, "big") + packed[start + 5 :]


def _property(name: object, packet: int) -> _Property:
    if packet == PUBLISH and name in _NOT_FOR_APPLICATIONS:
        raise ConfigurationError(f"properties: {name} cannot be set by an application")
    found = _BY_NAME[packet].get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    if name not in _NAMES:
        raise ConfigurationError(f"properties: {name!r} is not a property of MQTT 5; one is 'content_type'")
    where = "a will" if packet == WILL else NAMES[packet]
    raise ConfigurationError(f"properties: {name} is not allowed in {where}")


def _is_pair_of_strings(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _pack(property_: _Property, value: Any) -> bytes:
    name, kind = property_.name, property_.type
    if property_.highest:
        if not isinstance(value, int) or not property_.lowest <= value <= property_.highest:
            raise ConfigurationError(
                f"properties: {name} must be a whole number from {property_.lowest} to {property_.highest}, "
                f"got {value!r}"
            )
        return pack_length(value) if kind == _VARIABLE else int(value).to_bytes(_FIXED_SIZE[kind])
    if kind == _PAIR:
        if not _is_pair_of_strings(value):
            raise ConfigurationError(
                f"properties: {name} must be a pair of strings, or a list of such pairs, got {value!r}"
            )
        return _pack_string(name, value[0]) + _pack_string(name, value[1])
    if kind == _BINARY:
        if not isinstance(value, bytes | bytearray):
            raise ConfigurationError(f"properties: {name} must be bytes, got {type(value).__name__}")
        return _pack_binary(name, value)
    if not isinstance(value, str):
        raise ConfigurationError(f"properties: {name} must be a string, got {type(value).__name__}")
    if name == "response_topic":  # [MQTT-3.3.2-13], [MQTT-3.3.2-14]
        return _pack_binary(name, check_topic(value, "properties", name))
    return _pack_string(name, value)


def _pack_string(name: str, text: str) -> bytes:
    if "\0" in text:  # [MQTT-1.5.4-2]
        raise ConfigurationError(f"properties: {name} must not contain NUL")
    try:
        return _pack_binary(name, text.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"properties: {name} cannot be encoded in UTF-8") from None


def _pack_binary(name: str, value: bytes | bytearray) -> bytes:
    if len(value) > 0xFFFF:
        raise ConfigurationError(f"properties: {name} has {len(value)} bytes, the maximum is 65535")
    return len(value).to_bytes(2) + value
