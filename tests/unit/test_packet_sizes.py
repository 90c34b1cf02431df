"""Packets from the broker that are too large or malformed: what CONNECT allows, and what becomes of those all the same.

A message of QoS 1 or 2 that cannot be accepted is answered, so that the broker does not send it again and again.
"""

from __future__ import annotations

import logging

import pytest

from mqtt_token_client import ConnectFailed, Disconnected, MessageRejected
from tests.unit import packets
from tests.unit.device import Device, Make
from tests.unit.packets import (
    CONNECT,
    MAXIMUM_PACKET_SIZE,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    RECEIVE_MAXIMUM,
    SESSION_EXPIRY_INTERVAL,
)
from tests.unit.scripted_broker import Peer

both = pytest.mark.parametrize("protocol", [4, 5])
LARGE = 1000  # bytes, where 500 are allowed


def with_properties(topic: bytes, properties: bytes, qos: int = 1, packet_id: int = 7) -> bytes:
    """A PUBLISH of MQTT 5 with properties, their length before them."""
    body = len(topic).to_bytes(2) + topic + packet_id.to_bytes(2) + properties + b"payload"
    return packets._packet(0x30 | qos << 1, body)


MALFORMED = {
    "a property that PUBLISH does not have": with_properties(b"t", b"\x03\x21\x00\x01"),
    "a property twice": with_properties(b"t", b"\x04\x01\x01\x01\x01"),
    "properties that go beyond the packet": with_properties(b"t", b"\x7f"),
    "a topic that is not UTF-8": with_properties(b"t\xff", b"\x00"),
    "an empty topic": with_properties(b"", b"\x00"),
    "a Topic Alias": with_properties(b"t", b"\x03\x23\x00\x01"),
}
malformed = pytest.mark.parametrize("packet", MALFORMED.values(), ids=MALFORMED)


class TestConnect:
    def test_carries_the_maximum_packet_size_in_mqtt_5(self, make: Make) -> None:
        device = make(5, max_packet_size=1234, session_expiry=60)
        device.client.connect(timeout=0)
        connect = device.broker.accept().expect(CONNECT)
        assert connect.properties == {SESSION_EXPIRY_INTERVAL: 60, MAXIMUM_PACKET_SIZE: 1234}

    def test_carries_the_receive_maximum_if_there_is_one(self, make: Make) -> None:
        device = make(5, receive_maximum=20)
        device.client.connect(timeout=0)
        assert device.broker.accept().expect(CONNECT).properties[RECEIVE_MAXIMUM] == 20

    def test_of_3_1_1_carries_neither(self, make: Make) -> None:
        device = make(4, max_packet_size=1234)
        device.client.connect(timeout=0)
        assert device.broker.accept().expect(CONNECT).properties == {}


def expect_alive(device: Device, peer: Peer) -> None:
    """Messages arrive on the connection that is up."""
    peer.publish("t", b"after it", 1, 99)
    assert peer.expect(PUBACK).packet_id == 99
    assert device.payloads[-1] == b"after it"
    assert not device.reported(Disconnected)


@both
class TestAMessageThatIsTooLarge:
    def test_of_the_largest_size_is_delivered(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_packet_size=500)
        peer = device.start()
        payload = bytes(500 - (3 + 3 + 2 + (protocol == 5)))  # fixed header, topic, packet identifier, properties
        peer.publish("t", payload, 1, 7)
        assert peer.expect(PUBACK).reason == 0
        assert device.payloads == [payload]

    def test_at_qos_0_is_reported_and_the_connection_stays(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_packet_size=500)
        peer = device.start()
        peer.publish("t", bytes(LARGE))
        size = len(packets.publish(protocol == 5, "t", bytes(LARGE)))
        assert device.event(MessageRejected) == MessageRejected("t", 0x95, size)
        expect_alive(device, peer)

    def test_at_qos_1_is_answered_and_reported_and_the_connection_stays(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_packet_size=500)
        peer = device.start()
        peer.publish("t", bytes(LARGE), 1, 7)
        answer = peer.expect(PUBACK)
        assert (answer.packet_id, answer.reason) == (7, 0x97 if protocol == 5 else 0)
        assert (device.event(MessageRejected).topic, device.payloads) == ("t", [])
        expect_alive(device, peer)

    def test_at_qos_2_is_answered_and_reported_and_the_connection_stays(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_packet_size=500)
        peer = device.start()
        peer.publish("t", bytes(LARGE), 2, 7)
        answer = peer.expect(PUBREC)
        assert (answer.packet_id, answer.reason) == (7, 0x97 if protocol == 5 else 0)
        assert device.event(MessageRejected).reason == 0x95
        if protocol == 4:
            peer.acknowledge(PUBREL, 7)
            assert peer.expect(PUBCOMP).packet_id == 7
        peer.publish("t", b"the identifier is free", 2, 7)
        assert peer.expect(PUBREC).reason == 0
        assert device.payloads == [b"the identifier is free"]
        expect_alive(device, peer)

    def test_is_answered_before_its_body_has_arrived(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_packet_size=500)
        peer = device.start()
        packet = packets.publish(protocol == 5, "t", bytes(LARGE), 1, 7)
        peer.send(packet[:12])
        assert peer.expect(PUBACK).packet_id == 7
        peer.send(packet[12:])
        expect_alive(device, peer)

    def test_waits_for_its_turn_among_manual_acknowledgements(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_packet_size=500, manual_ack=True)
        peer = device.start()
        peer.publish("t", b"first", 1, 6)
        peer.publish("t", bytes(LARGE), 1, 7)
        device.event(MessageRejected)
        peer.expect_nothing(0.05)
        device.messages[0].acknowledge()
        assert [peer.expect(PUBACK).packet_id for _ in range(2)] == [6, 7]


class TestTooManyProperties:
    @pytest.mark.parametrize(("qos", "kind"), [(1, PUBACK), (2, PUBREC)])
    def test_reject_the_message_and_the_connection_stays(self, make: Make, qos: int, kind: int) -> None:
        device = make()
        peer = device.start()
        properties = b"\x26\x00\x00\x00\x00" * 100_000
        packet = with_properties(b"t", b"\xa0\xc2\x1e" + properties, qos)
        peer.send(packet)
        assert (answer := peer.expect(kind)).packet_id == 7
        assert answer.reason == 0x97
        assert device.event(MessageRejected) == MessageRejected("t", 0x97, len(packet))
        expect_alive(device, peer)


class TestAMalformedMessage:
    @malformed
    def test_ends_the_connection_and_is_answered_when_it_comes_again(self, make: Make, packet: bytes) -> None:
        device = make()
        first = device.start()
        first.send(packet)
        first.expect_rejection(0x81, 0x82, 0x94)
        assert device.event(Disconnected).cause.startswith("the broker sent a malformed PUBLISH (")
        assert not device.reported(MessageRejected)
        second = device.answer()
        second.send(packet)
        assert (answer := second.expect(PUBACK)).packet_id == 7
        assert answer.reason == 0x83
        assert device.event(MessageRejected).size == len(packet)
        second.publish("t", b"after it", 1, 99)
        assert second.expect(PUBACK).packet_id == 99
        assert len(device.reported(Disconnected)) == 1

    def test_of_3_1_1_is_answered_when_it_comes_again(self, make: Make) -> None:
        device = make(4)
        packet = bytes.fromhex("34 07 0002 74ff 0007 21")
        first = device.start()
        first.send(packet)
        first.expect_end()
        second = device.answer()
        second.send(packet)
        assert second.expect(PUBREC).packet_id == 7
        second.acknowledge(PUBREL, 7)
        assert second.expect(PUBCOMP).packet_id == 7
        assert device.event(MessageRejected).topic == "t\ufffd"

    def test_with_another_identifier_ends_the_connection_again(self, make: Make) -> None:
        device = make()
        for packet_id in (7, 8):
            peer = device.start() if packet_id == 7 else device.answer()
            peer.send(with_properties(b"t", b"\x7f", packet_id=packet_id))
            peer.expect_rejection(0x81)
            device.event(Disconnected)
        assert not device.reported(MessageRejected)

    def test_is_not_expected_again_in_a_new_session(self, make: Make) -> None:
        device = make()
        for _ in range(2):
            peer = device.start() if not device.events else device.answer(session_present=False)
            peer.send(with_properties(b"t", b"\x7f"))
            peer.expect_rejection(0x81)
            device.event(Disconnected)
        assert not device.reported(MessageRejected)

    def test_takes_nothing_along_that_arrived_before_it(self, make: Make) -> None:
        device = make()
        peer = device.start()
        peer.send(packets.publish(True, "t", b"before it", 1, 6) + with_properties(b"t", b"\x7f"))
        device.event(Disconnected)
        assert device.payloads == [b"before it"]

    def test_takes_connack_not_along(self, make: Make) -> None:
        device = make()
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(packets.connack(True) + bytes.fromhex("30 03 00 01 ff"))
        device.event(Disconnected)
        assert not device.reported(ConnectFailed)


class TestBeforeConnack:
    @both
    def test_a_large_packet_ends_the_connection_at_its_fixed_header(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(bytes.fromhex("20 ff ff ff 7f"))
        peer.expect_end()
        assert "CONNACK of 268435460 bytes" in str(device.event(ConnectFailed).error)

    @both
    def test_any_packet_but_connack_ends_the_connection(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(bytes.fromhex("30 ff ff ff 7f"))
        peer.expect_end()
        assert "the broker sent PUBLISH out of place" in str(device.event(ConnectFailed).error)


def test_a_rejected_message_is_logged_as_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    device = make(max_packet_size=500)
    device.start().publish("t", bytes(LARGE))
    device.event(MessageRejected)
    (record,) = [record for record in caplog.records if "MessageRejected" in record.getMessage()]
    assert record.levelno == logging.WARNING
