"""One connection after another: what goes out when, what is made again after a loss, and that silence is noticed."""

from __future__ import annotations

import socket

import pytest

from mqtt_token_client import (
    Connected,
    ConnectFailed,
    Disconnected,
    Message,
    RotationFailed,
    SessionLost,
    SubscriptionRefused,
    Will,
)
from tests.unit import packets
from tests.unit.device import Make, both, password
from tests.unit.packets import (
    CONNECT,
    MAXIMUM_PACKET_SIZE,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    RECEIVE_MAXIMUM,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY_INTERVAL,
    SUBSCRIBE,
    WILL_DELAY_INTERVAL,
)
from tests.unit.scripted_broker import ScriptedBroker


class TestConnect:
    @both
    def test_carries_the_client_id_the_token_as_password_and_asks_for_a_session_that_stays(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol, keepalive=33, session_expiry=77)
        device.client.connect(timeout=0)
        connect = device.broker.accept().expect(CONNECT)
        assert (connect.protocol, connect.client_id, connect.keepalive) == (protocol, "device", 33)
        assert (connect.username, connect.password) == ("device", password(1))
        assert not connect.clean
        assert connect.will is None
        properties = {SESSION_EXPIRY_INTERVAL: 77, MAXIMUM_PACKET_SIZE: 16_777_216}
        assert connect.properties == (properties if protocol == 5 else {})

    @both
    def test_asks_for_a_clean_start_where_no_session_is_kept(self, make: Make, protocol: int) -> None:
        device = make(protocol, session_expiry=0)
        device.client.connect(timeout=0)
        connect = device.broker.accept().expect(CONNECT)
        assert connect.clean
        assert connect.properties.get(SESSION_EXPIRY_INTERVAL, 0) == 0

    @both
    def test_carries_the_will(self, make: Make, protocol: int) -> None:
        delay = 9 if protocol == 5 else None
        device = make(protocol, will=Will("gone/device", b"lost", qos=1, retain=True, delay=delay))
        device.client.connect(timeout=0)
        will = device.broker.accept().expect(CONNECT).will
        properties = {WILL_DELAY_INTERVAL: 9} if protocol == 5 else {}
        assert will == packets.Will("gone/device", b"lost", 1, True, properties)

    def test_carries_the_properties_of_the_will(self, make: Make) -> None:
        properties = {"content_type": "text/plain", "user_property": ("k", "v")}
        device = make(will=Will("gone/device", b"lost", delay=9, properties=properties))
        device.client.connect(timeout=0)
        will = device.broker.accept().expect(CONNECT).will
        assert will is not None
        assert will.properties == {WILL_DELAY_INTERVAL: 9, 0x03: b"text/plain", 0x26: [("k", "v")]}

    @both
    def test_is_all_that_goes_out_before_connack_whatever_waits(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.subscribe("before/connect")
        device.client.publish("t", b"before connect", qos=1)
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        device.client.subscribe("after/connect")
        for qos in (0, 1, 2):
            device.client.publish("t", b"after connect", qos=qos)
        peer.expect_nothing()
        peer.connack()
        assert set(peer.expect_subscribe().filters) == {"before/connect", "after/connect"}
        assert [(m.payload, m.qos) for m in peer.expect_messages(4)] == [
            (b"before connect", 1),
            (b"after connect", 0),
            (b"after connect", 1),
            (b"after connect", 2),
        ]

    @both
    def test_is_not_sent_twice_when_connack_is_late(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        device.broker.expect_no_connection(0.2)
        peer.connack()
        assert device.event(Connected).broker == device.broker.url


class TestAfterALoss:
    @both
    def test_messages_in_flight_are_sent_again_with_dup_and_their_identifiers_before_new_ones(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        for payload in (b"1", b"2", b"3", b"4"):
            device.client.publish("t", payload, qos=1)
        sent = {m.payload: m.packet_id for m in first.expect_messages(4)}
        first.acknowledge(PUBACK, sent[b"2"])
        device.until(lambda: device.client.stats.delivered == 1)
        first.close()
        device.event(Disconnected)
        device.client.publish("t", b"5", qos=1)
        second = device.answer(session_present=True)
        again = second.expect_messages(4)
        assert [(m.payload, m.dup) for m in again] == [(b"1", True), (b"3", True), (b"4", True), (b"5", False)]
        assert [m.packet_id for m in again[:3]] == [sent[b"1"], sent[b"3"], sent[b"4"]]
        assert again[3].packet_id not in sent.values()

    @both
    def test_pubrel_is_sent_again_for_what_the_broker_has_received(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        delivery = device.client.publish("t", b"once", qos=2)
        sent = first.expect(PUBLISH)
        first.acknowledge(PUBREC, sent.packet_id)
        first.expect(PUBREL)
        first.close()
        second = device.answer(session_present=True)
        assert second.expect(PUBREL).packet_id == sent.packet_id
        second.acknowledge(PUBCOMP, sent.packet_id)
        delivery.wait(10)
        second.expect_nothing()

    @both
    def test_subscriptions_are_not_made_again_where_the_session_was_kept(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.subscribe("a/#")
        first = device.start()
        first.expect_subscribe()
        first.publish("a/1", b"the answer to SUBSCRIBE has been read")
        device.until(lambda: len(device.messages) == 1)
        first.close()
        second = device.answer(session_present=True)
        second.expect_nothing()
        assert not device.reported(SessionLost)

    @both
    def test_a_subscription_whose_answer_was_lost_is_made_again(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.subscribe("a/#")
        first = device.start()
        first.expect(SUBSCRIBE)
        first.close()
        second = device.answer(session_present=True)
        assert set(second.expect_subscribe().filters) == {"a/#"}

    @both
    def test_a_lost_session_is_reported_and_everything_made_again_as_new(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.subscribe("a/#", qos=2)
        first = device.start()
        assert not device.reported(SessionLost), "the first session is new, not lost"
        first.expect_subscribe()
        for payload, qos in ((b"1", 1), (b"2", 2), (b"3", 2)):
            device.client.publish("t", payload, qos=qos)
        sent = first.expect_messages(3)
        first.acknowledge(PUBREC, sent[2].packet_id)
        first.expect(PUBREL)
        first.close()
        second = device.answer(session_present=False)
        assert device.event(SessionLost).resent == 3
        assert {name: options & 3 for name, options in second.expect_subscribe().filters.items()} == {"a/#": 2}
        again = second.expect_messages(3)
        assert [(m.payload, m.dup) for m in again] == [(b"1", False), (b"2", False), (b"3", False)]

    def test_no_loss_of_a_session_is_reported_where_none_is_wanted(self, make: Make) -> None:
        device = make(session_expiry=0)
        device.client.subscribe("a/#")
        device.start().close()
        second = device.answer(session_present=False)
        second.expect_subscribe()
        assert not device.reported(SessionLost)

    @both
    def test_filters_changed_while_offline_are_sent_to_the_broker(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.subscribe("old")
        first = device.start()
        first.expect_subscribe()
        first.publish("old", b"the answer to SUBSCRIBE has been read")
        device.until(lambda: len(device.messages) == 1)
        first.close()
        device.event(Disconnected)
        device.client.unsubscribe("old")
        device.client.subscribe("new")
        second = device.answer(session_present=True)
        assert set(second.expect_subscribe().filters) == {"new"}
        assert set(second.expect_unsubscribe().filters) == {"old"}

    @pytest.mark.parametrize(("reason", "again"), [(0x87, True), (0x97, True), (0x8F, False)])
    def test_a_filter_that_the_broker_refuses_is_reported_and_asked_for_again_if_that_may_help(
        self, make: Make, reason: int, again: bool
    ) -> None:
        device = make()
        device.client.subscribe("forbidden")
        first = device.start()
        first.expect_subscribe(reason)
        refused = device.event(SubscriptionRefused)
        assert (refused.topic_filter, refused.reason) == ("forbidden", reason)
        first.close()
        second = device.answer(session_present=False)
        if again:
            assert set(second.expect_subscribe().filters) == {"forbidden"}
        else:
            second.expect_nothing()


class TestMessagesReceived:
    @both
    def test_reach_every_handler_of_their_topic_and_on_message_only_where_there_is_none(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        exact: list[Message] = []
        wild: list[Message] = []
        device.client.subscribe("a/b", exact.append)
        device.client.subscribe("a/+", wild.append)
        peer = device.start()
        for _ in range(2 if protocol == 5 else 1):  # the filters overlap, so each has an identifier of its own
            peer.expect_subscribe()
        peer.send(packets.publish(peer.five, "a/b", b"1", 1, 7, retain=True))
        peer.publish("a/c", b"2")
        peer.publish("other", b"3")
        assert peer.expect(PUBACK).packet_id == 7
        device.until(lambda: device.payloads == [b"3"])
        assert exact == [Message("a/b", b"1", 1, True, False)]
        assert [m.payload for m in wild] == [b"1", b"2"]
        assert device.client.stats.received == 3

    @both
    def test_at_qos_2_are_handed_over_once_however_often_they_come_before_pubrel(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        first.publish("t", b"once", 2, 5)
        assert first.expect(PUBREC).packet_id == 5
        first.close()
        second = device.answer(session_present=True)
        second.publish("t", b"once", 2, 5, dup=True)
        assert second.expect(PUBREC).packet_id == 5
        second.acknowledge(PUBREL, 5)
        assert second.expect(PUBCOMP).packet_id == 5
        second.publish("t", b"another", 2, 5)
        second.expect(PUBREC)
        assert device.payloads == [b"once", b"another"]
        assert device.client.stats.duplicates == 1

    @both
    def test_are_new_in_a_new_session_whatever_their_identifiers(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        first.publish("t", b"1", 1, 4)
        first.publish("t", b"2", 2, 5)
        first.expect(PUBACK)
        first.expect(PUBREC)
        first.close()
        second = device.answer(session_present=False)
        second.publish("t", b"1", 1, 4, dup=True)
        second.publish("t", b"3", 2, 5)
        second.expect(PUBACK)
        second.expect(PUBREC)
        assert device.payloads == [b"1", b"2", b"1", b"3"]

    @both
    def test_whose_puback_was_lost_are_acknowledged_again_and_not_handed_over_twice(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        first.publish("t", b"once", 1, 5)
        first.expect(PUBACK)
        first.close()
        second = device.answer(session_present=True)
        second.publish("t", b"once", 1, 5, dup=True)
        assert second.expect(PUBACK).packet_id == 5
        second.publish("t", b"another", 1, 6, dup=True)
        assert second.expect(PUBACK).packet_id == 6
        assert device.payloads == [b"once", b"another"]
        assert (device.client.stats.received, device.client.stats.duplicates) == (2, 1)


class TestWindow:
    def test_is_the_smaller_of_receive_maximum_and_max_inflight(self, make: Make) -> None:
        for theirs, own, expected in ((2, 100, 2), (100, 3, 3)):
            device = make(max_inflight=own)
            peer = device.start(properties={RECEIVE_MAXIMUM: theirs})
            for number in range(5):
                device.client.publish("t", b"%d" % number, qos=1 + number % 2)
            sent = peer.expect_messages(expected)
            peer.expect_nothing()
            peer.acknowledge(PUBACK, sent[0].packet_id)
            assert peer.expect(PUBLISH).payload == b"%d" % expected
            peer.expect_nothing(0.05)

    @both
    def test_of_a_smaller_broker_holds_for_what_is_sent_again_too(self, make: Make, protocol: int) -> None:
        properties = {RECEIVE_MAXIMUM: 1} if protocol == 5 else None
        device = make(protocol, max_inflight=3 if protocol == 5 else 1)
        first = device.start()
        count = 3 if protocol == 5 else 1
        for number in range(4):
            device.client.publish("t", b"%d" % number, qos=1)
        first.expect_messages(count)
        first.close()
        second = device.answer(session_present=True, properties=properties)
        for number in range(4):
            message = second.expect(PUBLISH)
            assert (message.payload, message.dup) == (b"%d" % number, number < count)
            second.expect_nothing(0.05)
            second.acknowledge(PUBACK, message.packet_id)

    @both
    def test_that_is_full_delays_qos_0_behind_it_too_so_that_the_order_stays(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_inflight=1)
        peer = device.start()
        for number, qos in enumerate((0, 1, 1, 0, 2, 0)):
            device.client.publish("t", b"%d" % number, qos=qos)
        sent = peer.expect_messages(2)
        assert [m.payload for m in sent] == [b"0", b"1"]
        peer.expect_nothing()
        peer.acknowledge(PUBACK, sent[1].packet_id)
        message = peer.expect(PUBLISH)
        assert message.payload == b"2"
        peer.acknowledge(PUBACK, message.packet_id)
        assert [m.payload for m in peer.expect_messages(3)] == [b"3", b"4", b"5"]


class TestSilence:
    def test_is_found_after_the_keep_alive_that_the_broker_chose_and_the_connection_made_again(
        self, make: Make
    ) -> None:
        device = make(keepalive=600)
        first = device.start(properties={SERVER_KEEP_ALIVE: 1})
        first.expect(PINGREQ, timeout=5)
        lost = device.event(Disconnected)
        assert "PINGREQ" in lost.cause
        first.expect_end()
        device.answer(session_present=True)
        device.event(Connected)

    @both
    def test_is_none_where_the_broker_answers_the_ping(self, make: Make, protocol: int) -> None:
        device = make(protocol, keepalive=1)
        peer = device.start()
        for _ in range(2):
            peer.expect(PINGREQ, timeout=5)
            peer.send(packets.PINGRESP_PACKET)
        assert not device.reported(Disconnected)

    def test_is_not_probed_where_the_broker_wants_no_keep_alive(self, make: Make) -> None:
        device = make(keepalive=1)
        device.start(properties={SERVER_KEEP_ALIVE: 0}).expect_nothing(1.5)


class TestBrokerThatBreaksTheRules:
    @both
    def test_by_another_packet_than_connack_is_left_and_tried_again(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(packets.publish(peer.five, "t", b"too early") + packets.connack(peer.five))
        peer.expect_end()
        assert "CONNACK" in str(device.event(ConnectFailed).error)
        device.answer()
        device.event(Connected)
        assert not device.messages

    @both
    def test_by_garbage_is_left_and_tried_again(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        peer = device.start()
        peer.send(b"\x00\x00")
        peer.expect_rejection(0x82)
        device.event(Disconnected)
        device.answer()
        device.event(Connected)

    def test_by_no_connack_is_left_in_the_end(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.connect._CONNACK_TIME", 0.2)
        device = make()
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.expect_end()
        assert "CONNACK" in str(device.event(ConnectFailed).error)
        device.answer()
        device.event(Connected)

    def test_by_an_end_before_connack_is_not_reported_a_second_time(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.connect._CONNACK_TIME", 10.0)
        device = make()
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.close()
        device.event(ConnectFailed)
        again = device.answer()
        device.event(Connected)
        again.expect_nothing(15.0)
        assert len(device.reported(ConnectFailed)) == 1
        assert not device.reported(RotationFailed)


def test_a_list_of_brokers_is_tried_in_turn(make: Make) -> None:
    away = ScriptedBroker()
    away.close()
    here = ScriptedBroker()
    device = make(broker=here, broker_url=[away.url, here.url])
    device.client.connect(timeout=0)
    assert away.url in str(device.event(ConnectFailed).error)
    device.answer()
    assert device.event(Connected).broker == here.url


def test_a_dead_line_is_given_up_by_the_operating_system_in_about_the_keepalive_of_the_client(make: Make) -> None:
    device = make(keepalive=33)
    device.start()
    sock = device.client._core._manager._current.connection._sock  # type: ignore[union-attr]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 33_000
