"""What ends a connection, what is reported about it, and when and where the client connects again."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from mqtt_token_client import (
    AuthorizationServerUnavailable,
    Backoff,
    Connected,
    ConnectFailed,
    Disconnected,
    RenewalFailed,
    RenewalPolicy,
    RotationFailed,
    Token,
    TokenRefused,
)
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.lifecycle.retry import RetryState, expires_soon
from tests.unit.device import Device, Make, password
from tests.unit.packets import CONNECT, PINGREQ, PUBLISH
from tests.unit.scripted_broker import Peer, ScriptedBroker


class TestTakeOver:
    """Session taken over (0x8E): another client has the same identifier, and one of the two is in the way."""

    def test_is_reported_and_the_session_is_taken_back_ever_later_however_long_the_connection_lasted(
        self, make: Make
    ) -> None:
        device = make(backoff=Backoff(initial=0.01, maximum=0.04, stable_after=0.0))
        peer = device.start()
        for times in range(4):
            peer.disconnect(0x8E)
            lost = device.event(Disconnected)
            assert lost.reason == 0x8E
            assert lost.cause.endswith(
                "Session taken over; another client uses this client_id; give each client its own"
            )
            assert 0.02 * 2**times <= lost.retry_in <= 0.04 * 2**times
            peer = device.answer(session_present=True)
            device.event(Connected)
        assert device.source.requests == 1, "the token is not at fault"

    def test_never_ends_for_good(self) -> None:
        patience = RetryState(Backoff())
        assert 1800 <= [patience.after_take_over() for _ in range(2000)][-1] <= 3600

    def test_is_the_first_again_after_a_day(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 1000.0
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.retry.monotonic", lambda: now)
        patience = RetryState(Backoff(maximum=120.0))
        delays = [patience.after_take_over() for _ in range(4)]
        now += 86_401
        assert patience.after_take_over() <= 120.0 < delays[-1]


class TestTakeOverByALateConnect:
    """The broker did not answer CONNECT in time, and handles it later: it takes the session over from this client."""

    QUICK = Backoff(initial=1.0, maximum=60.0)

    def check(self, lost: Disconnected, *, retry_within: float) -> None:
        assert lost.reason == 0x8E
        assert lost.cause.endswith("Session taken over; perhaps by an earlier CONNECT of this client, handled late")
        assert lost.retry_in <= retry_within

    def accepted_after_one_without_an_answer(self, device: Device) -> Peer:
        device.client.connect(timeout=0)
        hanging = device.broker.accept()
        hanging.expect(CONNECT)
        hanging.expect_end(20.0)
        peer = device.answer()
        device.event(Connected)
        return peer

    def fail_to_rotate(self, device: Device) -> Peer:
        peer = device.start()
        device.rotate().expect_end(20.0)
        device.event(RotationFailed)
        return peer

    def test_is_an_ordinary_failure(self, make: Make) -> None:
        device = make(backoff=self.QUICK)
        peer = self.accepted_after_one_without_an_answer(device)
        peer.disconnect(0x8E)
        self.check(device.event(Disconnected), retry_within=2.0)
        device.answer(session_present=True)
        device.event(Connected)

    def test_also_in_the_back_off_after_a_rotation_that_failed(self, make: Make) -> None:
        device = make(backoff=self.QUICK, keepalive=0)
        peer = self.fail_to_rotate(device)
        peer.disconnect(0x8E)
        self.check(device.event(Disconnected), retry_within=2.0)

    def test_also_while_the_next_rotation_begins(self, make: Make) -> None:
        device = make(backoff=self.QUICK, keepalive=0)
        peer = self.fail_to_rotate(device)
        device.client.publish("t", b"1", qos=0)
        peer.expect(PUBLISH)
        device.broker.accept()
        peer.expect(PINGREQ)
        peer.disconnect(0x8E)
        self.check(device.event(Disconnected), retry_within=0.0)

    def test_also_if_it_is_that_of_the_rotation_itself(self, make: Make) -> None:
        device = make(backoff=self.QUICK)
        peer = device.start()
        hanging = device.rotate()
        peer.disconnect(0x8E)
        hanging.expect_end(20.0)
        self.check(device.event(Disconnected), retry_within=1.0)

    def test_is_more_likely_another_clients_after_two_minutes(self, make: Make) -> None:
        device = make(backoff=self.QUICK, keepalive=0)
        peer = self.accepted_after_one_without_an_answer(device)
        peer.expect_nothing(121.0)
        peer.disconnect(0x8E)
        lost = device.event(Disconnected)
        assert lost.cause.endswith("give each client its own")
        assert 30.0 <= lost.retry_in <= 60.0

    def test_is_another_clients_if_connect_was_answered_with_a_rejection(self, make: Make) -> None:
        device = make(backoff=self.QUICK)
        device.client.connect(timeout=0)
        device.answer(0x88)
        peer = device.answer()
        device.event(Connected)
        peer.disconnect(0x8E)
        assert device.event(Disconnected).retry_in >= 30.0


def test_a_connection_is_a_success_after_half_of_the_lifetime_of_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.retry.monotonic", lambda: now)
    retry = RetryState(Backoff(initial=1.0, stable_after=60.0))
    token = Token("a-short-token", 40.0)
    assert retry.after_rejection(token) == 0.0
    retry.connected(token)
    now += 19.9
    retry.reset_if_stable()
    assert retry.rejections == 1
    now += 0.1
    retry.reset_if_stable()
    assert retry.rejections == 0


@pytest.mark.parametrize(("lifetime", "seconds"), [(3600.0, 30.0), (60.0, 6.0)])
def test_a_token_expires_soon_in_its_last_half_minute_or_tenth(lifetime: float, seconds: float) -> None:
    assert not expires_soon(Token("a", lifetime, since=monotonic() - lifetime + seconds + 0.5))
    assert expires_soon(Token("a", lifetime, since=monotonic() - lifetime + seconds - 0.01))


def test_what_ends_the_connection_and_is_our_fault_is_reported_with_what_to_do(make: Make) -> None:
    device = make()
    device.start().disconnect(0x95)
    assert "Packet too large; a packet is too large for the broker" in device.event(Disconnected).cause
    device.answer()
    device.event(Connected)


@pytest.mark.parametrize("code", [0x9C, 0x9D])
def test_another_server_that_the_broker_names_when_it_ends_the_connection_is_reported(make: Make, code: int) -> None:
    device = make()
    peer = device.start()
    reference = b"other.example.com:8883"
    properties = bytes((0x1C, 0, len(reference))) + reference
    peer.send(bytes((0xE0, 2 + len(properties), code, len(properties))) + properties)
    lost = device.event(Disconnected)
    assert (lost.reason, lost.cause.endswith("it names 'other.example.com:8883' instead: give that as broker")) == (
        code,
        True,
    )


def test_a_broker_that_rejects_the_token_is_left_for_the_next_which_gets_the_same_one(make: Make) -> None:
    with contextlib.closing(ScriptedBroker()) as other:
        first = ScriptedBroker()
        device = make(broker=first, broker_url=[first.url, other.url])
        device.client.connect(timeout=0)
        device.answer(0x87)
        peer = other.accept()
        assert peer.expect(CONNECT).password == password(1)
        peer.connack()
        assert device.event(TokenRefused).retry_in == 0.0
        assert device.event(Connected).broker == other.url


def test_the_first_token_that_comes_while_it_is_waited_for_is_used_at_once(make: Make) -> None:
    device = make()
    device.source.always = AuthorizationServerUnavailable("busy", retry_after=3600)
    device.client.connect(timeout=0)
    device.event(ConnectFailed)
    device.source.always = None
    device.client.rotate()
    assert device.broker.accept().expect(CONNECT).password == password(device.source.requests)


def test_a_token_that_comes_while_one_is_waited_for_is_used_at_once(make: Make) -> None:
    device = make(renewal=RenewalPolicy(fraction=0.9, jitter=0.0))
    device.source.next = [Token("a-short-token", 0.6)]
    peer = device.start()
    device.source.always = AuthorizationServerUnavailable("busy", retry_after=3600)
    device.event(RenewalFailed)
    time.sleep(max(0.0, device.client.token_expires_in or 0.0))
    peer.close()
    assert isinstance(device.event(ConnectFailed).error, AuthorizationServerUnavailable)
    device.source.always = None
    device.client.rotate()
    assert device.broker.accept().expect(CONNECT).password == password(device.source.requests)


def test_a_token_that_comes_while_the_broker_is_waited_for_shortens_nothing(make: Make) -> None:
    device = make(backoff=Backoff(initial=100.0, maximum=100.0))
    device.source.next = [AuthorizationServerUnavailable("busy")]  # at first a token is waited for
    device.client.connect(timeout=0)
    device.event(ConnectFailed)
    peer = device.answer()
    device.event(Connected)
    peer.close()
    wait = device.event(Disconnected).retry_in
    device.client.rotate()
    device.broker.expect_no_connection(0.9 * wait)
    device.answer(session_present=True)


def test_a_thread_that_cannot_be_started_is_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    device = make()
    peer = device.start()
    start, left = threading.Thread.start, [2]

    def no_room(thread: threading.Thread) -> None:
        if thread.name == "mqtt-token-worker" and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_room)
    peer.close()
    for _ in range(2):
        assert "no thread could be started" in str(device.event(ConnectFailed).error)
    device.answer()
    device.event(Connected)


def test_a_rotation_asked_for_in_a_handler_that_finds_no_thread_is_reported(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make()
    peer = device.start()
    start = threading.Thread.start

    def no_room(thread: threading.Thread) -> None:
        if thread.name == "mqtt-token-worker":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_room)
    device.client.subscribe("rotate", lambda _: device.client.rotate())
    peer.expect_subscribe(1)
    peer.publish("rotate", b"")
    failed = device.event(RenewalFailed)
    assert "no thread could be started" in str(failed.error)
    assert failed.expires_in > 3000
    assert failed.retry_in > 0


def test_a_token_that_is_too_long_is_replaced_soon_and_without_a_back_off_of_the_connection(make: Make) -> None:
    device = make(backoff=Backoff(initial=600.0, maximum=600.0))
    device.source.next = [Token("a" * 65_536)]
    device.client.connect(timeout=0)
    assert device.event(ConnectFailed).retry_in <= 1.0
    assert device.broker.accept().expect(CONNECT).password == password(2)
