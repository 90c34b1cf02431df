"""A planned rotation, step by step: what is held, what goes on, what is sent again, and in which order."""

from __future__ import annotations

import pytest

from mqtt_token_client import Connected, Disconnected, Rotated
from tests.unit import packets
from tests.unit.device import Make, both, password
from tests.unit.packets import (
    CONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    RECEIVE_MAXIMUM,
)


class TestHandover:
    @both
    def test_opens_a_second_connection_with_the_new_token_while_the_first_stays_open(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        device.client.rotate()
        second = device.broker.accept()
        connect = second.expect(CONNECT)
        assert connect.password == password(2)
        assert connect.client_id == "device"
        assert not connect.clean
        first.expect_nothing()
        second.connack(session_present=True)
        first.expect_end()
        rotated = device.event(Rotated)
        assert rotated.kind == "handover"
        assert 0.05 < rotated.gap < 5.0
        assert len(device.reported(Connected)) == 1
        assert not device.reported(Disconnected)
        assert device.client.state == "connected"
        assert (device.client.stats.connects, device.client.stats.rotations) == (2, 1)

    @both
    def test_holds_new_messages_until_connack_and_sends_them_on_the_second_in_order(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        assert device.client.state == "rotating"
        for number, qos in enumerate((1, 0, 2, 0, 1)):
            device.client.publish("t", b"%d" % number, qos=qos)
        first.expect_nothing()
        second.expect_nothing()
        second.connack(session_present=True)
        first.expect_end()
        assert [m.payload for m in second.expect_messages(5)] == [b"0", b"1", b"2", b"3", b"4"]

    @both
    def test_goes_on_acknowledging_on_the_first_until_the_second_is_accepted(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        delivery = device.client.publish("t", b"out", qos=2)
        identifier = first.expect(PUBLISH).packet_id
        second = device.rotate()
        first.publish("t", b"1", 1, 11)
        assert first.expect(PUBACK).packet_id == 11
        first.publish("t", b"2", 2, 12)
        assert first.expect(PUBREC).packet_id == 12
        first.acknowledge(PUBREL, 12)
        assert first.expect(PUBCOMP).packet_id == 12
        first.acknowledge(PUBREC, identifier)
        assert first.expect(PUBREL).packet_id == identifier
        first.acknowledge(PUBCOMP, identifier)
        delivery.wait(10)
        assert device.payloads == [b"1", b"2"]
        second.connack(session_present=True)
        first.expect_end()
        second.expect_nothing()

    @both
    def test_sends_again_with_dup_what_the_first_left_open_and_nothing_that_its_last_words_acknowledged(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        for number, qos in enumerate((1, 2, 1, 2, 2, 1)):
            device.client.publish("t", b"%d" % number, qos=qos)
        sent = {m.payload: m.packet_id for m in first.expect_messages(6)}
        first.acknowledge(PUBREC, sent[b"3"])
        first.expect(PUBREL)
        second = device.rotate()
        device.client.publish("t", b"new", qos=1)
        first.send(packets.acknowledgement(PUBACK, sent[b"2"]) + packets.acknowledgement(PUBREC, sent[b"4"]))
        first.close()
        second.connack(session_present=True)
        again = [second.packet() for _ in range(6)]
        assert [(p.kind, p.packet_id, p.payload, p.dup) for p in again if p is not None] == [
            (PUBLISH, sent[b"0"], b"0", True),
            (PUBLISH, sent[b"1"], b"1", True),
            (PUBREL, sent[b"3"], b"", False),
            (PUBREL, sent[b"4"], b"", False),
            (PUBLISH, sent[b"5"], b"5", True),
            (PUBLISH, again[-1].packet_id if again[-1] else 0, b"new", False),
        ]
        second.expect_nothing()
        assert device.event(Rotated).kind == "handover"

    @both
    def test_keeps_to_the_receive_maximum_of_the_second_connection(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_inflight=3)
        first = device.start(properties={RECEIVE_MAXIMUM: 2} if protocol == 5 else None)
        for number in range(4):
            device.client.publish("t", b"%d" % number, qos=1)
        count = 2 if protocol == 5 else 3
        first.expect_messages(count)
        second = device.rotate()
        second.connack(session_present=True, properties={RECEIVE_MAXIMUM: 1} if protocol == 5 else None)
        second.expect_messages(1 if protocol == 5 else 3)
        second.expect_nothing()

    @both
    def test_hands_over_what_the_first_said_before_what_the_second_says(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        first.send(b"".join(packets.publish(first.five, "t", b"%d" % n, 1, n) for n in range(1, 200)))
        first.close()
        words = packets.connack(second.five, session_present=True)
        second.send(words + packets.publish(second.five, "t", b"200", 1, 200))
        second.publish("t", b"201", 1, 201)
        device.until(lambda: len(device.messages) == 201)
        assert device.payloads == [b"%d" % n for n in range(1, 202)]
        assert [second.expect(PUBACK).packet_id for _ in range(2)] == [200, 201]

    @both
    def test_hands_over_nothing_of_the_new_one_before_the_current_one_has_ended(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._DRAIN_TIME", 60.0)
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        second.connack(session_present=True)
        second.expect_nothing()
        second.publish("t", b"3", 1, 3)
        second.expect_nothing()
        first.publish("t", b"1", 1, 1)
        assert first.expect(PUBACK).packet_id == 1
        first.publish("t", b"2", 1, 2)
        first.close()
        assert second.expect(PUBACK).packet_id == 3
        assert device.payloads == [b"1", b"2", b"3"]

    @both
    def test_waits_for_the_last_words_of_a_first_that_the_broker_leaves_open_for_only_a_moment(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        second.send(packets.connack(second.five, session_present=True) + packets.publish(second.five, "t", b"second"))
        first.publish("t", b"last words")
        first.expect_end()
        device.until(lambda: len(device.messages) == 2)
        assert device.payloads == [b"last words", b"second"]
        assert device.event(Rotated).gap < 2.0

    def test_takes_the_end_of_the_first_by_session_taken_over_for_planned(self, make: Make) -> None:
        device = make()
        first = device.start()
        second = device.rotate()
        first.disconnect(0x8E)
        second.expect_nothing()
        assert not device.reported(Disconnected)
        second.connack(session_present=True)
        device.event(Rotated)
        assert not device.reported(Disconnected)

    @both
    def test_acknowledges_again_what_comes_again_and_hands_it_over_once(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        first.publish("t", b"1", 1, 11)
        first.expect(PUBACK)
        first.publish("t", b"2", 2, 12)
        first.expect(PUBREC)
        second.connack(session_present=True)
        second.publish("t", b"1", 1, 11, dup=True)
        second.publish("t", b"2", 2, 12, dup=True)
        assert second.expect(PUBACK).packet_id == 11
        assert second.expect(PUBREC).packet_id == 12
        second.acknowledge(PUBREL, 12)
        assert second.expect(PUBCOMP).packet_id == 12
        assert device.payloads == [b"1", b"2"]
        assert device.client.stats.duplicates == 2

    @both
    def test_delivers_a_message_of_qos_2_once_whatever_had_been_said_of_it(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        deliveries = [device.client.publish("t", b"%d" % n, qos=2) for n in range(2)]
        one, two = (m.packet_id for m in first.expect_messages(2))
        first.acknowledge(PUBREC, one)
        first.expect(PUBREL)
        second = device.rotate()
        second.connack(session_present=True)
        assert second.expect(PUBREL).packet_id == one
        again = second.expect(PUBLISH)
        assert (again.packet_id, again.dup) == (two, True)
        second.acknowledge(PUBCOMP, one)
        second.acknowledge(PUBREC, two)
        assert second.expect(PUBREL).packet_id == two
        second.acknowledge(PUBCOMP, two)
        for delivery in deliveries:
            delivery.wait(10)
        assert device.client.stats.delivered == 2

    @both
    def test_makes_subscriptions_of_meanwhile_on_the_second(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        device.client.subscribe("a/#")
        first.expect_nothing()
        second.expect_nothing()
        second.connack(session_present=True)
        assert set(second.expect_subscribe().filters) == {"a/#"}

    def test_onto_a_session_that_is_gone_starts_it_anew(self, make: Make) -> None:
        device = make()
        device.client.subscribe("a/#")
        first = device.start()
        first.expect_subscribe()
        device.client.publish("t", b"1", qos=1)
        first.expect(PUBLISH)
        second = device.rotate()
        second.connack(session_present=False)
        second.expect_subscribe()
        assert not second.expect(PUBLISH).dup

    @both
    def test_onto_a_still_newer_token_follows_at_once(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.start()
        second = device.rotate()
        device.client.rotate()
        device.broker.expect_no_connection()
        second.connack(session_present=True)
        third = device.broker.accept()
        assert third.expect(CONNECT).password == password(3)
        third.connack(session_present=True)
        second.expect_end()
        device.event(Rotated)
        device.event(Rotated)
        device.broker.expect_no_connection()
