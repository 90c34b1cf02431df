"""Each profile on a real broker that takes tokens that way: it connects, moves onto a new token, and goes on."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from devtools.servers.gateway import Gateway
from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.processes import wait_until
from devtools.servers.rabbitmq import RabbitMQ as RabbitMQServer
from mqtt_token_client import (
    AwsIot,
    Backoff,
    Credentials,
    DeliveryFailed,
    DeliveryRefused,
    Disconnected,
    Event,
    Password,
    RabbitMQ,
    Rotated,
    Token,
    TokenClient,
    TokenRefused,
    TokenSource,
    Username,
)
from tests.integration.traffic import source

both = pytest.mark.parametrize("protocol", [4, 5])


class Device:
    """A client that hears what is published on a topic, by itself too."""

    def __init__(self, url: str, tokens: TokenSource, name: str, topic: str = "", **options: Any) -> None:
        self.name, self.topic = name, topic or f"profiles/{name}"
        self.heard: list[bytes] = []
        self.events: list[Event] = []
        self._ready = threading.Event()
        self.client = TokenClient(url, tokens, client_id=name, on_event=self.events.append, **options)
        self.client.subscribe(self.topic, lambda message: self.heard.append(message.payload))
        self.client.subscribe(f"ready/{name}", lambda _message: self._ready.set())  # the later one: then both work

    def __enter__(self) -> Self:
        self.client.connect()
        wait_until(self._hears_itself, "the subscriptions work")
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()

    def _hears_itself(self) -> bool:
        self.client.publish(f"ready/{self.name}", b"", qos=1)
        return self._ready.wait(0.2)

    def publish(self, payload: bytes) -> None:
        self.client.publish(self.topic, payload, qos=1).wait(10)

    def await_heard(self, *payloads: bytes) -> None:
        wait_until(lambda: len(self.heard) >= len(payloads), f"{payloads}; heard {self.heard}")
        assert self.heard == list(payloads)

    def rotate(self) -> str:
        """Rotate, and tell the kind."""
        before = len(self.rotations)
        self.client.rotate()
        wait_until(lambda: len(self.rotations) > before, "the rotation")
        return self.rotations[-1].kind

    @property
    def rotations(self) -> list[Rotated]:
        return [event for event in self.events if isinstance(event, Rotated)]


def goes_on_after_a_rotation(device: Device, kind: str = "handover") -> None:
    with device:
        device.publish(b"before")
        device.await_heard(b"before")
        assert device.rotate() == kind
        device.publish(b"after")
        device.await_heard(b"before", b"after")
        assert [event for event in device.events if isinstance(event, TokenRefused | Disconnected)] == []


class TestRabbitMQ:
    @pytest.mark.parametrize(
        "profile", [RabbitMQ(), RabbitMQ("/"), RabbitMQ("plant"), RabbitMQ("plant", "pump")], ids=str
    )
    def test_reaches_the_virtual_host_that_it_names_and_no_other(
        self, profile: RabbitMQ, oidc: AuthorizationServer, rabbitmq: RabbitMQServer
    ) -> None:
        url, tokens, name = f"mqtt://127.0.0.1:{rabbitmq.port}", source(oidc), re.sub(r"\W+", "-", str(profile))
        device, root, plant = (
            Device(url, tokens, f"{role}-{name}", f"vhosts/{name}", profile=one, protocol=4)
            for role, one in (("device", profile), ("root", RabbitMQ("/")), ("plant", RabbitMQ("plant")))
        )
        here, elsewhere = (plant, root) if profile.vhost == "plant" else (root, plant)
        with device, root, plant:
            device.publish(b"before")
            here.await_heard(b"before")
            assert device.rotate() == "handover"
            device.publish(b"after")
            elsewhere.publish(b"elsewhere")
            here.await_heard(b"before", b"after")
            elsewhere.await_heard(b"elsewhere")

    def test_has_no_qos_2_and_such_a_message_is_given_up(
        self, oidc: AuthorizationServer, rabbitmq: RabbitMQServer
    ) -> None:
        options: dict[str, Any] = {"protocol": 4, "backoff": Backoff(initial=0.1, maximum=0.5)}
        with Device(f"mqtt://127.0.0.1:{rabbitmq.port}", source(oidc), "qos-2", **options) as device:
            at_qos_2 = [device.client.publish(device.topic, payload, qos=2) for payload in (b"first", b"second")]
            device.publish(b"behind")
            wait_until(lambda: b"behind" in device.heard, f"the last message; heard {device.heard}")
            assert device.client.stats.connects == 4  # the first message is sent twice, the second once
        assert [event.reason for event in device.events if isinstance(event, DeliveryRefused)] == [0x9B, 0x9B]
        for delivery in at_qos_2:
            with pytest.raises(DeliveryFailed, match="publish with another qos"):
                delivery.wait(0)


def at_plant(token: Token, client_id: str) -> Credentials:
    return Credentials(f"{client_id}@plant", token.value.encode(), token)


def by_method(token: Token, _client_id: str) -> Credentials:
    return Credentials(None, None, token, "OAUTH2-JWT", token.value.encode())


class TestPassword:
    @both
    @pytest.mark.parametrize(
        ("name", "profile", "username"),
        [
            ("default", "password", "default-{}"),
            ("fixed", Password(username="device"), "device"),
            ("claim", Password(username_claim="sub"), "service"),
            ("function", at_plant, "function-{}@plant"),
        ],
        ids=["default", "fixed", "claim", "function"],
    )
    def test_has_the_user_name_that_the_profile_says(
        self, name: str, profile: Any, username: str, protocol: int, oidc: AuthorizationServer, mosquitto: Mosquitto
    ) -> None:
        url, client_id = f"mqtt://127.0.0.1:{mosquitto.port}", f"{name}-{protocol}"
        goes_on_after_a_rotation(Device(url, source(oidc), client_id, profile=profile, protocol=protocol))
        assert mosquitto.count(rf"connected from \S+ as {client_id} \(.*u'{username.format(protocol)}'\)") == 2


class TestUsername:
    @both
    @pytest.mark.parametrize("password", ["", "any"])
    def test_is_the_token(self, password: str, protocol: int, oidc: AuthorizationServer, hivemq: HiveMQ) -> None:
        url, client_id = f"mqtt://127.0.0.1:{hivemq.username_port}", f"by-username-{password}-{protocol}"
        goes_on_after_a_rotation(Device(url, source(oidc), client_id, profile=Username(password), protocol=protocol))
        assert hivemq.accepted(client_id) == 2


class TestAuthenticationMethod:
    def test_moves_onto_a_new_token_in_place(self, oidc: AuthorizationServer, hivemq: HiveMQ) -> None:
        device = Device(f"mqtt://127.0.0.1:{hivemq.port}", source(oidc), "by-method", profile=by_method)
        goes_on_after_a_rotation(device, "re-authentication")
        assert (hivemq.accepted("by-method"), device.client.stats.connects) == (2, 1)


class TestBearerHeader:
    @pytest.fixture
    def gateway(self, hivemq: HiveMQ, keys: Keys, tmp_path: Path) -> Iterator[Gateway]:
        with contextlib.closing(Gateway(hivemq.behind_gateway_port, keys, tmp_path)) as gateway:
            yield gateway

    @both
    def test_is_read_by_a_gateway(
        self, protocol: int, oidc: AuthorizationServer, hivemq: HiveMQ, gateway: Gateway
    ) -> None:
        url, client_id = f"ws://127.0.0.1:{gateway.port}/mqtt", f"by-header-{protocol}"
        goes_on_after_a_rotation(Device(url, source(oidc), client_id, profile="bearer-header", protocol=protocol))
        assert (gateway.accepted, gateway.refused, hivemq.accepted(client_id)) == (2, 0, 2)

    def test_refused_with_401_is_followed_by_a_new_token(self, keys: Keys, gateway: Gateway) -> None:
        class BadAtFirst:
            count = 0

            def fetch(self, previous: Token | None) -> Token:
                self.count += 1
                bad = self.count == 1  # without iat its age is no excuse
                return Token(keys.token(60, "client", iat=None) if bad else keys.token(60), 60)

        device = Device(f"ws://127.0.0.1:{gateway.port}/mqtt", BadAtFirst(), "bad-header", profile="bearer-header")
        with device:
            device.publish(b"here")
            device.await_heard(b"here")
        assert (gateway.accepted, gateway.refused) == (1, 1)
        assert [event.reason for event in device.events if isinstance(event, TokenRefused)] == [0x87]


class AwsIotOnAnyPort(AwsIot):
    """A test may not listen on 443."""

    def check(self, protocol: int, client_id: str, brokers: Any) -> None:
        pass


def test_aws_iot_is_offered_mqtt_by_alpn_and_its_name_by_sni(
    pki: Pki, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the wire; the broker is scripted, as this one cannot be had."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca))  # ALPN is for the TLS context that the client makes itself
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.certificate, pki.server.key)
    context.set_alpn_protocols(["x-amzn-mqtt-ca", "mqtt"])
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"mqtts://localhost:{listener.getsockname()[1]}"
        client = TokenClient(url, Minted(keys), client_id="pump-17", profile=AwsIotOnAnyPort("plant", "token"))
        client.connect(timeout=0)
        raw, _ = listener.accept()
        raw.settimeout(10)
        with context.wrap_socket(raw, server_side=True) as peer:
            chosen, connect = peer.selected_alpn_protocol(), peer.recv(4096)
        client.disconnect(timeout=0)
    assert (chosen, names) == ("mqtt", ["localhost"])
    assert b"?x-amz-customauthorizer-name=plant&token=" in connect


class Minted:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(600), 600)
