"""Encoding: the packets that a client sends (MQTT 5 and MQTT 3.1.1, section 3 of each)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...logs import get_logger
from .packets import AUTH, CONNECT, DISCONNECT, PUBLISH, PUBREL, SUBSCRIBE, UNSUBSCRIBE
from .properties import pack_length, pack_properties

if TYPE_CHECKING:
    from .will import Will

log = get_logger("mqtt_token_client.mqtt")

_RESERVED_FLAGS = 0x02  # of PUBREL, SUBSCRIBE and UNSUBSCRIBE [MQTT-2.1.3-1]
_NO_PROPERTIES = b"\x00"


class Encoder:
    """Encodes the packets of one protocol version.

    Args:
        protocol: 5, or 4 for MQTT 3.1.1.
    """

    def __init__(self, protocol: int) -> None:
        self.five = protocol == 5

    def connect(
        self,
        *,
        client_id: str,
        clean: bool,
        keepalive: int,
        username: str | None,
        password: bytes | None,
        will: Will | None,
        properties: Mapping[str, Any],
    ) -> bytes:
        """CONNECT (section 3.1).

        Args:
            client_id: the client identifier.
            clean: Clean Start of MQTT 5, Clean Session of 3.1.1.
            keepalive: Keep Alive in seconds.
            username: the user name; None sends none.
            password: the password; None sends none. It needs a user name.
            will: the will, if there is one.
            properties: of MQTT 5, by their names in snake_case; MQTT 3.1.1 has none.

        Raises:
            ConfigurationError: MQTT 5 does not allow one of the properties.
        """
        flags = clean << 1
        fields = [_field(client_id.encode())]
        if will is not None:
            flags |= 0x04 | will.qos << 3 | bool(will.retain) << 5
            if self.five:
                fields.append(will.pack_properties())
            fields += [_field(will.topic.encode()), _field(will.payload)]
        if username is not None:
            flags |= 0x80
            fields.append(_field(username.encode()))
        if password is not None:
            flags |= 0x40
            fields.append(_field(password))
        packed = (pack_properties(properties, CONNECT) or _NO_PROPERTIES) if self.five else b""
        version = bytes((5 if self.five else 4, flags))
        log.debug("sending CONNECT: client_id %s, flags %s, keepalive %s s", client_id, hex(flags), keepalive)
        return _packet(CONNECT, _field(b"MQTT"), version, keepalive.to_bytes(2), packed, *fields)

    def publish(
        self, topic: bytes, payload: bytes, qos: int, retain: bool, packet_id: int, duplicate: bool, properties: bytes
    ) -> bytes:
        """PUBLISH (section 3.3); ``topic`` with its length before it, ``properties`` packed, or empty for none."""
        properties = (properties or _NO_PROPERTIES) if self.five else b""
        command = PUBLISH | duplicate << 3 | qos << 1 | retain
        length = len(topic) + len(properties) + len(payload) + (2 if qos else 0)
        if length < 0x80:  # by far the fastest way to put bytes together
            if qos:
                return b"%c%c%b%c%c%b%b" % (
                    command,
                    length,
                    topic,
                    packet_id >> 8,
                    packet_id & 0xFF,
                    properties,
                    payload,
                )
            return b"%c%c%b%b%b" % (command, length, topic, properties, payload)
        identifier = packet_id.to_bytes(2) if qos else b""
        return b"".join((bytes((command,)), pack_length(length), topic, identifier, properties, payload))

    def acknowledge(self, kind: int, packet_id: int, reason: int = 0) -> bytes:
        """PUBACK, PUBREC, PUBREL or PUBCOMP. Success needs no reason code (MQTT 5 section 3.4.2.1), and MQTT 3.1.1 has
        none: there every one of them acknowledges.
        """
        first, high, low = kind | _RESERVED_FLAGS if kind == PUBREL else kind, packet_id >> 8, packet_id & 0xFF
        if reason and self.five:
            return b"%c\x03%c%c%c" % (first, high, low, reason)
        return b"%c\x02%c%c" % (first, high, low)

    def subscribe(self, packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes = b"") -> bytes:
        """SUBSCRIBE (section 3.8) to filters, each with its Subscription Options (MQTT 5 section 3.8.3.1; in 3.1.1 its
        QoS); ``properties`` packed, or empty for none.
        """
        each = [_field(name.encode()) + bytes((options,)) for name, options in filters]
        log.debug("sending SUBSCRIBE %s with %s filters", packet_id, len(each))
        packed = (properties or _NO_PROPERTIES) if self.five else b""
        return _packet(SUBSCRIBE | _RESERVED_FLAGS, packet_id.to_bytes(2), packed, *each)

    def unsubscribe(self, packet_id: int, filters: Iterable[str]) -> bytes:
        """UNSUBSCRIBE (section 3.10)."""
        each = [_field(name.encode()) for name in filters]
        log.debug("sending UNSUBSCRIBE %s with %s filters", packet_id, len(each))
        packed = _NO_PROPERTIES if self.five else b""
        return _packet(UNSUBSCRIBE | _RESERVED_FLAGS, packet_id.to_bytes(2), packed, *each)

    def authenticate(self, reason: int, method: str, data: bytes) -> bytes:
        """AUTH with Authentication Method and Data (MQTT 5 section 3.15)."""
        log.debug("sending AUTH, reason code %s", hex(reason))
        properties = {"authentication_method": method, "authentication_data": data}
        return _packet(AUTH, bytes((reason,)), pack_properties(properties, AUTH))

    def disconnect(self, reason: int = 0) -> bytes:
        """DISCONNECT (section 3.14): with 0, Normal disconnection, the broker drops the will. MQTT 3.1.1 has no other
        reason.
        """
        log.debug("sending DISCONNECT, reason code %s", hex(reason))
        return b"%c\x01%c" % (DISCONNECT, reason) if reason else b"%c\x00" % DISCONNECT


def _field(data: bytes) -> bytes:
    """A string or binary data, with its length before it (MQTT 5 sections 1.5.4 and 1.5.6)."""
    return len(data).to_bytes(2) + data


def _packet(first_byte: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return b"".join((bytes((first_byte,)), pack_length(len(body)), body))
