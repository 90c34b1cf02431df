"""What goes wrong between a device and its servers: after each, delivery is complete, and no server was hammered."""

from __future__ import annotations

import threading

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from mqtt_token_client import (
    Backoff,
    Connected,
    ConnectFailed,
    Delivery,
    Disconnected,
    Event,
    RenewalFailed,
    RenewalPolicy,
    SessionLost,
    Token,
    TokenClient,
    TokenRefused,
    TokenRefusedByBroker,
    TokenSource,
)
from tests.integration.traffic import source

QUICK = Backoff(initial=0.1, maximum=0.8, stable_after=1.0)


class Spoiled:
    """A source whose next tokens are broken: their claims cannot be read, so that a client has no reason to present one
    again for its age.
    """

    def __init__(self, good: TokenSource, times: float = 0) -> None:
        self.good = good
        self.times = times
        self.fetched = 0

    def fetch(self, previous: Token | None) -> Token:
        token = self.good.fetch(previous)
        self.fetched += 1
        if self.times <= 0:
            return token
        self.times -= 1
        head, claims, signature = token.value.split(".")
        return Token(f"{head}.{claims}AAAA.{signature}", token.expires_in)


class Device:
    """A client with a short back-off, and all that it tells."""

    def __init__(self, port: int, tokens: TokenSource, name: str) -> None:
        self.name = name
        self.events: list[Event] = []
        self.heard: list[bytes] = []
        self.client = TokenClient(
            f"mqtt://127.0.0.1:{port}",
            tokens,
            client_id=name,
            backoff=QUICK,
            renewal=RenewalPolicy(backoff=QUICK),
            on_event=self.events.append,
        )
        self.client.subscribe(f"{name}/heard", lambda message: self.heard.append(message.payload))

    def publish(self, numbers: range) -> list[Delivery]:
        return [self.client.publish(f"{self.name}/kept/{n}", b"%d" % n, qos=1, retain=True) for n in numbers]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def await_event(self, kind: type[Event], count: int = 1) -> None:
        wait_until(lambda: len(self.of(kind)) >= count, f"{count} x {kind.__name__}: {self.events}", timeout=30)

    def hears_itself(self) -> bool:
        before = len(self.heard)
        self.client.publish(f"{self.name}/heard", b"still here", qos=1).wait(10)
        wait_until(lambda: len(self.heard) > before, "its own message", timeout=10)
        return True


def kept(port: int, token: str, name: str, count: int) -> set[int]:
    """The numbers of the retained messages that a newcomer is given, once there are as many."""
    found: set[int] = set()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"newcomer-{name}")
    client.username_pw_set("newcomer", token)
    client.on_connect = lambda client, *_: client.subscribe(f"{name}/kept/+", 1)
    client.on_message = lambda _client, _userdata, message: found.add(int(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        wait_until(lambda: len(found) >= count, f"{count} retained messages", timeout=10)
    finally:
        client.disconnect()
        client.loop_stop()
    return found


class TestABrokerThatIsKilled:
    @pytest.mark.parametrize("session_kept", [True, False])
    def test_gets_every_message_when_it_is_back(
        self, session_kept: bool, keys: Keys, oidc: AuthorizationServer, mosquitto: Mosquitto
    ) -> None:
        device = Device(mosquitto.port, source(oidc), f"killed-{session_kept}")
        with device.client:
            for delivery in device.publish(range(100)):
                delivery.wait(10)
            mosquitto.kill(save=session_kept)
            device.await_event(Disconnected)
            deliveries = device.publish(range(100, 200))
            device.await_event(ConnectFailed, 3)
            mosquitto.start()
            for delivery in [*deliveries, *device.publish(range(200, 300))]:
                delivery.wait(20)
            assert device.hears_itself()
        expected = set(range(0 if session_kept else 100, 300))
        assert kept(mosquitto.port, keys.token(), device.name, len(expected)) == expected
        assert len(device.of(SessionLost)) == (0 if session_kept else 1)
        assert oidc.token_requests() == 1  # a lost connection is no reason for a new token
        failed = [event for event in device.events if isinstance(event, ConnectFailed)]
        for number, event in enumerate(failed, start=2):  # the loss was the first failure
            assert event.retry_in <= min(QUICK.maximum, QUICK.initial * 2 ** (number - 1))


class TestAnAuthorizationServerThatIsDownForLongerThanAToken:
    def test_costs_the_connection_when_the_token_ends_and_no_message(
        self, keys: Keys, oidc: AuthorizationServer, mosquitto: Mosquitto
    ) -> None:
        oidc.config(at=3)
        device = Device(mosquitto.port, source(oidc), "no-tokens")
        with device.client:
            oidc.stop()
            device.await_event(RenewalFailed)
            assert device.client.state == "connected"  # a failed renewal costs nothing while the token lives
            assert device.of(Disconnected) == []
            deliveries = device.publish(range(50))
            device.await_event(Disconnected)
            deliveries += device.publish(range(50, 100))
            failures = len(device.of(RenewalFailed))
            device.await_event(RenewalFailed, failures + 3)
            oidc.start()
            for delivery in deliveries:
                delivery.wait(20)
            assert device.hears_itself()
        assert kept(mosquitto.port, keys.token(), device.name, 100) == set(range(100))
        assert mosquitto.refused(device.name) == 0  # a token that has expired is never presented
        for event in device.of(RenewalFailed):
            assert isinstance(event, RenewalFailed)
            assert event.retry_in <= max(QUICK.maximum, 1.0)


class TestARefusedToken:
    @pytest.mark.parametrize("times", [1, 10])
    def test_is_replaced_at_once_and_then_with_a_back_off_at_the_first_connect(
        self, times: int, oidc: AuthorizationServer, mosquitto: Mosquitto
    ) -> None:
        spoiled = Spoiled(source(oidc), times)
        device = Device(mosquitto.port, spoiled, f"refused-{times}")
        delivery = device.publish(range(1))[0]
        device.client.connect(timeout=0)
        try:
            delivery.wait(30)
        finally:
            device.client.disconnect()
        assert (mosquitto.refused(device.name), spoiled.fetched) == (times, times + 1)
        assert oidc.token_requests() == times + 1
        refusals = [event for event in device.events if isinstance(event, TokenRefused)]
        assert [event.times for event in refusals] == list(range(1, times + 1))
        assert refusals[0].retry_in == 0.0
        for event in refusals[1:]:
            assert event.retry_in <= min(QUICK.maximum, QUICK.initial * 2 ** (event.times - 2))

    @pytest.mark.parametrize("times", [1, 10])
    def test_leaves_the_connection_up_in_a_rotation(
        self, times: int, oidc: AuthorizationServer, mosquitto: Mosquitto
    ) -> None:
        spoiled = Spoiled(source(oidc))
        device = Device(mosquitto.port, spoiled, f"refused-later-{times}")
        with device.client:
            spoiled.times = times
            device.client.rotate()
            device.await_event(TokenRefused, times)
            wait_until(lambda: device.client.stats.rotations == 1, "the rotation", timeout=20)
            assert device.hears_itself()
        assert (mosquitto.refused(device.name), spoiled.fetched) == (times, times + 2)
        assert device.of(Disconnected) == []

    def test_for_ever_is_tried_again_ever_more_slowly_and_nothing_is_lost_when_it_ends(
        self, oidc: AuthorizationServer, mosquitto: Mosquitto
    ) -> None:
        oidc.config(at=4)
        spoiled = Spoiled(source(oidc))
        device = Device(mosquitto.port, spoiled, "refused-for-ever")
        with device.client:
            spoiled.times = float("inf")
            device.await_event(Disconnected)  # when the last good token ended
            deliveries = device.publish(range(50))
            device.await_event(TokenRefused, len(device.of(TokenRefused)) + 5)
            assert not any(delivery.done for delivery in deliveries)
            spoiled.times = 0
            for delivery in deliveries:
                delivery.wait(20)
            assert device.hears_itself()
        assert mosquitto.refused(device.name) == len(device.of(TokenRefused))
        assert (
            spoiled.fetched <= len(device.of(TokenRefused)) + len(device.of(Connected)) + device.client.stats.rotations
        )

    def test_for_long_is_raised_by_connect(
        self, oidc: AuthorizationServer, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.retry._PASSING", 0.0)  # instead of a minute
        device = Device(mosquitto.port, Spoiled(source(oidc), float("inf")), "refused-twice")
        with pytest.raises(TokenRefusedByBroker, match="rejected the token 2 times in a row: Not authorized; it got"):
            device.client.connect()
        assert device.client.state == "closed"
        wait_until(lambda: "mqtt-token-network" not in {one.name for one in threading.enumerate()}, "the thread's end")
