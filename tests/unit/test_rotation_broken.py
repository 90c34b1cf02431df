"""A rotation that is cut or refused at each of its stages: nothing is lost, and the state that follows is true."""

from __future__ import annotations

import pytest

from mqtt_token_client import (
    AuthorizationServerUnavailable,
    BrokerRefused,
    BrokerUnreachable,
    Connected,
    ConnectFailed,
    Disconnected,
    Rotated,
    RotationFailed,
    Token,
    TokenRefused,
    Will,
)
from tests.unit.device import Device, Make, both, password
from tests.unit.packets import CONNECT, DISCONNECT, PUBACK, PUBLISH
from tests.unit.scripted_broker import Peer
from tests.unit.test_core import manager_of


def carries_on(device: Device, peer: Peer, *payloads: bytes) -> None:
    """These messages come on a connection, and it is whole: both ways, and its token is renewed in time."""
    assert [m.payload for m in peer.expect_messages(len(payloads))] == list(payloads)
    peer.publish("t", b"to the device", 1, 99)
    assert peer.expect(PUBACK).packet_id == 99
    device.client.publish("t", b"from the device")
    assert peer.expect(PUBLISH).payload == b"from the device"
    assert device.client.state == "connected"
    assert device.client.connect(timeout=1)


class TestSecondConnectionThatFails:
    @both
    @pytest.mark.parametrize("how", ["cut", "refused for the broker's trouble", "refused for good", "silent"])
    def test_leaves_the_first_up_with_all_that_was_held(
        self, make: Make, protocol: int, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = make(protocol)
        first = device.start()
        if how == "silent":
            monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.connect._CONNACK_TIME", 0.3)
        second = device.rotate()
        monkeypatch.undo()
        device.broker.close_listener()
        device.client.publish("t", b"held", qos=1)
        device.client.subscribe("a/#")
        match how:
            case "cut":
                second.close()
            case "refused for the broker's trouble":
                second.connack(0x88 if protocol == 5 else 3)
            case "refused for good":
                second.connack(0x85 if protocol == 5 else 2)
        first.expect_subscribe()
        carries_on(device, first, b"held")
        failed = device.event(RotationFailed)
        assert isinstance(failed.error, BrokerUnreachable if how in ("cut", "silent") else BrokerRefused)
        assert not device.reported(Disconnected)
        device.broker.listen_again()
        third = device.broker.accept()
        assert third.expect(CONNECT).password == password(2), "the token was not at fault"
        third.connack(session_present=True)
        assert device.event(Rotated).kind == "handover"
        assert device.source.requests == 2

    def test_to_open_leaves_the_first_up_and_is_tried_again(self, make: Make) -> None:
        device = make()
        first = device.start()
        device.broker.close_listener()
        device.client.rotate()
        assert isinstance(device.event(RotationFailed).error, BrokerUnreachable)
        device.client.publish("t", b"on the first")
        carries_on(device, first, b"on the first")
        device.broker.listen_again()
        second = device.answer(session_present=True)
        device.event(Rotated)
        first.expect_end()
        carries_on(device, second)

    @both
    def test_after_the_take_over_ended_the_first_is_a_loss(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"in flight", qos=1)
        first.expect(PUBLISH)
        second = device.rotate()
        device.client.publish("t", b"held", qos=1)
        first.close()
        second.expect_nothing()
        assert not device.reported(Disconnected)
        second.close()
        lost = device.event(Disconnected)
        assert lost.retry_in == device.event(ConnectFailed).retry_in
        third = device.answer(session_present=True)
        device.event(Connected)
        carries_on(device, third, b"in flight", b"held")

    @both
    def test_with_a_refused_token_after_the_take_over_ended_the_first_is_a_loss(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        second = device.rotate()
        device.client.publish("t", b"held", qos=1)
        first.close()
        second.expect_nothing()
        second.connack(0x87 if protocol == 5 else 5)
        device.event(Disconnected)
        third = device.broker.accept()
        assert third.expect(CONNECT).password == password(3)
        third.connack(session_present=True)
        device.event(Connected)
        carries_on(device, third, b"held")


class TestFirstConnectionCut:
    @both
    def test_while_the_second_is_being_opened_goes_on_as_a_reconnect(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        second = _refused_once(device, first)
        device.client.publish("t", b"1", qos=1)
        sent = first.expect(PUBLISH)
        assert device.source.asked.acquire(timeout=10)
        first.close()
        assert device.event(Disconnected).retry_in == 0.0
        assert device.client.state == "connecting"
        device.client.publish("t", b"2", qos=1)
        device.source.gate.set()
        third = device.answer(session_present=True)
        device.event(Connected)
        again = third.expect_messages(2)
        assert [(m.payload, m.dup) for m in again] == [(b"1", True), (b"2", False)]
        assert again[0].packet_id == sent.packet_id
        carries_on(device, third)
        assert not device.reported(Rotated)
        second.expect_end()

    def test_while_it_is_being_flushed_goes_on_as_a_reconnect(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 60.0)
        device = make()
        first = device.start()
        device.source.life = 4.0
        device.client.publish("t", b"in flight", qos=1)
        device.client.publish("t", bytes(12_000_000))  # more than the operating system takes
        device.client.publish("t", b"new")
        device.client.rotate()
        second = device.broker.accept()
        second.expect_nothing()
        assert device.client.state == "rotating"
        first.close()
        device.event(Disconnected)
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.event(Connected)
        carries_on(device, second, b"in flight", bytes(12_000_000), b"new")
        assert not device.reported(Rotated), "a reconnect after a loss is no rotation"
        third = device.broker.accept()
        assert third.expect(CONNECT).password == password(3), "the next renewal comes in time"

    def test_while_it_is_being_flushed_for_a_will_leaves_no_deadline_behind(self, make: Make) -> None:
        device = make(will=Will("gone", b""))
        first = device.start()
        device.client.publish("t", bytes(12_000_000))  # more than the operating system takes
        device.client.rotate()
        second = device.broker.accept()
        second.expect_nothing()
        first.close()
        device.event(Disconnected)
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.event(Connected)
        assert second.expect(PUBLISH).payload == bytes(12_000_000)
        second.expect_nothing(20)
        carries_on(device, second)
        assert len(device.reported(Disconnected)) == 1

    @both
    def test_while_connack_is_awaited_is_taken_for_the_take_over(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"in flight", qos=1)
        first.expect(PUBLISH)
        second = device.rotate()
        first.close()
        device.client.publish("t", b"held", qos=1)
        second.expect_nothing()
        second.connack(session_present=True)
        device.event(Rotated)
        carries_on(device, second, b"in flight", b"held")
        assert not device.reported(Disconnected)

    @both
    def test_while_a_failed_rotation_waits_for_its_next_try_is_a_loss_with_a_delay_of_its_own(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.backoff.Backoff.slow_delay", lambda _: 60.0)
        device = make(protocol)
        first = device.start()
        device.rotate().connack(0x85 if protocol == 5 else 2)
        assert device.event(RotationFailed).retry_in == 60.0
        first.close()
        assert device.event(Disconnected).retry_in < 1.0
        second = device.answer(session_present=True)
        device.event(Connected)
        carries_on(device, second)

    def test_while_a_failed_rotation_waits_leaves_nothing_of_that_behind(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.backoff.Backoff.slow_delay", lambda _: 1.0)
        device = make()
        first = device.start()
        device.rotate().connack(0x85)
        device.event(RotationFailed)
        first.close()
        second = device.answer(session_present=True)
        device.event(Connected)
        device.broker.expect_no_connection(1.2)
        carries_on(device, second)

    def test_right_after_connack_is_not_a_loss(self, make: Make) -> None:
        device = make()
        first = device.start()
        second = device.rotate()
        second.connack(session_present=True)
        first.close()
        device.event(Rotated)
        carries_on(device, second)
        assert not device.reported(Disconnected)

    def test_together_with_the_second_right_after_connack_is_a_loss(self, make: Make) -> None:
        device = make()
        first = device.start()
        second = device.rotate()
        device.client.publish("t", b"held", qos=1)
        second.connack(session_present=True)
        second.close()
        first.close()
        device.event(Disconnected)
        third = device.answer(session_present=True)
        device.event(Connected)
        carries_on(device, third, b"held")


class TestDeadlines:
    def test_of_an_attempt_that_is_over_do_not_end_the_next_one(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.connect._CONNACK_TIME", 0.5)
        device = make()
        device.start()
        monkeypatch.undo()
        second = device.rotate()
        second.expect_nothing(0.7)
        second.connack(session_present=True)
        device.event(Rotated)
        assert not device.reported(RotationFailed)


class TestNewerTokenDuringABackOff:
    def test_does_not_hurry_the_next_try_which_uses_it(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.backoff.Backoff.slow_delay", lambda _: 1.0)
        device = make()
        device.start()
        device.rotate().connack(0x85)
        device.event(RotationFailed)
        device.client.rotate()
        device.broker.expect_no_connection(0.2)
        third = device.broker.accept()
        assert third.expect(CONNECT).password == password(3)
        third.connack(session_present=True)
        device.event(Rotated)
        device.broker.expect_no_connection()


class TestRotationThatFindsNoOtherToken:
    def test_ends_without_a_word_and_the_next_one_works(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.backoff.Backoff.slow_delay", lambda _: 0.5)
        device = make()
        one = Token("a token that comes twice", 3600.0)
        device.source.next = [one, None, one]
        first = device.start()
        device.rotate().connack(0x85)
        device.event(RotationFailed)
        device.client.rotate()
        device.broker.accept().expect_end()
        carries_on(device, first)
        device.rotate().connack(session_present=True)
        device.event(Rotated)
        assert len(device.reported(RotationFailed)) == 1

    def test_but_was_asked_for_one_meanwhile_looks_once_more(self, make: Make) -> None:
        device = make(keepalive=0)
        device.start()
        manager = manager_of(device)

        def begin() -> None:
            manager.begin()  # as after a failure
            manager.rotate(Token("a token that is gone again", 3600.0))

        manager.runtime.call_soon(begin)
        for _ in range(2):
            device.broker.accept().expect_end()
        device.broker.expect_no_connection(60.0)
        device.rotate().connack(session_present=True)
        device.event(Rotated)


class TestRotationThatEndsTheFirst:
    """Where a take-over would fire the will."""

    def begin(self, make: Make) -> tuple[Device, Peer, Peer]:
        device = make(4, will=Will("gone", b""))
        first = device.start()
        device.client.rotate()
        second = device.broker.accept()
        first.expect(DISCONNECT)
        for qos in (0, 1, 2):
            device.client.publish("t", b"held at %d" % qos, qos=qos)
        return device, first, second

    HELD = (b"held at 0", b"held at 1", b"held at 2")

    def test_and_finds_the_second_cut_before_connect_says_nothing_more_on_the_first_and_reconnects(
        self, make: Make
    ) -> None:
        device, first, second = self.begin(make)
        second.close()
        first.expect_end()
        first.close()
        device.event(Disconnected)
        third = device.answer(session_present=True)
        device.event(Connected)
        carries_on(device, third, *self.HELD)

    @pytest.mark.parametrize("how", ["cut", "token refused", "refused"])
    def test_and_fails_on_the_second_is_a_loss(self, make: Make, how: str) -> None:
        device, first, second = self.begin(make)
        first.close()
        second.expect(CONNECT)
        match how:
            case "cut":
                second.close()
            case "token refused":
                second.connack(5)
            case "refused":
                second.connack(3)
        device.event(Disconnected)
        assert device.event(TokenRefused if how == "token refused" else ConnectFailed)
        assert not device.reported(RotationFailed), "there is no connection that serves on"
        third = device.answer(session_present=True)
        device.event(Connected)
        carries_on(device, third, *self.HELD)

    def test_and_has_no_second_to_open_leaves_the_first_up(self, make: Make) -> None:
        device = make(4, will=Will("gone", b""))
        first = device.start()
        device.broker.close_listener()
        device.client.rotate()
        device.event(RotationFailed)
        device.client.publish("t", b"on the first")
        carries_on(device, first, b"on the first")


def _refused_once(device: Device, first: Peer) -> Peer:
    """Have the broker refuse a token, and the request for the next one not end: a rotation that is being opened."""
    second = device.rotate()
    while device.source.asked.acquire(blocking=False):
        pass
    device.source.gate.clear()
    second.connack(0x87 if second.five else 5)
    return second


class TestNoTokenForARotation:
    @both
    def test_leaves_the_first_up_and_asks_again_after_a_back_off(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        device.source.next = [None, AuthorizationServerUnavailable("down")]
        device.rotate().connack(0x87 if protocol == 5 else 5)
        assert isinstance(device.event(RotationFailed).error, AuthorizationServerUnavailable)
        device.client.publish("t", b"on the first")
        carries_on(device, first, b"on the first")
        third = device.broker.accept()
        assert third.expect(CONNECT).password == password(4)
        third.connack(session_present=True)
        device.event(Rotated)
        assert device.source.requests == 4
