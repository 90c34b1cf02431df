"""Rotations that are not the plain handover: a will, a full socket, TLS, a shared keeper."""

from __future__ import annotations

import ssl
import threading

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import (
    Connected,
    Disconnected,
    Message,
    Rotated,
    SessionLost,
    Token,
    TokenKeeper,
    TokenRenewed,
    Will,
)
from tests.unit import packets
from tests.unit.device import Device, Make, Source, both, password
from tests.unit.packets import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBLISH,
    SESSION_EXPIRY_INTERVAL,
    SUBSCRIBE,
    WILL_DELAY_INTERVAL,
    Packet,
)
from tests.unit.scripted_broker import Peer, ScriptedBroker


class TestFirstConnectionThatIsFull:
    """The broker reads nothing, and the first message is larger than what the operating system takes."""

    SIZE = 12_000_000

    def fill(self, device: Device) -> tuple[Peer, Peer]:
        """The first connection, full, and the second, open: the rotation waits for the first to send."""
        first = device.start()
        for number in range(20):
            device.client.publish("t", b"%02d" % number + bytes(0 if number else self.SIZE), qos=0)
        device.client.rotate()
        second = device.broker.accept()
        second.expect_nothing()
        assert device.client.state == "rotating"
        return first, second

    def test_sends_what_is_waiting_before_connect_goes_out_and_loses_nothing_of_qos_0(self, make: Make) -> None:
        device = make()
        first, second = self.fill(device)
        assert len(first.expect(PUBLISH).payload) == self.SIZE + 2
        first.expect(PINGREQ)
        first.send(packets.PINGRESP_PACKET)
        second.expect(CONNECT)
        second.connack(session_present=True)
        first.expect_end()
        assert [int(m.payload) for m in second.expect_messages(19)] == list(range(1, 20))

    def test_with_a_will_is_ended_once_all_went_out_also_where_the_rest_went_out_with_an_answer(
        self, make_in_real_time: Make
    ) -> None:
        device = make_in_real_time(will=Will("gone", b""))
        in_handler, drained = threading.Semaphore(0), threading.Semaphore(0)

        def slow(_: Message) -> None:
            in_handler.release()
            assert drained.acquire(timeout=10)

        device.client.subscribe("a/#", slow)
        first, second = self.fill(device)
        received: list[Packet] = []
        first.publish("a/b", b"", 1, 1)
        for number in range(2, 10):
            assert in_handler.acquire(timeout=10)
            received += first.drain(0.05)
            first.publish("a/b", b"", 1, number)
            drained.release()
        drained.release()
        assert [packet.kind for packet in received[:2]] == [SUBSCRIBE, PUBLISH], "all went out"
        first.drain(0.05)
        first.close()
        second.expect(CONNECT, timeout=3)

    def test_is_left_after_a_while_and_what_it_had_not_sent_goes_out_on_the_second(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 0.3)
        device = make()
        _, second = self.fill(device)
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.event(Rotated)
        assert [int(m.payload[:2]) for m in second.expect_messages(20)] == list(range(20))


class TestWill:
    """A take-over fires it, unless the broker waits for its delay and keeps the session."""

    CASES = pytest.mark.parametrize(
        ("protocol", "options"),
        [
            (4, {"will": Will("gone", b"")}),
            (5, {"will": Will("gone", b"")}),
            (5, {"will": Will("gone", b"", delay=0)}),
            (5, {"will": Will("gone", b"", delay=9), "session_expiry": 0}),
        ],
    )

    @CASES
    def test_is_put_off_by_disconnect_on_the_first_before_connect_on_the_second(
        self, make: Make, protocol: int, options: dict[str, object]
    ) -> None:
        device = make(protocol, **options)
        first = device.start()
        device.client.publish("t", b"in flight", qos=1)
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        assert first.expect(DISCONNECT).reason == 0
        device.client.publish("t", b"new", qos=1)
        device.client.subscribe("a/#")
        first.publish("t", b"last words", 1, 1)
        first.expect_nothing(0.4)  # the broker may close by itself
        first.expect_end()
        second.expect_nothing(0.2)
        first.close()
        assert second.expect(CONNECT).password == password(2)
        second.expect_nothing()
        kept = options.get("session_expiry") != 0
        second.connack(session_present=kept)
        second.expect_subscribe()
        assert [(m.payload, m.dup) for m in second.expect_messages(2)] == [(b"in flight", kept), (b"new", False)]
        rotated = device.event(Rotated)
        assert rotated.kind == "reconnect"
        assert 0.2 < rotated.gap < 3.0, "nothing was left to be written on the first connection"
        assert device.payloads == [b"last words"]
        assert not device.reported(Disconnected)

    def test_does_not_wait_for_a_broker_that_leaves_the_first_open_for_long(self, make: Make) -> None:
        device = make(4, will=Will("gone", b""))
        first = device.start()
        device.client.rotate()
        second = device.broker.accept()
        first.expect(DISCONNECT)
        first.expect_end(timeout=4)
        second.expect(CONNECT)
        second.connack(session_present=True)
        assert device.event(Rotated).gap > 1.0

    def test_with_a_delay_and_a_session_allows_a_handover(self, make: Make) -> None:
        device = make(5, will=Will("gone", b"", delay=9), session_expiry=60)
        first = device.start()
        device.client.rotate()
        second = device.broker.accept()
        will = second.expect(CONNECT).will
        assert will is not None
        assert will.properties == {WILL_DELAY_INTERVAL: 9}
        first.expect_nothing()
        second.connack(session_present=True)
        first.expect_end()
        assert device.event(Rotated).kind == "handover"

    @pytest.mark.parametrize(("announced", "way"), [(0, "reconnect"), (5, "handover")])
    def test_depends_on_the_session_expiry_that_the_broker_uses_instead(
        self, make: Make, announced: int, way: str
    ) -> None:
        """MQTT 5 section 3.2.2.3.2: without a session the will is not held back (section 3.1.3.2.2)."""
        device = make(5, will=Will("gone", b"", delay=9), session_expiry=60)
        first = device.start(properties={SESSION_EXPIRY_INTERVAL: announced})
        device.client.rotate()
        second = device.broker.accept()
        if way == "reconnect":
            first.expect(DISCONNECT)
            first.close()
        second.expect(CONNECT)
        second.connack(session_present=True)
        first.close()
        assert device.event(Rotated).kind == way


class TestTls:
    @both
    def test_keeps_the_order_of_what_came_with_connack(
        self, make: Make, protocol: int, pki: Pki, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._DRAIN_TIME", 60.0)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(pki.server.certificate, pki.server.key)
        broker = ScriptedBroker(server)
        device = make(protocol, broker=broker, tls=ssl.create_default_context(cafile=str(pki.ca)))
        device.client.connect(timeout=0)
        first = device.answer()
        device.event(Connected)
        device.client.publish("t", b"in flight", qos=1)
        first.expect(PUBLISH)
        second = device.rotate()
        device.client.publish("t", b"held", qos=1)
        second.connack(session_present=True)  # a TLS record each: no socket becomes readable for the last two
        second.publish("t", b"3", 1, 3)
        second.publish("t", b"4", 1, 4)
        second.expect_nothing()
        first.expect_nothing()  # and nothing unread, or closing would reset the connection
        first.publish("t", b"1", 1, 1)
        first.publish("t", b"2", 1, 2)
        first.close()
        assert [m.payload for m in second.expect_messages(2)] == [b"in flight", b"held"]
        device.until(lambda: len(device.messages) == 4)
        assert device.payloads == [b"1", b"2", b"3", b"4"]
        assert device.event(Rotated).kind == "handover"


class TestRenewal:
    @both
    def test_in_time_leads_to_a_rotation_by_itself(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.source.life = 3.0
        device.start()
        second = device.broker.accept()
        assert second.expect(CONNECT).password == password(2)
        second.connack(session_present=True)
        device.event(Rotated)
        assert device.client.stats.renewals == 2
        assert device.source.requests == 2

    def test_that_brings_the_same_token_is_tried_again_later(self, make: Make) -> None:
        device = make()
        same = Token("a token that comes twice", 3.0)
        device.source.next = [same, same]
        device.start()
        second = device.broker.accept()
        assert second.expect(CONNECT).password == password(3)
        second.connack(session_present=True)
        device.event(Rotated)
        assert device.source.requests == 3

    def test_of_a_shared_keeper_is_one_request_and_rotates_every_client_on_one_network_thread(
        self, make_in_real_time: Make
    ) -> None:
        source = Source()
        keeper = TokenKeeper(source)
        before = {thread for thread in threading.enumerate() if "network" in thread.name}
        pair = [make_in_real_time(5, tokens=keeper, client_id=name) for name in ("one", "two")]
        for device in pair:
            device.start()
        assert len({thread for thread in threading.enumerate() if "network" in thread.name} - before) == 1
        assert source.requests == 1
        pair[0].client.rotate()
        for device in pair:
            device.event(TokenRenewed)
            second = device.broker.accept()
            assert second.expect(CONNECT).password == password(2)
            second.connack(session_present=True)
            device.event(Rotated)
        assert source.requests == 2


def test_a_rotation_without_a_session_reports_that_it_is_a_new_one(make: Make) -> None:
    device = make(session_expiry=0)
    device.start()
    device.rotate().connack(session_present=False)
    device.event(Rotated)
    device.event(SessionLost)
