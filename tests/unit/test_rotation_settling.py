"""Before CONNECT goes out on the second connection, the broker gets to read what the first one carries."""

from __future__ import annotations

import time

import pytest

from mqtt_token_client import Connected, Rotated, RotationFailed
from mqtt_token_client.clock import monotonic
from tests.unit import packets
from tests.unit.device import Make, both
from tests.unit.packets import CONNECT, PINGREQ, PUBLISH


class TestABusyFirstConnection:
    @both
    def test_is_asked_by_pingreq_whether_all_was_read_and_connect_waits_for_the_answer(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        second.expect_nothing()
        first.send(packets.PINGRESP_PACKET)
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.event(Rotated)

    @both
    def test_carries_everything_until_the_answer_and_nothing_from_then_on(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"0: before")
        assert first.expect(PUBLISH).payload == b"0: before"
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        for payload in (b"0: sent", b"1: sent", b"0: sent too"):
            device.client.publish("t", payload, qos=int(payload[:1]))
        for payload in (b"0: sent", b"1: sent", b"0: sent too"):
            message = first.expect(PUBLISH)
            assert message.payload == payload
            if message.packet_id:
                first.send(packets.acknowledgement(packets.PUBACK, message.packet_id))
        first.send(packets.PINGRESP_PACKET)
        first.expect(PINGREQ)
        first.send(packets.PINGRESP_PACKET)
        second.expect(CONNECT)
        for payload in (b"1: held", b"0: held"):
            device.client.publish("t", payload, qos=int(payload[:1]))
        first.expect_nothing()
        second.connack(session_present=True)
        assert [second.expect(PUBLISH).payload for _ in range(2)] == [b"1: held", b"0: held"]
        device.event(Rotated)
        assert second.drain(0.1) == []

    @both
    def test_that_ends_before_the_second_answer_has_its_qos_0_sent_again_on_the_second_before_anything_newer(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"read")
        assert first.expect(PUBLISH).payload == b"read"
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        deliveries = [device.client.publish("t", payload) for payload in (b"on its way", b"on its way too")]
        for _ in deliveries:
            first.expect(PUBLISH)
        first.send(packets.PINGRESP_PACKET)
        first.expect(PINGREQ)
        second.expect(CONNECT)
        assert not any(delivery.done for delivery in deliveries)
        device.client.publish("t", b"newer")
        first.close()
        second.connack(session_present=True)
        again = [second.expect(PUBLISH) for _ in range(3)]
        assert [message.payload for message in again] == [b"on its way", b"on its way too", b"newer"]
        assert not any(message.dup for message in again)
        device.event(Rotated)
        device.until(lambda: all(delivery.done for delivery in deliveries))
        assert device.client.stats.delivered == 4

    @both
    def test_that_stays_the_connection_has_its_qos_0_not_sent_again(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"read")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        delivery = device.client.publish("t", b"on its way")
        first.expect(PUBLISH)
        first.send(packets.PINGRESP_PACKET)
        first.expect(PINGREQ)
        second.expect(CONNECT)
        second.connack(0x88 if protocol == 5 else 3)
        device.event(RotationFailed)
        delivery.wait(5)
        assert device.client.stats.delivered == 2
        assert first.drain(0.1) == []

    @both
    def test_whose_keepalive_is_answered_meanwhile_is_waited_for_all_the_same(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        device = make(protocol, keepalive=1)
        first = device.start()
        first.expect(PINGREQ)  # of the keepalive
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        first.send(packets.PINGRESP_PACKET)
        second.expect_nothing()
        first.send(packets.PINGRESP_PACKET)
        second.expect(CONNECT)

    @both
    def test_of_a_broker_that_is_near_is_read_to_the_end_before_connect(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._HEAD_START_NEAR", 60.0)
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._NEAR", 10.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        first.send(packets.PINGRESP_PACKET)
        first.expect(PINGREQ)
        second.expect_nothing()
        first.send(packets.PINGRESP_PACKET)
        second.expect(CONNECT)

    @both
    def test_of_a_broker_that_is_far_gets_a_head_start_of_milliseconds(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        time.sleep(0.05)  # the round trip
        first.send(packets.PINGRESP_PACKET)
        first.expect(PINGREQ)
        holds = monotonic()
        second.expect(CONNECT)
        assert monotonic() - holds < 0.02

    @both
    def test_carries_nothing_new_from_then_on_and_gets_a_moment_to_be_read(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._HEAD_START", 60.0)
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._HEAD_START_NEAR", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment", qos=1)
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        first.send(packets.PINGRESP_PACKET)
        first.expect(PINGREQ)
        device.client.publish("t", b"held", qos=1)
        assert first.drain(0.1) == []
        second.expect_nothing()
        first.send(packets.PINGRESP_PACKET)
        second.expect(CONNECT)

    @both
    def test_that_is_the_only_one_in_the_end_carries_what_was_held(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        first.send(packets.PINGRESP_PACKET)
        first.expect(PINGREQ)
        second.expect(CONNECT)
        device.client.publish("t", b"held")
        second.close()
        device.event(RotationFailed)
        assert first.expect(PUBLISH).payload == b"held"

    @both
    def test_that_does_not_answer_is_not_waited_for_long(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 0.05)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.event(Rotated)

    @both
    def test_that_is_lost_meanwhile_lets_connect_go_out_at_once(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        first.close()
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.until(lambda: len(device.reported(Connected)) == 2)


def test_a_quiet_first_connection_is_not_asked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._QUIET_TIME", 0.05)
    device = make(5)
    first = device.start()
    first.expect_nothing(0.1)
    second = device.rotate()
    second.connack(session_present=True)
    device.event(Rotated)


@both
def test_a_quiet_first_connection_carries_nothing_new_once_connect_went_out(
    make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._QUIET_TIME", 0.0)
    device = make(protocol)
    first = device.start()
    device.client.rotate()
    second = device.broker.accept()
    second.expect(CONNECT)
    device.client.publish("t", b"held", qos=1)
    first.expect_nothing()
    second.connack(session_present=True)
    assert second.expect(PUBLISH).payload == b"held"
    assert device.event(Rotated).gap > 0
