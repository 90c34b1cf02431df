"""Enhanced authentication of MQTT 5 (section 4.12): the token by an Authentication Method, and a new one in place."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import (
    ConfigurationError,
    Connected,
    ConnectFailed,
    Credentials,
    Disconnected,
    ProtocolError,
    Rotated,
    Token,
    TokenRefused,
    TokenRenewed,
)
from mqtt_token_client.mqtt.lifecycle.traits import ReauthenticationSupport
from tests.unit import packets
from tests.unit.device import Device, Make, password
from tests.unit.packets import (
    AUTH,
    AUTHENTICATION_DATA,
    AUTHENTICATION_METHOD,
    CONNECT,
    DISCONNECT,
    MAXIMUM_PACKET_SIZE,
    PUBLISH,
    Packet,
)
from tests.unit.scripted_broker import PATIENCE, Peer
from tests.unit.test_core import manager_of

METHOD = "OAUTH2-JWT"
CONTINUE, RE_AUTHENTICATE = 0x18, 0x19


class ByMethod:
    """A profile as that of Azure Event Grid."""

    def __init__(self) -> None:
        self.method = METHOD
        self.gate = threading.Event()  # while it is cleared, a worker that has a token waits
        self.gate.set()
        self.asked = threading.Semaphore(0)

    def place(self, token: Token, client_id: str) -> Credentials:
        if not self.gate.is_set():
            self.asked.release()
            assert self.gate.wait(PATIENCE)
        return Credentials(None, None, token, self.method, token.value.encode())


@pytest.fixture
def make(make: Make) -> Make:
    return lambda protocol=5: make(protocol, profile=ByMethod())


def token_in(packet: Packet) -> bytes:
    assert packet.properties[AUTHENTICATION_METHOD] == METHOD.encode()
    data: bytes = packet.properties[AUTHENTICATION_DATA]
    return data


class TestConnect:
    def test_carries_method_and_token_and_neither_user_name_nor_password(self, make: Make) -> None:
        device = make()
        device.client.connect(timeout=0)
        connect = device.broker.accept().expect(CONNECT)
        assert token_in(connect) == password(1)
        assert (connect.username, connect.password) == (None, None)

    def test_answers_a_broker_that_asks_for_the_token_once_more(self, make: Make) -> None:
        device = make()
        device.client.connect(timeout=0)
        broker = device.broker.accept()
        broker.expect(CONNECT)
        broker.send(packets.auth(CONTINUE))
        answer = broker.expect(AUTH)
        assert (answer.reason, token_in(answer)) == (CONTINUE, password(1))
        broker.connack()
        device.event(Connected)

    @pytest.mark.parametrize("reason", [0, RE_AUTHENTICATE])
    def test_gives_up_on_a_broker_that_sends_another_auth_before_connack(self, make: Make, reason: int) -> None:
        device = make()
        device.client.connect(timeout=0)
        broker = device.broker.accept()
        broker.expect(CONNECT)
        broker.send(packets.auth(reason))
        broker.expect_end()
        error = device.event(ConnectFailed).error
        assert isinstance(error, ProtocolError)
        assert "not CONNACK" in str(error)

    def test_gives_up_on_a_broker_that_asks_again_and_again(self, make: Make) -> None:
        device = make()
        device.client.connect(timeout=0)
        broker = device.broker.accept()
        broker.expect(CONNECT)
        for _ in range(3):
            broker.send(packets.auth(CONTINUE))
            broker.expect(AUTH)
        broker.send(packets.auth(CONTINUE))
        broker.expect_end()
        assert isinstance(device.event(ConnectFailed).error, ProtocolError)


def test_two_accidents_with_a_success_between_them_are_not_two_in_a_row() -> None:
    support, token = ReauthenticationSupport(), Token("a", 60.0)
    credentials = Credentials(None, None, token, METHOD, b"a")
    for what_comes_next in (support.unanswered, lambda: support.succeeded(token), support.unanswered):
        support.connected(credentials)
        what_comes_next()
    support.connected(credentials)
    assert support.possible
    support.unanswered()
    support.connected(credentials)
    assert not support.possible


class TestReAuthentication:
    def begin(self, device: Device) -> tuple[Peer, Packet]:
        first = device.start()
        device.client.rotate()
        return first, first.expect(AUTH)

    def test_gives_the_new_token_to_the_connection_that_is_up(self, make: Make) -> None:
        device = make()
        first, auth = self.begin(device)
        assert (auth.reason, token_in(auth)) == (RE_AUTHENTICATE, password(2))
        assert device.client.state == "rotating"
        first.send(packets.auth(0))
        rotated = device.event(Rotated)
        assert (rotated.kind, rotated.gap) == ("re-authentication", 0.0)
        device.broker.expect_no_connection(11.0)  # nobody waits for an answer any more
        assert device.client.state == "connected"
        assert not device.reported(Disconnected)

    def test_holds_no_message(self, make: Make) -> None:
        device = make()
        first, _ = self.begin(device)
        device.client.publish("t", b"0")
        device.client.publish("t", b"1", qos=1)
        assert [message.payload for message in first.expect_messages(2)] == [b"0", b"1"]
        first.publish("a", b"down")
        device.until(lambda: device.payloads == [b"down"])

    def test_answers_a_broker_that_asks_for_the_token(self, make: Make) -> None:
        device = make()
        first, _ = self.begin(device)
        first.send(packets.auth(CONTINUE))
        answer = first.expect(AUTH)
        assert (answer.reason, token_in(answer)) == (CONTINUE, password(2))
        first.send(packets.auth(0))
        device.event(Rotated)

    def test_that_succeeds_ends_a_row_of_rejections(self, make: Make) -> None:
        device = make()
        first, _ = self.begin(device)
        first.disconnect(0x87)
        second = device.answer(session_present=True)
        device.client.rotate()
        second.expect(AUTH)
        second.send(packets.auth(0))
        device.event(Rotated)
        second.close()
        device.answer(0x87)
        assert device.event(TokenRefused).times == 1

    def test_again_and_again_is_done_in_place(self, make: Make) -> None:
        device = make()
        first = device.start()
        for number in (2, 3, 4):
            device.client.rotate()
            assert token_in(first.expect(AUTH)) == password(number)
            first.send(packets.auth(0))
            device.event(Rotated)

    @pytest.mark.parametrize("refusal", [packets.connack(True, 0x87), packets.disconnect(0x87)], ids=["mosquitto", "5"])
    def test_refused_is_followed_by_a_connection_with_another_new_token(self, make: Make, refusal: bytes) -> None:
        device = make()
        first, _ = self.begin(device)
        device.client.publish("t", b"in flight", qos=1)
        first.expect(PUBLISH)
        first.send(refusal)
        first.close()
        assert device.event(Disconnected).reason == 0x87
        second = device.broker.accept()
        assert token_in(second.expect(CONNECT)) == password(3)
        second.connack(session_present=True)
        assert second.expect(PUBLISH).dup
        device.client.rotate()
        assert second.expect(AUTH).reason == RE_AUTHENTICATE, "the token was at fault, not the way"

    @pytest.mark.parametrize("reasons", [(0x82,), (0x8C,), (None, None), (None, 0x8B, None)])
    def test_that_a_broker_has_no_idea_of_is_a_handover_from_then_on(
        self, make: Make, reasons: tuple[int | None, ...]
    ) -> None:
        device = make()
        second = device.start()
        for reason in reasons:
            device.client.rotate()
            second.expect(AUTH)
            if reason is None:
                second.close()
            else:
                second.disconnect(reason)
            device.event(Disconnected)
            second = device.answer()
            device.event(Connected)
        device.client.rotate()
        third = device.broker.accept()
        third.expect(CONNECT)
        third.connack(session_present=True)
        assert device.event(Rotated).kind == "handover"
        second.expect_end()
        assert not device.reported(TokenRefused)

    @pytest.mark.parametrize("reason", [None, 0x8B, 0x8E, 0x97])
    def test_that_ends_by_accident_is_tried_again_on_the_next_connection(self, make: Make, reason: int | None) -> None:
        device = make()
        first, _ = self.begin(device)
        if reason is None:
            first.close()
        else:
            first.disconnect(reason)
        device.event(Disconnected)
        second = device.answer()
        device.event(Connected)
        device.client.rotate()
        assert second.expect(AUTH).reason == RE_AUTHENTICATE

    def test_without_an_answer_is_a_handover(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.reauthenticate._AUTH_TIME", 0.05)
        device = make()
        self.begin(device)
        second = device.broker.accept()
        assert token_in(second.expect(CONNECT)) == password(2)
        second.connack(session_present=True)
        assert device.event(Rotated).kind == "handover"
        assert not device.reported(Disconnected)
        device.client.rotate()
        second.expect(AUTH)
        third = device.broker.accept()
        third.expect(CONNECT)
        third.connack(session_present=True)
        device.event(Rotated)
        device.client.rotate()
        assert device.broker.accept().expect(CONNECT).password is None, "without AUTH, from the second time on"

    def test_that_never_ends_is_a_handover(self, make: Make) -> None:
        device = make()
        first, _ = self.begin(device)
        for _ in range(3):
            first.send(packets.auth(CONTINUE))
            first.expect(AUTH)
        first.send(packets.auth(CONTINUE))
        second = device.broker.accept()
        second.expect(CONNECT)
        second.connack(session_present=True)
        assert device.event(Rotated).kind == "handover"

    def test_is_a_handover_where_the_method_changes(self, make: Make) -> None:
        device = make()
        device.start()
        device.client._core.provider._profile.method = "CUSTOM-JWT"  # type: ignore[attr-defined]  # ByMethod
        device.client.rotate()
        second = device.broker.accept()
        assert second.expect(CONNECT).properties[AUTHENTICATION_METHOD] == b"CUSTOM-JWT"

    def test_is_a_handover_where_the_broker_does_not_accept_so_large_a_packet(self, make: Make) -> None:
        """[MQTT-3.2.2-15]"""
        device = make()
        first = device.start(properties={MAXIMUM_PACKET_SIZE: 30})
        device.client.rotate()
        second = device.broker.accept()
        assert token_in(second.expect(CONNECT)) == password(2)
        second.connack(session_present=True)
        assert device.event(Rotated).kind == "handover"
        first.expect_end()

    def test_that_is_answered_after_disconnect_leaves_the_end_to_the_broker(
        self, make: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make()
        first, _ = self.begin(device)
        disconnecting = pool.submit(device.client.disconnect, 0.0)
        first.expect(DISCONNECT)
        first.send(packets.auth(0))
        first.expect_nothing(0.4)
        assert not disconnecting.done()
        first.close()
        disconnecting.result(PATIENCE)

    def test_is_a_handover_once_a_broker_has_ended_the_connection_with_its_first_token(self, make: Make) -> None:
        device = make()
        device.source.life = 1.5
        first = device.start()
        device.source.life = 3600.0
        device.client.rotate()
        first.expect(AUTH)
        first.send(packets.auth(0))
        device.event(Rotated)
        first.close()  # about when the first token expires
        assert device.event(Disconnected).retry_in == 0.0
        second = device.broker.accept()
        assert token_in(second.expect(CONNECT)) == password(2), "the token in hand is a good one"
        second.connack(session_present=True)
        device.event(Connected)
        device.client.rotate()
        third = device.broker.accept()
        third.expect(CONNECT)
        third.connack(session_present=True)
        assert device.event(Rotated).kind == "handover"

    def test_onto_a_token_that_arrives_while_that_of_before_is_looked_at_follows_at_once(self, make: Make) -> None:
        device = make()
        first = device.start()
        profile = device.client._core.provider._profile
        assert isinstance(profile, ByMethod)
        profile.gate.clear()
        manager = manager_of(device)
        manager.runtime.call_soon(manager.begin)  # as after a failure
        assert profile.asked.acquire(timeout=10)
        device.client.rotate()
        device.event(TokenRenewed)
        profile.gate.set()
        asked = first.expect(AUTH)
        assert token_in(asked) == password(2)
        first.send(packets.auth(0))
        device.event(Rotated)

    def test_does_not_keep_a_client_from_ending(self, make: Make) -> None:
        device = make()
        first, _ = self.begin(device)
        device.client.disconnect()
        assert device.client.state == "closed"
        first.drain(0.05)


def test_auth_out_of_place_ends_the_connection(make: Make) -> None:
    device = make()
    first = device.start()
    first.send(packets.auth(0))
    first.expect_rejection(0x82)
    assert "out of place" in device.event(Disconnected).cause


@pytest.mark.parametrize("reason", [0x19, 0x87])
def test_auth_with_a_code_that_is_not_the_brokers_to_send_ends_the_connection(make: Make, reason: int) -> None:
    device = make()
    first = device.start()
    device.client.rotate()
    first.expect(AUTH)
    first.send(packets.auth(reason))
    assert "out of place" in device.event(Disconnected).cause


def test_an_authentication_method_needs_mqtt_5(make: Make) -> None:
    device = make(4)
    with pytest.raises(ConfigurationError, match="an Authentication Method needs protocol=5"):
        device.client.connect(timeout=10)
    device.broker.expect_no_connection()
