"""The packets of one MQTT connection: bytes in, packets out, and the other way round. It opens no socket.

paho-mqtt builds and reads what carries properties and reason codes (CONNECT, CONNACK, SUBSCRIBE, SUBACK and so on).
PUBLISH and its acknowledgements, a few bytes each and nearly all of the traffic, are built and read here: paho makes a
``Properties`` and a ``ReasonCode`` object for each of them, which costs more than everything else together.

This is the only file that touches a private name of paho; tests/unit/test_paho_contract.py guards those names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ...errors import ConfigurationError, ProtocolError
from .message import Message
from .packets import (
    AUTH,
    CONNACK,
    DISCONNECT,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Acknowledgement,
    Auth,
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    Suback,
    Unsuback,
    acknowledgement,
)

log = logging.getLogger("mqtt_token_client.mqtt")

_ACKNOWLEDGEMENTS = frozenset((PUBACK, PUBREC, PUBREL | 2, PUBCOMP))  # as they begin
_READ_BY_PAHO = frozenset((CONNACK, SUBACK, UNSUBACK))
# MQTT 3.1.1 section 3.2.2.3; any other is an Unspecified error. For 1 paho would dial again, or say nothing.
_RETURN_CODES = {0: 0, 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}

# MQTT 5 section 2.2.2.2, in Python's spelling: "Message Expiry Interval" is message_expiry_interval.
_PROPERTY_NAMES = {
    name.replace(" ", ""): name.lower().replace(" ", "_") for name in Properties(PacketTypes.CONNECT).names
}
_PAHO_NAMES = {ours: theirs for theirs, ours in _PROPERTY_NAMES.items()}
# In PUBLISH: the one is for the broker to set [MQTT-3.3.4-6]; the other ends with its connection, and a message may
# outlive that.
_NOT_TO_SEND = frozenset(("subscription_identifier", "topic_alias"))


def _read_properties(properties: Properties) -> dict[str, Any]:
    return {_PROPERTY_NAMES[name]: value for name, value in vars(properties).items() if name in _PROPERTY_NAMES}


def _server_reference(packed: bytes) -> str | None:
    """The Server Reference among the properties of DISCONNECT, which may have none."""
    properties = Properties(PacketTypes.DISCONNECT)
    try:
        properties.unpack(packed or b"\x00")
    except Exception:  # noqa: BLE001 - whatever malformed bytes lead to; the reason before them has been read
        return None
    reference: str | None = _read_properties(properties).get("server_reference")
    return reference


def _are_pairs(value: object) -> bool:
    return all(
        isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in (value if isinstance(value, list) else [value])
    )


def pack_properties(properties: Mapping[str, Any], packet: str = "PUBLISH") -> Properties:
    """paho's form of properties given by their MQTT 5 names in snake_case.

    Raises:
        ConfigurationError: a name or a value that MQTT 5 does not know in such a packet.
    """
    if not isinstance(properties, Mapping):
        raise ConfigurationError(f"properties: a mapping, not {type(properties).__name__}")
    packed = Properties(getattr(PacketTypes, packet))
    for name, value in properties.items():
        if name in _NOT_TO_SEND and packet == "PUBLISH":
            raise ConfigurationError(f"properties: {name} is not for an application to set")
        if name == "subscription_identifier" and not isinstance(value, int):  # a SUBSCRIBE has one (section 3.8.2.1.2)
            raise ConfigurationError(f"properties: {name}: a whole number, not {value!r}")
        if name == "user_property" and not _are_pairs(value):  # paho would take two letters of one string
            raise ConfigurationError(f"properties: {name}: a pair of strings, or a list of pairs, not {value!r}")
        try:
            setattr(packed, _PAHO_NAMES[name], value)
        except KeyError:
            raise ConfigurationError(f"properties: {name!r} is no property of MQTT 5; one is 'content_type'") from None
        except IndexError:  # paho has no name for a will
            raise ConfigurationError(f"properties: {name} does not apply to a will") from None
        except Exception as error:  # noqa: BLE001 - paho raises whatever the value leads to
            raise ConfigurationError(f"properties: {name}: {error}") from None
    try:
        packed.pack()
    except Exception as error:  # noqa: BLE001 - as above
        raise ConfigurationError(f"properties: {', '.join(properties)}: {error}") from None
    return packed


def _subscribe_options(options: int) -> SubscribeOptions:
    return SubscribeOptions(options & 3, bool(options & 4), bool(options & 8), options >> 4)


class _Paho(paho.Client):
    """paho without its network: what it would send is kept, what it reads is what it is given."""

    def __init__(self, client_id: str, protocol: int, clean: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion(protocol),
            clean_session=clean if protocol == 4 else None,
        )
        self._clean_start = clean
        self.built = b""
        self.read: list[Packet] = []
        self.next_packet_id = 0
        self.on_connect = self._keep_connack
        self.on_subscribe = self._keep_suback
        self.on_unsubscribe = self._keep_unsuback

    def _packet_queue(self, command: int, packet: bytes | bytearray, mid: int, qos: int, info: Any = None) -> Any:  # noqa: ARG002 - paho's signature
        self.built = bytes(packet)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _mid_generate(self) -> int:
        return self.next_packet_id

    def _easy_log(self, level: Any, fmt: str, *args: Any) -> None:  # noqa: ARG002 - paho's signature
        if log.isEnabledFor(logging.DEBUG):
            if "CONN" in fmt and "properties" in fmt:  # Authentication Data is among them
                fmt, args = fmt.partition(" properties")[0], args[:-1]
            log.debug("paho: " + fmt, *args)  # noqa: G003 - the format is paho's

    def _keep_connack(self, _client: Any, _userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.read.append(Connack(flags.session_present, reason.value, _read_properties(properties)))

    def _keep_suback(self, _client: Any, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        self.read.append(Suback(mid, [reason.value for reason in reasons]))

    def _keep_unsuback(self, _client: Any, _userdata: Any, mid: int, _reasons: Any, _properties: Any) -> None:
        self.read.append(Unsuback(mid))

    def build_connect(self, keepalive: int, properties: Properties | None) -> bytes:
        self._connect_properties = properties
        self._send_connect(keepalive)
        return self.built

    def build_subscribe(self, packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes) -> bytes:
        self.next_packet_id = packet_id
        packed = Properties(PacketTypes.SUBSCRIBE)
        packed.unpack(properties or b"\x00")
        five = self._protocol == MQTTProtocolVersion.MQTTv5
        each = [(name.encode(), _subscribe_options(options) if five else options) for name, options in filters]
        self._send_subscribe(0, each, packed)
        return self.built

    def build_unsubscribe(self, packet_id: int, filters: Iterable[str]) -> bytes:
        self.next_packet_id = packet_id
        self._send_unsubscribe(0, [name.encode() for name in filters])
        return self.built

    def build_disconnect(self) -> bytes:
        self._send_disconnect()
        return self.built

    def parse(self, command: int, body: bytes) -> Packet:
        self.read = []
        packet: dict[str, Any] = {"command": command, "packet": bytearray(body), "remaining_length": len(body)}
        self._in_packet.update(packet)  # type: ignore[typeddict-item]  # the rest of it serves paho's own reading
        self._packet_handle()
        if not self.read:
            raise ProtocolError(f"the broker sent a packet of type {command >> 4} that cannot be read")
        return self.read[0]


class Codec:
    """Builds and reads the packets of one connection.

    Args:
        protocol: 5, or 4 for MQTT 3.1.1.
        clean: Clean Start of MQTT 5, Clean Session of 3.1.1.
    """

    def __init__(self, client_id: str, protocol: int, *, clean: bool) -> None:
        self.five = protocol == 5
        self._paho = _Paho(client_id, protocol, clean)
        self._partial = bytearray()
        self._needed = 2

    # What goes out

    def connect(
        self,
        username: str | None,
        password: bytes | None,
        *,
        keepalive: int,
        properties: Mapping[str, Any],
        will: tuple[str, bytes, int, bool, Mapping[str, Any]] | None,
    ) -> bytes:
        """CONNECT; the properties go out in MQTT 5 only. A will is topic, payload, QoS, retain and its properties."""
        self._paho.username_pw_set(username, password)  # type: ignore[arg-type]  # it sends bytes as they are
        if will is not None:
            topic, payload, qos, retain, will_properties = will
            packed = pack_properties(will_properties, "WILLMESSAGE") if self.five and will_properties else None
            self._paho.will_set(topic, payload, qos, retain, packed)
        return self._paho.build_connect(keepalive, pack_properties(properties, "CONNECT") if self.five else None)

    def publish(
        self, topic: bytes, payload: bytes, qos: int, retain: bool, packet_id: int, duplicate: bool, properties: bytes
    ) -> bytes:
        """PUBLISH; ``topic`` with its length before it, ``properties`` as packed for MQTT 5 (empty for none)."""
        properties = (properties or b"\x00") if self.five else b""
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
        head: bytes = VariableByteIntegers.encode(length)
        identifier = packet_id.to_bytes(2) if qos else b""
        return b"".join((bytes((command,)), head, topic, identifier, properties, payload))

    def acknowledge(self, kind: int, packet_id: int) -> bytes:
        """PUBACK, PUBREC, PUBREL or PUBCOMP with Success, which MQTT 5 lets go without saying (section 3.4.2.1)."""
        return b"%c\x02%c%c" % (kind | 2 if kind == PUBREL else kind, packet_id >> 8, packet_id & 0xFF)

    def subscribe(self, packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes = b"") -> bytes:
        """SUBSCRIBE to filters with the Subscription Options of each (MQTT 5 section 3.8.3.1; in 3.1.1 the QoS);
        ``properties`` as packed for MQTT 5 (empty for none).
        """
        return self._paho.build_subscribe(packet_id, filters, properties)

    def unsubscribe(self, packet_id: int, filters: Iterable[str]) -> bytes:
        """UNSUBSCRIBE."""
        return self._paho.build_unsubscribe(packet_id, filters)

    def authenticate(self, reason: int, method: str, data: bytes) -> bytes:
        """AUTH with Authentication Method and Data (MQTT 5 section 3.15)."""
        properties = pack_properties({"authentication_method": method, "authentication_data": data}, "AUTH")
        packed: bytes = properties.pack()
        length: bytes = VariableByteIntegers.encode(1 + len(packed))
        return b"".join((bytes((AUTH,)), length, bytes((reason,)), packed))

    def disconnect(self) -> bytes:
        """DISCONNECT with Normal disconnection, after which the broker drops the will."""
        return self._paho.build_disconnect()

    # What comes in

    def receive(self, data: bytes) -> list[Packet]:
        """The packets that are complete with this data.

        Raises:
            ProtocolError: it is no MQTT.
        """
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data = bytes(self._partial)
            self._partial.clear()
        packets: list[Packet] = []
        start, size, self._needed = 0, len(data), 2
        while size - start >= 2:
            command, length, body = data[start], data[start + 1], start + 2
            if length & 0x80:
                shift = 7
                length &= 0x7F
                while body < size:
                    length |= (data[body] & 0x7F) << shift
                    body += 1
                    if data[body - 1] < 0x80:
                        break
                    shift += 7
                    if shift > 21:
                        raise ProtocolError("the broker sent a packet with a Remaining Length of more than four bytes")
                else:
                    self._needed = size - start + 1
                    break
            end = body + length
            if end > size:
                self._needed = end - start
                break
            if length == 2 and command in _ACKNOWLEDGEMENTS:
                packets.append(acknowledgement((command & 0xF0, data[body] << 8 | data[body + 1], 0)))
            elif command & 0xF0 == PUBLISH:
                packets.append(self._read_publish(command, data, body, end))
            else:
                packets.append(self._read(command, data[body:end]))
            start = end
        if start < size:
            self._partial += data[start:]
        return packets

    def _read(self, command: int, body: bytes) -> Packet:
        kind = command & 0xF0
        try:
            if kind in _ACKNOWLEDGEMENTS or kind == PUBREL:
                return Acknowledgement(kind, body[0] << 8 | body[1], body[2] if len(body) > 2 else 0)
            if kind == CONNACK and not self.five:
                return Connack(bool(body[0] & 1), _RETURN_CODES.get(body[1], 0x80), {})
            if kind in _READ_BY_PAHO:
                return self._paho.parse(command, body)
            if kind == PINGRESP:
                return Pingresp()
            if kind == DISCONNECT and self.five:  # paho 2.1 loses the reason of a DISCONNECT without properties
                return Disconnect(body[0] if body else 0, _server_reference(body[1:]))
            if kind == AUTH and self.five:
                return Auth(body[0] if body else 0)
        except ProtocolError:
            raise
        except Exception as error:  # noqa: BLE001 - paho's readers raise whatever malformed bytes lead to
            raise ProtocolError(f"the broker sent a malformed packet of type {kind >> 4} ({error})") from None
        raise ProtocolError(f"the broker sent a packet of type {kind >> 4}, which has no place here")

    def _read_publish(self, command: int, data: bytes, start: int, end: int) -> Message:
        """The PUBLISH whose body is between start and end."""
        qos = command >> 1 & 3
        packet_id = 0
        properties: dict[str, Any] = {}
        try:
            position = start + 2 + (data[start] << 8 | data[start + 1])
            topic = data[start + 2 : position].decode()
            if qos:
                packet_id = data[position] << 8 | data[position + 1]
                position += 2
            if self.five:
                if data[position] == 0:
                    position += 1
                else:
                    unpacked = Properties(PacketTypes.PUBLISH)
                    position += unpacked.unpack(data[position:end])[1]
                    properties = _read_properties(unpacked)
        except Exception as error:  # noqa: BLE001 - whatever malformed bytes lead to
            raise ProtocolError(f"the broker sent a malformed packet of type 3 ({error})") from None
        if "topic_alias" in properties:  # CONNECT allows none [MQTT-3.1.2-26], [MQTT-3.1.2-27]
            raise ProtocolError("the broker sent a Topic Alias, which this client has not allowed")
        if position > end or qos == 3 or (qos and not packet_id):
            raise ProtocolError("the broker sent a malformed PUBLISH")
        return Message(topic, data[position:end], qos, bool(command & 1), bool(command & 8), properties, packet_id)
