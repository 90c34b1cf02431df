"""connect() and rotate() as an application sees them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import (
    AuthorizationServerUnavailable,
    Backoff,
    BrokerRefused,
    ClientClosed,
    Connected,
    ConnectFailed,
    HandlerFailed,
    RenewalFailed,
    Rotated,
    TokenError,
    TokenKeeper,
    TokenRefused,
    TokenRefusedByBroker,
    TokenRenewed,
    TokenRequestRefused,
)
from tests.unit.device import Make, Source, both, end, password
from tests.unit.packets import CONNECT, DISCONNECT, PUBACK, PUBLISH
from tests.unit.scripted_broker import PATIENCE

INVALID_CLIENT = TokenRequestRefused("the client is not known", error="invalid_client", status=401)


class TestConnect:
    @both
    def test_returns_true_once_the_broker_has_accepted(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        device = make(protocol)
        connected = pool.submit(device.client.connect)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        assert not connected.done()
        assert device.client.state == "connecting"
        peer.connack()
        assert connected.result(PATIENCE) is True
        assert device.client.state == "connected"
        assert device.client.connect() is True, "called again, it changes nothing"
        peer.expect_nothing()

    def test_returns_false_after_the_timeout_and_goes_on_trying(self, make: Make) -> None:
        device = make(backoff=Backoff(initial=0.05, maximum=0.05))
        device.broker.close_listener()
        assert device.client.connect(timeout=0.3) is False
        assert device.client.state in ("waiting", "connecting")
        assert len(device.reported(ConnectFailed)) > 2
        device.broker.listen_again()
        device.answer()
        device.event(Connected)
        assert device.client.connect(timeout=5) is True

    def test_returns_false_while_the_token_request_takes_long(self, make: Make) -> None:
        device = make()
        device.source.gate.clear()
        assert device.client.connect(timeout=0.2) is False
        device.source.gate.set()
        device.answer()
        device.event(Connected)

    def test_raises_what_the_authorization_server_refuses(self, make: Make) -> None:
        device = make()
        device.source.always = INVALID_CLIENT
        with pytest.raises(TokenRequestRefused):
            device.client.connect(timeout=PATIENCE)
        assert device.client.state == "closed"
        assert device.source.requests == 1
        device.broker.expect_no_connection(0.05)

    def test_does_not_raise_again_what_the_last_one_raised(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        connecting = pool.submit(device.client.connect, PATIENCE)
        device.answer(0x85)
        with pytest.raises(BrokerRefused):
            connecting.result(PATIENCE)
        device.broker.close_listener()
        assert device.client.connect(timeout=0.1) is False

    def test_raises_it_again_when_called_again(self, make: Make) -> None:
        device = make()
        device.source.always = INVALID_CLIENT
        for _ in range(2):
            with pytest.raises(TokenRequestRefused):
                device.client.connect(timeout=PATIENCE)
        assert device.source.requests == 1, "the keeper is still backing off"

    def test_raises_it_for_a_second_client_of_the_same_keeper(self, make: Make) -> None:
        source = Source()
        source.always = INVALID_CLIENT
        keeper = TokenKeeper(source)
        for name in ("one", "two"):
            with pytest.raises(TokenRequestRefused):
                make(tokens=keeper, client_id=name).client.connect(timeout=PATIENCE)

    def test_does_not_raise_a_failed_renewal_while_the_token_lives(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        connecting = pool.submit(device.client.connect, PATIENCE)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        device.source.always = INVALID_CLIENT
        with pytest.raises(TokenRequestRefused):
            device.client.rotate()
        device.event(RenewalFailed)
        peer.expect_nothing()
        peer.connack()
        assert connecting.result(PATIENCE) is True

    @both
    @pytest.mark.usefixtures("impatient")
    def test_raises_for_a_token_that_is_refused_twice(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int
    ) -> None:
        device = make(protocol)
        connected = pool.submit(device.client.connect, PATIENCE)
        for _ in range(2):
            device.answer(0x87 if protocol == 5 else 5)
        with pytest.raises(TokenRefusedByBroker, match="rejected the token 2 times in a row: Not authorized") as raised:
            connected.result(PATIENCE)
        assert raised.value.permanent
        assert device.client.state == "closed"
        assert device.source.requests == 2

    def test_without_waiting_raises_nothing_and_keeps_trying(self, make: Make) -> None:
        device = make()
        assert device.client.connect(timeout=0) is False
        for _ in range(4):
            device.answer(0x87)
        device.answer()
        device.event(Connected)
        assert len(device.reported(TokenRefused)) == 4

    def test_does_not_raise_what_has_been_mended_meanwhile(self, make: Make) -> None:
        device = make()
        device.client.connect(timeout=0)
        for _ in range(3):
            device.answer(0x87)
        peer = device.answer()
        device.event(Connected)
        assert device.client.connect(timeout=1) is True
        peer.expect_nothing()

    @both
    def test_works_again_after_disconnect(self, make: Make, pool: ThreadPoolExecutor, protocol: int) -> None:
        device = make(protocol)
        for number in range(3):
            peer = device.start(session_present=number > 0)
            delivery = device.client.publish("t", b"%d" % number, qos=1)
            message = peer.expect(PUBLISH)
            assert message.payload == b"%d" % number
            peer.acknowledge(PUBACK, message.packet_id)
            delivery.wait(PATIENCE)
            end(peer, pool.submit(device.client.disconnect))
            with pytest.raises(ClientClosed):
                device.client.publish("t", b"closed")
        assert device.source.requests == 1
        assert device.client.stats.delivered == 3

    def test_in_a_handler_says_that_it_cannot_wait_for_a_disconnect_under_way(self, make: Make) -> None:
        device = make()

        def again(_: object) -> None:
            device.client.disconnect()
            device.client.connect()

        device.client.subscribe("again", again)
        first = device.start()
        first.expect_subscribe()
        first.publish("again", b"")
        assert isinstance(device.event(HandlerFailed).error, ClientClosed)
        first.expect(DISCONNECT)
        first.close()
        device.start(session_present=True)

    def test_waits_for_a_disconnect_under_way_in_another_thread(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        first = device.start()
        device.client.publish("t", b"1", qos=1)
        sent = first.expect(PUBLISH)
        disconnecting = pool.submit(device.client.disconnect, 60.0)
        device.until(lambda: device.client.state == "closed")
        connecting = pool.submit(device.client.connect, PATIENCE)
        device.broker.expect_no_connection()
        first.acknowledge(PUBACK, sent.packet_id)
        end(first, disconnecting)
        second = device.answer(session_present=True)
        assert connecting.result(PATIENCE) is True
        device.client.publish("t", b"2")
        assert second.expect(PUBLISH).payload == b"2"

    def test_and_disconnect_are_what_with_does(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()

        def application() -> str:
            with device.client as client:
                client.publish("t", b"in the block", qos=1)
                return client.state

        running = pool.submit(application)
        peer = device.answer()
        message = peer.expect(PUBLISH)
        peer.expect_nothing()
        peer.acknowledge(PUBACK, message.packet_id)
        end(peer, running)
        assert running.result() == "connected"
        assert device.client.state == "closed"


class TestRotate:
    def test_raises_if_the_renewal_fails_and_the_connection_stays(self, make: Make) -> None:
        device = make()
        peer = device.start()
        device.source.next = [AuthorizationServerUnavailable("down"), ValueError("secret text"), INVALID_CLIENT]
        for _ in range(3):
            with pytest.raises(TokenError):
                device.client.rotate()
        for _ in range(3):
            assert device.event(RenewalFailed).expires_in > 3000
        device.broker.expect_no_connection()
        device.client.publish("t", b"1")
        assert peer.expect(PUBLISH).payload == b"1"
        assert device.client.state == "connected"

    def test_in_a_handler_does_not_wait(self, make: Make) -> None:
        device = make()
        device.client.subscribe("rotate", lambda _: device.client.rotate())
        peer = device.start()
        peer.expect_subscribe()
        device.source.gate.clear()
        peer.publish("rotate", b"", 1, 1)
        assert peer.expect(PUBACK).packet_id == 1
        device.source.gate.set()
        second = device.broker.accept()
        assert second.expect(CONNECT).password == password(2)
        second.connack(session_present=True)
        device.event(Rotated)

    def test_in_a_handler_reports_a_failure_as_an_event(self, make: Make) -> None:
        device = make()
        device.client.subscribe("rotate", lambda _: device.client.rotate())
        peer = device.start()
        peer.expect_subscribe()
        device.source.next = [AuthorizationServerUnavailable("down")]
        peer.publish("rotate", b"")
        device.event(RenewalFailed)
        assert device.client.state == "connected"

    def test_while_offline_renews_the_token_that_the_next_attempt_uses(self, make: Make) -> None:
        device = make()
        assert device.client.token_expires_in is None
        device.client.rotate()
        device.client.rotate()
        assert 3590 < (device.client.token_expires_in or 0) <= 3600.001
        device.client.connect(timeout=0)
        assert device.broker.accept().expect(CONNECT).password == password(2)


def test_renewals_go_on_after_a_reconnect(make: Make) -> None:
    device = make()
    device.source.life = 3.0
    device.start().close()
    device.answer(session_present=True)
    device.event(Connected)
    device.event(TokenRenewed)
    device.answer(session_present=True)
    device.event(Rotated)


def test_packet_identifiers_begin_anywhere_as_the_broker_may_remember_those_of_an_earlier_process(make: Make) -> None:
    first = []
    for number in range(3):
        device = make(client_id=f"device-{number}")
        peer = device.start()
        device.client.publish("t", b"", qos=2)
        first.append(peer.expect(PUBLISH).packet_id)
    assert len(set(first)) > 1, "one in some four billion times they are the same three times"
