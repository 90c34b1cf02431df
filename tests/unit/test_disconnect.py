"""disconnect() at any time: what it waits for, what it says, and that it ends."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mqtt_token_client import (
    Backoff,
    ConfigurationError,
    ConnectFailed,
    DeliveryFailed,
    Disconnected,
    MessagesAbandoned,
    Rotated,
    Will,
)
from tests.unit.device import Device, Make, both, end
from tests.unit.packets import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    acknowledgement,
    connack,
)
from tests.unit.scripted_broker import PATIENCE


class TestDisconnect:
    @both
    def test_waits_for_acknowledgements_then_says_disconnect_and_nothing_after_it(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        device = make(protocol)
        peer = device.start()
        deliveries = [device.client.publish("t", b"%d" % qos, qos=qos) for qos in (0, 1, 2)]
        disconnecting = pool.submit(device.client.disconnect, PATIENCE)
        sent = peer.expect_messages(3)
        peer.expect_nothing()
        peer.acknowledge(PUBACK, sent[1].packet_id)
        peer.acknowledge(PUBREC, sent[2].packet_id)
        peer.expect(PUBREL)
        assert not disconnecting.done()
        peer.acknowledge(PUBCOMP, sent[2].packet_id)
        end(peer, disconnecting)
        for delivery in deliveries:
            delivery.wait(0)
        assert not device.reported(MessagesAbandoned)
        assert not device.reported(Disconnected)
        assert device.client.state == "closed"

    @both
    def test_fails_what_is_not_acknowledged_in_time_and_reports_how_many(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        device = make(protocol, max_inflight=1)
        peer = device.start()
        deliveries = [device.client.publish("t", b"%d" % n, qos=qos) for n, qos in enumerate((1, 1, 0, 2))]
        sent = peer.expect(PUBLISH)
        disconnecting = pool.submit(device.client.disconnect, 0.1)
        peer.expect(DISCONNECT)
        peer.acknowledge(PUBACK, sent.packet_id)
        peer.publish("t", b"too late", 1, 1)
        peer.expect_end()
        peer.close()
        disconnecting.result(PATIENCE)
        deliveries[0].wait(0)
        for delivery in deliveries[1:]:
            with pytest.raises(DeliveryFailed, match="closed before"):
                delivery.wait(0)
        assert device.event(MessagesAbandoned).count == 3
        assert device.client.stats.queued == 0

    def test_ends_though_the_broker_never_closes(self, make: Make) -> None:
        device = make()
        peer = device.start()
        before = time.monotonic()
        device.client.disconnect(timeout=0)
        assert time.monotonic() - before < 5
        peer.expect(DISCONNECT)
        peer.expect_end()

    def test_ends_at_once_where_the_broker_answers_with_disconnect(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        peer = device.start()
        disconnecting = pool.submit(device.client.disconnect)
        peer.expect(DISCONNECT)
        peer.disconnect(0x8B)
        disconnecting.result(1.0)
        assert not device.reported(Disconnected)

    def test_in_a_handler_does_not_wait_for_itself(self, make: Make) -> None:
        device = make()
        device.client.subscribe("stop", lambda _: device.client.disconnect())
        peer = device.start()
        peer.expect_subscribe()
        peer.publish("stop", b"", 1, 1)
        assert peer.expect(PUBACK).packet_id == 1
        peer.expect(DISCONNECT)
        peer.close()
        device.until(lambda: device.client.state == "closed")

    def test_before_connect_and_twice_does_nothing(self, make: Make) -> None:
        device = make()
        device.client.disconnect()
        peer = device.start()
        peer.close()
        device.client.disconnect(timeout=0)
        device.client.disconnect()
        assert device.client.state == "closed"

    @both
    def test_while_waiting_for_the_next_try_ends_at_once(self, make: Make, protocol: int) -> None:
        device = make(protocol, backoff=Backoff(initial=60.0, maximum=60.0))
        device.client.connect(timeout=0)
        device.answer(0x88 if protocol == 5 else 3)
        device.event(ConnectFailed)
        device.until(lambda: device.client.state == "waiting")
        quickly(device)

    def test_leaves_no_try_behind(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.backoff.Backoff.slow_delay", lambda _: 0.5)
        device, other = make(), make()
        other.start()  # the network thread lives on
        device.client.connect(timeout=0)
        device.answer(0x85)
        device.event(ConnectFailed)
        quickly(device)
        device.broker.expect_no_connection(0.8)

    def test_ends_a_connect_that_waits_in_another_thread(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        connecting = pool.submit(device.client.connect, 60.0)
        device.broker.accept().expect(CONNECT)
        quickly(device, timeout=0.1)
        assert connecting.result(PATIENCE) is False

    def test_with_something_to_send_goes_on_trying_until_its_time_is_over(
        self, make: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make()
        device.client.publish("t", b"1", qos=1)
        device.client.connect(timeout=0)
        device.answer(0x88)
        disconnecting = pool.submit(device.client.disconnect, PATIENCE)
        peer = device.answer()
        peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
        end(peer, disconnecting)
        assert not device.reported(MessagesAbandoned)

    def test_during_a_token_request_ends_at_once(self, make: Make) -> None:
        device = make()
        device.source.gate.clear()
        device.client.connect(timeout=0)
        assert device.source.asked.acquire(timeout=PATIENCE)
        quickly(device)
        device.source.gate.set()
        device.broker.accept().expect_end()

    @both
    def test_while_connack_is_awaited_ends_within_its_timeout(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        quickly(device, timeout=0.1)
        peer.expect(DISCONNECT)
        peer.expect_end()

    @both
    def test_while_connack_is_awaited_leaves_the_end_to_the_broker(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        """TCP could drop DISCONNECT if the client closed with CONNACK unread, and the broker would publish the will."""
        device = make(protocol)
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        disconnecting = pool.submit(device.client.disconnect, 0.1)
        peer.expect(DISCONNECT)
        peer.connack()
        peer.expect_nothing(0.4)
        assert not disconnecting.done()
        peer.expect_end()
        peer.close()
        disconnecting.result(PATIENCE)

    def test_returns_as_soon_as_the_last_of_many_messages_is_written(
        self, make: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make()
        peer = device.start()
        for _ in range(1000):
            device.client.publish("t", bytes(1000))
        before = time.monotonic()
        disconnecting = pool.submit(device.client.disconnect, 60.0)
        peer.expect_messages(1000)
        end(peer, disconnecting)
        assert time.monotonic() - before < 30.0

    @both
    def test_moves_onto_a_new_token_while_the_outbox_empties(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        """The broker would end the connection when the token expires, and publish the will."""
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"", qos=1)
        message = first.expect(PUBLISH)
        disconnecting = pool.submit(device.client.disconnect, 60.0)
        first.expect_nothing()
        second = device.rotate()
        first.acknowledge(PUBACK, message.packet_id)
        second.connack(session_present=True)
        end(second, disconnecting)
        assert device.reported(Rotated)

    @pytest.mark.parametrize("answer", [0, 0x92])
    def test_leaves_no_exchange_of_qos_2_unfinished_at_the_broker(self, make: Make, answer: int) -> None:
        """Each counts against Receive Maximum of MQTT 5, on later connections too."""
        device = make()
        first = device.start()
        device.client.publish("t", b"", qos=2)
        given_up = first.expect(PUBLISH).packet_id
        quickly(device, timeout=0.0)
        first.expect(DISCONNECT)
        device.client.connect(timeout=0)
        second = device.answer(session_present=True)
        assert second.expect(PUBREL).packet_id == given_up
        second.acknowledge(PUBCOMP, given_up, answer)
        second.close()
        device.answer(session_present=True).expect_nothing()

    @both
    def test_during_a_rotation_lets_it_end_and_does_not_wait_longer(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        device = make(protocol)
        device.start()
        second = device.rotate()
        disconnecting = pool.submit(device.client.disconnect, 60.0)
        second.expect_nothing()
        second.connack(session_present=True)
        end(second, disconnecting)

    def test_during_a_rotation_that_is_refused_goes_on_with_the_first(
        self, make: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make()
        first = device.start()
        second = device.rotate()
        device.client.publish("t", b"held")
        disconnecting = pool.submit(device.client.disconnect, PATIENCE)
        second.expect_nothing()
        second.connack(0x87)
        assert first.expect(PUBLISH).payload == b"held"
        end(first, disconnecting)

    @both
    def test_during_a_rotation_that_does_not_end_ends_within_its_timeout(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        held = device.client.publish("t", b"held", qos=1)
        disconnecting = pool.submit(device.client.disconnect, 0.1)
        end(first, disconnecting)
        second.expect(DISCONNECT)  # it may have been accepted
        second.expect_end()
        with pytest.raises(DeliveryFailed):
            held.wait(0)

    @both
    def test_during_a_rotation_does_not_wait_for_connack_once_the_first_connection_is_lost(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        disconnecting = pool.submit(device.client.disconnect, 60.0)
        second.expect_nothing()
        first.close()
        second.expect(DISCONNECT)  # it may have been accepted
        second.expect_end()
        disconnecting.result(PATIENCE)

    def test_after_the_second_connection_was_accepted_says_so_on_the_second(
        self, make: Make, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._DRAIN_TIME", 60.0)
        device = make(will=Will("gone", b"", delay=9))
        device.start()
        second = device.rotate()
        second.connack(session_present=True)
        second.expect_nothing()
        end(second, pool.submit(device.client.disconnect, 0.1))

    def test_between_the_two_connections_of_a_rotation_ends_within_its_timeout(self, make: Make) -> None:
        device = make(4, will=Will("gone", b""))
        first = device.start()
        device.client.rotate()
        second = device.broker.accept()
        first.expect(DISCONNECT)
        quickly(device, timeout=0.1)
        first.expect_end()
        second.expect_end()


def quickly(device: Device, timeout: float = 5.0) -> None:
    before = time.monotonic()
    device.client.disconnect(timeout)
    assert time.monotonic() - before < timeout + 3.0
    assert device.client.state == "closed"


def test_in_the_turn_in_which_the_connection_ends_before_connack_leaves_no_attempt_behind(make: Make) -> None:
    device = make(backoff=Backoff(initial=1.0, maximum=8.0))
    device.client.connect(timeout=0)
    peer = device.broker.accept()
    peer.expect(CONNECT)
    peer.close()
    device.client.disconnect(0)
    assert not device.reported(ConnectFailed)
    device.broker.expect_no_connection(120.0)
    assert device.client.state == "closed"


@both
def test_at_an_answer_that_comes_with_connack_begins_no_rotation_onto_a_newer_token(
    make: Make, pool: ThreadPoolExecutor, protocol: int
) -> None:
    device = make(protocol)
    first = device.start()
    device.client.publish("t", b"last", qos=1)
    last = first.expect(PUBLISH)
    first.close()
    second = device.broker.accept()
    second.expect(CONNECT)
    device.client.rotate()
    disconnecting = pool.submit(device.client.disconnect, PATIENCE)
    device.until(lambda: device.client.state == "closed")
    second.send(connack(second.five, session_present=True) + acknowledgement(PUBACK, last.packet_id, 0))
    second.expect(PUBLISH)
    end(second, disconnecting)
    device.broker.expect_no_connection(60.0)


class TestFromTwoSides:
    def test_returns_when_what_a_handler_began_has_come_to_its_end(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        device.client.subscribe("stop", lambda _: device.client.disconnect(PATIENCE))
        peer = device.start()
        peer.expect_subscribe()
        device.client.publish("t", b"last", qos=1)
        last = peer.expect(PUBLISH)
        peer.publish("stop", b"")
        device.until(lambda: device.client.state == "closed")
        disconnecting = pool.submit(device.client.disconnect)
        peer.expect_nothing(0.05)
        assert not disconnecting.done()
        peer.acknowledge(PUBACK, last.packet_id)
        end(peer, disconnecting)

    def test_a_connect_that_comes_meanwhile_waits_for_its_end(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        peer = device.start()
        device.client.publish("t", b"last", qos=1)
        last = peer.expect(PUBLISH)
        disconnecting = pool.submit(device.client.disconnect, PATIENCE)
        device.until(lambda: device.client.state == "closed")
        connecting = pool.submit(device.client.connect, None)
        peer.expect_nothing(0.05)
        assert not connecting.done()
        peer.acknowledge(PUBACK, last.packet_id)
        end(peer, disconnecting)
        second = device.answer()
        assert connecting.result(PATIENCE)
        device.client.publish("t", b"next", qos=1)
        assert second.expect(PUBLISH).payload == b"next"

    @pytest.mark.parametrize("timeout", [0, 1])
    def test_a_connect_that_comes_meanwhile_waits_no_longer_than_its_timeout_and_connects_later(
        self, make: Make, pool: ThreadPoolExecutor, timeout: float
    ) -> None:
        device = make()
        peer = device.start()
        device.client.publish("t", b"last", qos=1)
        last = peer.expect(PUBLISH)
        disconnecting = pool.submit(device.client.disconnect, 100)
        device.until(lambda: device.client.state == "closed")
        began = time.monotonic()
        assert not device.client.connect(timeout)
        assert time.monotonic() - began == pytest.approx(timeout, abs=0.01)
        peer.acknowledge(PUBACK, last.packet_id)
        end(peer, disconnecting)
        second = device.answer()
        device.until(lambda: device.client.state == "connected")
        device.client.publish("t", b"next", qos=1)
        assert second.expect(PUBLISH).payload == b"next"

    def test_a_connect_that_did_not_wait_is_forgotten_when_disconnect_is_called_again(
        self, make: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make()
        peer = device.start()
        device.client.publish("t", b"last", qos=1)
        last = peer.expect(PUBLISH)
        disconnecting = pool.submit(device.client.disconnect, 100)
        device.until(lambda: device.client.state == "closed")
        assert not device.client.connect(0)
        again = pool.submit(device.client.disconnect, 100)
        peer.expect_nothing(0.05)
        peer.acknowledge(PUBACK, last.packet_id)
        end(peer, disconnecting)
        again.result(PATIENCE)
        device.broker.expect_no_connection()
        assert device.client.state == "closed"


@pytest.mark.parametrize("timeout", [None, "5", True, -1, float("nan")])
def test_a_timeout_that_is_not_a_duration_is_refused(make: Make, timeout: Any) -> None:
    device = make()
    device.start()
    with pytest.raises(ConfigurationError, match=r"disconnect: timeout must be seconds, 0 or more, got "):
        device.client.disconnect(timeout)
    assert device.client.state == "connected"


class TestBeforeTheAnswerToConnect:
    def test_does_not_wait_for_it_with_nothing_to_send_and_drops_the_will(
        self, make: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make(will=Will("will", b"lost"))
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        pool.submit(device.client.disconnect, 2 * PATIENCE).result(PATIENCE)
        assert peer.expect(DISCONNECT).reason == 0
        peer.expect_end()
