"""publish() and subscribe() as an application sees them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mqtt_token_client import (
    DeliveryFailed,
    DeliveryRefused,
    Disconnected,
    OutboxFull,
)
from tests.unit import packets
from tests.unit.device import Make, both
from tests.unit.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBSCRIPTION_IDENTIFIER
from tests.unit.scripted_broker import PATIENCE


class TestPublish:
    @both
    def test_tells_what_became_of_each_message(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        peer = device.start()
        done: list[object] = []
        deliveries = [device.client.publish("t", "text", qos=qos, retain=True) for qos in (0, 1, 2)]
        for delivery in deliveries:
            delivery.add_done_callback(done.append)
        sent = peer.expect_messages(3)
        assert [(m.topic, m.payload, m.qos, m.retain, m.dup) for m in sent] == [
            ("t", b"text", qos, True, False) for qos in (0, 1, 2)
        ]
        deliveries[0].wait(PATIENCE)
        with pytest.raises(TimeoutError):
            deliveries[1].wait(0.01)
        peer.acknowledge(PUBACK, sent[1].packet_id)
        deliveries[1].wait(PATIENCE)
        peer.acknowledge(PUBREC, sent[2].packet_id)
        peer.expect(PUBREL)
        assert not deliveries[2].done
        peer.acknowledge(PUBCOMP, sent[2].packet_id)
        deliveries[2].wait(PATIENCE)
        device.until(lambda: len(done) == 3)
        assert done == deliveries
        assert device.client.stats.delivered == 3

    @pytest.mark.parametrize(("retain", "sent"), [(2, True), ("yes", True), (None, False), (0, False)])
    def test_retains_for_whatever_is_true(self, make: Make, retain: Any, sent: bool) -> None:
        device = make()
        peer = device.start()
        device.client.publish("t", b"", retain=retain)
        (message,) = peer.expect_messages(1)
        assert (message.qos, message.retain) == (0, sent)

    @pytest.mark.parametrize(("qos", "kind", "reason"), [(1, PUBACK, 0x87), (2, PUBREC, 0x83)])
    def test_fails_with_the_reason_of_a_broker_that_refuses(self, make: Make, qos: int, kind: int, reason: int) -> None:
        device = make(max_inflight=1)
        peer = device.start()
        refused = device.client.publish("forbidden", b"1", qos=qos)
        after = device.client.publish("t", b"2", qos=1)
        peer.acknowledge(kind, peer.expect(PUBLISH).packet_id, reason)
        with pytest.raises(DeliveryFailed) as raised:
            refused.wait(PATIENCE)
        assert raised.value.reason == reason
        assert raised.value.permanent is (reason == 0x87), "a broker may accept later what it does not accept now"
        event = device.event(DeliveryRefused)
        assert (event.topic, event.reason) == ("forbidden", reason)
        peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
        after.wait(PATIENCE)
        assert device.client.stats.delivered == 1

    def test_takes_no_more_than_max_queued_and_says_so(self, make: Make) -> None:
        device = make(max_queued=2)
        for _ in range(2):
            device.client.publish("t", b"", qos=1)
        with pytest.raises(OutboxFull, match="max_queued"):
            device.client.publish("t", b"")
        peer = device.start()
        peer.acknowledge(PUBACK, peer.expect_messages(2)[0].packet_id)
        device.until(lambda: device.client.stats.queued == 1)
        device.client.publish("t", b"there is room again")
        assert peer.expect(PUBLISH).payload == b"there is room again"

    def test_sends_properties_in_mqtt_5(self, make: Make) -> None:
        device = make()
        peer = device.start()
        device.client.publish("t", bytearray(b"1"), properties={"message_expiry_interval": 60})
        message = peer.expect(PUBLISH)
        assert (message.payload, message.properties) == (b"1", {0x02: 60})

    def test_of_many_threads_loses_nothing_and_keeps_the_order_of_each(
        self, make_in_real_time: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make_in_real_time()
        peer = device.start()

        def thread(name: int) -> None:
            for number in range(200):
                device.client.publish(f"t/{name}", b"%d" % number, qos=number % 2)

        list(pool.map(thread, range(4)))
        received: dict[str, list[int]] = {}
        for _ in range(800):
            message = peer.expect(PUBLISH)
            received.setdefault(message.topic, []).append(int(message.payload))
            if message.qos:
                peer.acknowledge(PUBACK, message.packet_id)
        assert received == {f"t/{name}": list(range(200)) for name in range(4)}
        device.until(lambda: device.client.stats.delivered == 800)


class TestSubscribe:
    @pytest.mark.parametrize("protocol", [4, 5])
    def test_and_unsubscribe_go_out_at_once_while_connected(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        peer = device.start()
        device.client.subscribe("a/#", qos=2)
        assert peer.expect_subscribe().filters == {"a/#": 2}
        device.client.unsubscribe("a/#")
        assert set(peer.expect_unsubscribe().filters) == {"a/#"}
        peer.expect_nothing()

    def test_keeps_its_options_and_properties_when_the_session_is_lost(self, make: Make) -> None:
        device = make()
        device.client.subscribe("a", qos=2, no_local=True, properties={"subscription_identifier": 7})
        device.client.subscribe("b", qos=0, retain_as_published=True, retain_handling=2)
        device.client.subscribe("c", properties={"subscription_identifier": 7, "user_property": []})
        device.client.subscribe("$share/group/d", retain_handling=1)
        peer = device.start()
        for present in (False, False, True):
            asked = [peer.expect_subscribe(), peer.expect_subscribe()]
            assert [(packet.properties, packet.filters) for packet in asked] == [
                ({SUBSCRIPTION_IDENTIFIER: 7}, {"a": 0b000110, "c": 0b000001}),
                ({}, {"b": 0b101000, "$share/group/d": 0b010001}),
            ]
            peer.expect_nothing(0.05)
            peer.close()
            peer = device.answer(session_present=present)
        peer.expect_nothing(0.05)

    def test_goes_out_before_what_is_published_after_it(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        busy, free = threading.Event(), threading.Event()

        def handler(_: object) -> None:
            busy.set()
            free.wait(PATIENCE)

        device.client.subscribe("busy", handler)
        peer = device.start()
        peer.expect_subscribe()
        peer.publish("busy", b"")
        assert busy.wait(PATIENCE)
        device.client.subscribe("answers")
        device.client.publish("t", b"question")
        free.set()
        assert set(peer.expect_subscribe().filters) == {"answers"}
        assert peer.expect(PUBLISH).payload == b"question"

    def test_in_a_handler_goes_out_before_what_the_handler_publishes_after_it(self, make: Make) -> None:
        device = make()

        def handler(_: object) -> None:
            device.client.subscribe("answers")
            device.client.publish("t", b"question")

        device.client.subscribe("ask", handler)
        peer = device.start()
        peer.expect_subscribe()
        peer.publish("ask", b"")
        assert set(peer.expect_subscribe().filters) == {"answers"}
        assert peer.expect(PUBLISH).payload == b"question"


def test_a_pingresp_that_answers_no_pingreq_is_ignored(make: Make) -> None:
    device = make()
    peer = device.start()
    peer.send(packets.PINGRESP_PACKET)
    device.client.publish("t", b"x")
    assert peer.expect(PUBLISH).payload == b"x"
    assert not device.reported(Disconnected)


def test_what_one_turn_does_not_send_the_next_one_does(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_token_client.mqtt.session.session._FLUSHES_A_TURN", 1)
    monkeypatch.setattr("mqtt_token_client.mqtt.transport.connection.HIGH_WATER", 1)  # a message a turn
    device = make()
    for number in range(5):
        device.client.publish("t", b"%d" % number)
    peer = device.start()
    assert [message.payload for message in peer.expect_messages(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_one_who_publishes_without_a_pause_leaves_the_others_their_turn(make_in_real_time: Make) -> None:
    other_got = threading.Event()
    busy, other = make_in_real_time(), make_in_real_time(client_id="other", on_message=lambda _: other_got.set())
    busy.start()
    peer = other.start()
    turns = 0

    def publish_on(_delivery: object) -> None:
        """At QoS 0 a message is done when it is written: there is always another."""
        nonlocal turns
        turns += 1
        if not other_got.is_set() and turns < 100_000:
            busy.client.publish("t", b"").add_done_callback(publish_on)

    busy.client.publish("t", b"").add_done_callback(publish_on)
    peer.publish("a", b"")
    assert other_got.wait(10)
    assert turns < 100_000


def test_unsubscribing_from_what_an_earlier_program_has_left_is_sent_to_the_broker(make: Make) -> None:
    device = make()
    peer = device.start(session_present=True)
    device.client.unsubscribe("old/#")
    assert set(peer.expect_unsubscribe().filters) == {"old/#"}
