"""Fields of a PUBLISH whose value needs more than one byte."""

from __future__ import annotations

import pytest

from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.packets import Acknowledgement, RejectedPublish
from mqtt_token_client.mqtt.codec.properties import MOST_PROPERTIES, pack_length
from mqtt_token_client.mqtt.codec.reason_codes import PACKET_TOO_LARGE, QUOTA_EXCEEDED
from tests.unit import packets
from tests.unit.codecs import connected

_EACH = [(protocol, qos) for protocol in (4, 5) for qos in (0, 1, 2)]
_EMPTY_PROPERTY = b"\x26\x00\x00\x00\x00"  # a User Property


@pytest.mark.parametrize("length", [1, 255, 256, 300, 65_535])
@pytest.mark.parametrize(("protocol", "qos"), _EACH)
def test_a_topic_of_any_length_is_read(protocol: int, qos: int, length: int) -> None:
    topic = "t" * length
    packet = packets.publish(protocol == 5, topic, b"payload", qos, 1 if qos else 0)
    (message,) = connected(protocol).receive(packet)
    assert isinstance(message, Message)
    assert (message.topic, message.payload) == (topic, b"payload")


@pytest.mark.parametrize("length", [255, 256, 300])
@pytest.mark.parametrize(("protocol", "qos"), _EACH)
def test_a_topic_of_any_length_is_read_of_a_message_that_is_too_large(protocol: int, qos: int, length: int) -> None:
    topic, packet_id = "t" * length, 259 if qos else 0
    packet = packets.publish(protocol == 5, topic, bytes(1000), qos, packet_id)
    rejected = RejectedPublish(topic, qos, packet_id, PACKET_TOO_LARGE, len(packet))
    assert connected(protocol, 1000).receive(packet) == [rejected]


@pytest.mark.parametrize("length", [255, 256, 300])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_topic_of_any_length_is_read_of_a_message_with_too_many_properties(qos: int, length: int) -> None:
    name, properties = b"t" * length, _EMPTY_PROPERTY * (MOST_PROPERTIES + 1)
    body = length.to_bytes(2) + name + (259).to_bytes(2) + pack_length(len(properties)) + properties
    (rejected,) = connected(5).receive(packets._packet(0x30 | qos << 1, body))
    assert isinstance(rejected, RejectedPublish)
    assert (rejected.topic, rejected.packet_id, rejected.reason) == (name.decode(), 259, QUOTA_EXCEEDED)


@pytest.mark.parametrize("packet_id", [1, 255, 256, 259, 65_535])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("protocol", [4, 5])
def test_any_packet_identifier_is_read(protocol: int, qos: int, packet_id: int) -> None:
    (message,) = connected(protocol).receive(packets.publish(protocol == 5, "t", b"", qos, packet_id))
    assert isinstance(message, Message)
    assert message.packet_id == packet_id


@pytest.mark.parametrize("packet_id", [1, 255, 256, 259, 65_535])
@pytest.mark.parametrize("reason", [0, 0x10, 0x87])
def test_any_packet_identifier_of_an_acknowledgement_is_read(packet_id: int, reason: int) -> None:
    for kind in (packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP):
        (answer,) = connected(5).receive(packets.acknowledgement(kind, packet_id, reason))
        assert answer == Acknowledgement(kind << 4, packet_id, reason)
