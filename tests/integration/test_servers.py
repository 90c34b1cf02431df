"""The servers do what the other tests rely on."""

from __future__ import annotations

import base64
import contextlib
import math
import queue
import random
import socket
import socketserver
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import jwt
import pytest
import requests
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.processes import accepts, wait_until
from devtools.servers.rabbitmq import RabbitMQ


def _token(oidc: AuthorizationServer, **form: str) -> requests.Response:
    data = {"grant_type": "client_credentials", "scope": oidc.scope, **form}
    return requests.post(oidc.token_endpoint, data, auth=(oidc.client_id, oidc.client_secret), timeout=5)


class TestAuthorizationServer:
    def test_issues_tokens_that_live_as_long_as_the_test_says(self, oidc: AuthorizationServer) -> None:
        oidc.config(at=5)
        first, second = (_token(oidc).json()["access_token"] for _ in range(2))
        claims = jwt.decode(first, options={"verify_signature": False})
        assert (claims["exp"] - claims["iat"], claims["aud"], claims["sub"]) == (5, "rabbitmq", oidc.client_id)
        assert claims["jti"] != jwt.decode(second, options={"verify_signature": False})["jti"]

    @pytest.mark.parametrize(("resource", "algorithm"), [("urn:test:mqtt", "RS256"), ("urn:test:mqtt-es", "ES256")])
    def test_signs_with_the_key_of_the_resource(self, oidc: AuthorizationServer, resource: str, algorithm: str) -> None:
        token = _token(oidc, resource=resource).json()["access_token"]
        key = jwt.PyJWKClient(oidc.jwks_uri).get_signing_key_from_jwt(token)
        assert jwt.decode(token, key, [algorithm], audience="rabbitmq")["iss"] == oidc.issuer

    def test_knows_a_client_whose_secret_must_be_form_encoded(self, oidc: AuthorizationServer) -> None:
        raw = (oidc.odd_client_id, oidc.odd_client_secret)
        form = {"grant_type": "client_credentials"}
        assert requests.post(oidc.token_endpoint, form, auth=raw, timeout=5).status_code in (400, 401)
        joined = ":".join(urllib.parse.quote_plus(part) for part in raw)
        headers = {"Authorization": f"Basic {base64.b64encode(joined.encode()).decode()}"}
        assert requests.post(oidc.token_endpoint, form, headers=headers, timeout=5).status_code == 200

    def test_fails_as_often_as_it_is_told_and_counts(self, oidc: AuthorizationServer) -> None:
        oidc.fail(429, retry_after=7, times=2)
        answers = [_token(oidc) for _ in range(3)]
        assert [(one.status_code, one.headers.get("Retry-After")) for one in answers] == [
            (429, "7"),
            (429, "7"),
            (200, None),
        ]
        oidc.fail(400, error="invalid_grant", times=None)
        assert [_token(oidc).json().get("error") for _ in range(3)] == ["invalid_grant"] * 3
        oidc.heal()
        assert _token(oidc).status_code == 200
        assert oidc.token_requests() == 7

    def test_comes_back_on_the_same_port_with_the_same_keys(self, oidc: AuthorizationServer) -> None:
        before = requests.get(oidc.jwks_uri, timeout=5).json()
        oidc.stop()
        with pytest.raises(requests.ConnectionError):
            requests.get(oidc.jwks_uri, timeout=5)
        oidc.start()
        assert requests.get(oidc.jwks_uri, timeout=5).json() == before

    def test_lets_a_device_in_when_a_person_approves(self, oidc: AuthorizationServer) -> None:
        form = {"client_id": oidc.device_client_id, "scope": "offline_access"}
        asked = requests.post(f"{oidc.issuer}/device/auth", form, timeout=5).json()
        grant = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "client_id": oidc.device_client_id,
            "device_code": asked["device_code"],
        }
        polls = [requests.post(oidc.token_endpoint, grant, timeout=5).json()["error"] for _ in range(2)]
        assert polls == ["authorization_pending", "slow_down"]
        oidc.approve(asked["user_code"])
        assert "refresh_token" in requests.post(oidc.token_endpoint, grant, timeout=5).json()


class Device:
    """A paho client with just enough around it to wait for what happens."""

    def __init__(self, client_id: str, token: str, protocol: int = 5, ca: Path | None = None) -> None:
        version = MQTTProtocolVersion(protocol)
        keep: dict[str, Any] = {"clean_session": False} if protocol == 4 else {}
        self.client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, **keep)
        self.client.username_pw_set(client_id, token)
        if ca:
            self.client.tls_set(str(ca))
        self.connacks: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()
        self.ends: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.subscribed = threading.Event()
        self.received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.client.on_connect = lambda _c, _u, flags, code, _p: self.connacks.put((code.value, flags.session_present))
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: self.ends.put(code.value)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = lambda _c, _u, message: self.received.put(bytes(message.payload))

    def connect(self, port: int) -> tuple[int, bool]:
        """The CONNACK: reason code, and whether the session was present."""
        keep: dict[str, Any] = {}
        if self.client.protocol == MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            keep = {"clean_start": False, "properties": properties}
        self.client.connect("localhost", port, **keep)
        self.client.loop_start()
        return self.connacks.get(timeout=5)

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic, qos=1)
        assert self.subscribed.wait(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def _drain(messages: queue.SimpleQueue[bytes]) -> Iterator[bytes]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield messages.get_nowait()


class TestMosquitto:
    @pytest.mark.parametrize("protocol", [4, 5])
    def test_takes_the_tokens_of_the_authorization_server(
        self, mosquitto: Mosquitto, oidc: AuthorizationServer, pki: Pki, protocol: int
    ) -> None:
        for resource in ("urn:test:mqtt", "urn:test:mqtt-es"):
            token = _token(oidc, resource=resource).json()["access_token"]
            with Device("plain", token, protocol) as plain, Device("tls", token, protocol, pki.ca) as tls:
                assert plain.connect(mosquitto.port)[0] == 0
                assert tls.connect(mosquitto.tls_port)[0] == 0
        assert (mosquitto.accepted("plain"), mosquitto.accepted("tls")) == (2, 2)

    def test_refuses_a_token_that_has_ended_or_is_not_signed_right(self, mosquitto: Mosquitto, keys: Keys) -> None:
        for token in (keys.token(-1), keys.token(key="client"), keys.token(aud="other"), "no token"):
            with Device("bad", token) as device:
                assert device.connect(mosquitto.port)[0] == 0x87
        assert (mosquitto.accepted("bad"), mosquitto.refused("bad")) == (0, 4)

    def test_ends_a_connection_with_its_token_and_publishes_the_will(self, mosquitto: Mosquitto, keys: Keys) -> None:
        with Device("observer", keys.token()) as observer, Device("short", keys.token(2)) as device:
            observer.connect(mosquitto.port)
            observer.subscribe("will/short")
            device.client.will_set("will/short", b"gone", qos=1)
            assert device.connect(mosquitto.port)[0] == 0
            assert device.ends.get(timeout=5) == 0x98
            assert observer.received.get(timeout=5) == b"gone"
        assert mosquitto.sent("will/short") == 1

    def test_shows_a_certificate_for_another_host_where_asked(self, mosquitto: Mosquitto, pki: Pki) -> None:
        context = ssl.create_default_context(cafile=str(pki.ca))
        for port, host in ((mosquitto.tls_port, "localhost"), (mosquitto.other_host_tls_port, "other.example")):
            with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw, server_hostname=host):
                pass
        with (
            socket.create_connection(("127.0.0.1", mosquitto.other_host_tls_port)) as raw,
            pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
        ):
            context.wrap_socket(raw, server_hostname="localhost")

    def test_keeps_through_a_sigkill_whatever_it_acknowledged_when_asked_to_save(
        self, mosquitto: Mosquitto, keys: Keys
    ) -> None:
        with Device("sleeper", keys.token()) as sleeper:
            sleeper.connect(mosquitto.port)
            sleeper.subscribe("sleeper/#")
        sent: dict[int, bytes] = {}
        acknowledged: list[int] = []
        with Device("sender", keys.token()) as sender:
            sender.client.on_publish = lambda _c, _u, mid, _r, _p: acknowledged.append(mid)
            sender.connect(mosquitto.port)
            while sender.ends.empty():
                payload = str(len(sent)).encode()
                sent[sender.client.publish("sleeper/x", payload, qos=1).mid] = payload
                if len(sent) == 100:
                    threading.Thread(target=mosquitto.kill, kwargs={"save": True}).start()
                time.sleep(0.0005)
            before = list(acknowledged)
        assert len(before) > 50
        mosquitto.reset()
        with Device("sleeper", keys.token()) as sleeper:
            assert sleeper.connect(mosquitto.port) == (0, True)
            arrived = {sleeper.received.get(timeout=5) for _ in before}
            assert {sent[mid] for mid in before} <= arrived | set(_drain(sleeper.received))

    def test_forgets_its_sessions_at_a_sigkill_otherwise(self, mosquitto: Mosquitto, keys: Keys) -> None:
        with Device("forgotten", keys.token()) as device:
            device.connect(mosquitto.port)
        mosquitto.kill()
        assert not accepts(mosquitto.port)
        mosquitto.start()
        with Device("forgotten", keys.token()) as device:
            assert device.connect(mosquitto.port) == (0, False)
            device.client.disconnect()
        mosquitto.stop()
        mosquitto.start()
        with Device("forgotten", keys.token()) as device:
            assert device.connect(mosquitto.port) == (0, True)


class TestRabbitMQ:
    def test_takes_the_tokens_of_the_authorization_server_and_no_bad_ones(
        self, rabbitmq: RabbitMQ, oidc: AuthorizationServer, keys: Keys
    ) -> None:
        for resource in ("urn:test:mqtt", "urn:test:mqtt-es"):
            with Device("good", _token(oidc, resource=resource).json()["access_token"], 4) as device:
                assert device.connect(rabbitmq.port)[0] == 0
        for token, code in ((keys.token(-1), 0x86), (keys.token(key="client"), 0x86), (keys.token(scope=""), 0x87)):
            with Device("bad", token, 4) as device:
                assert device.connect(rabbitmq.port)[0] == code
        wait_until(lambda: rabbitmq.accepted("good") == 2, "two lines in the log")
        assert rabbitmq.accepted("bad") == 0

    def test_keeps_sessions_and_queued_messages_through_a_sigkill(self, rabbitmq: RabbitMQ, keys: Keys) -> None:
        with Device("sleeper", keys.token(), 4) as sleeper:
            sleeper.connect(rabbitmq.port)
            sleeper.subscribe("sleeper/#")
        with Device("sender", keys.token(), 4) as sender:
            sender.connect(rabbitmq.port)
            sender.client.publish("sleeper/x", b"kept", qos=1).wait_for_publish(5)
        rabbitmq.kill()
        assert not accepts(rabbitmq.port)
        rabbitmq.start()
        with Device("sleeper", keys.token(), 4) as sleeper:
            assert sleeper.connect(rabbitmq.port) == (0, True)
            assert sleeper.received.get(timeout=5) == b"kept"


class TestHiveMQ:
    @pytest.mark.parametrize("protocol", [4, 5])
    def test_takes_the_tokens_of_the_authorization_server(
        self, hivemq: HiveMQ, oidc: AuthorizationServer, pki: Pki, protocol: int
    ) -> None:
        for resource in ("urn:test:mqtt", "urn:test:mqtt-es"):
            token = _token(oidc, resource=resource).json()["access_token"]
            with Device("plain", token, protocol) as plain, Device("tls", token, protocol, pki.ca) as tls:
                assert plain.connect(hivemq.port)[0] == 0
                assert tls.connect(hivemq.tls_port)[0] == 0
        assert (hivemq.accepted("plain"), hivemq.accepted("tls")) == (2, 2)

    def test_refuses_a_token_that_has_ended_or_is_not_signed_right(self, hivemq: HiveMQ, keys: Keys) -> None:
        for token in (keys.token(-1), keys.token(key="client"), keys.token(aud="other"), "no token"):
            with Device("bad", token) as device:
                assert device.connect(hivemq.port)[0] == 0x87
        assert (hivemq.accepted("bad"), hivemq.refused("bad")) == (0, 4)

    def test_ends_a_connection_with_its_token_and_publishes_the_will(self, hivemq: HiveMQ, keys: Keys) -> None:
        with Device("observer", keys.token()) as observer, Device("short", keys.token(2)) as device:
            observer.connect(hivemq.port)
            observer.subscribe("will/short")
            device.client.will_set("will/short", b"gone", qos=1)
            assert device.connect(hivemq.port)[0] == 0
            assert device.ends.get(timeout=5) == 0xA0
            assert observer.received.get(timeout=5) == b"gone"


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while data := self.request.recv(65_536):
                    self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class TestDelayProxy:
    def test_a_round_trip_takes_what_was_set_and_opening_a_connection_one_more(
        self, echo: int, delay: Callable[..., DelayProxy]
    ) -> None:
        proxy = delay(echo, round_trip=0.04)
        taken = []
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            for _ in range(20):
                connection.sendall(b"ping")
                assert connection.recv(4) == b"ping"
                taken.append(time.monotonic() - began)
                began = time.monotonic()
        assert taken[0] >= 0.08
        assert min(taken) >= 0.04
        assert min(taken) < 0.043
        assert sorted(taken)[10] < 0.05

    def test_bytes_arrive_in_order_and_whole_and_the_end_after_them(
        self, echo: int, delay: Callable[..., DelayProxy]
    ) -> None:
        proxy = delay(echo)
        sent = random.Random(1).randbytes(4_000_000)
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:

            def send() -> None:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)

            threading.Thread(target=send).start()
            assert b"".join(iter(lambda: connection.recv(65_536), b"")) == sent
        wait_until(lambda: proxy.open == 0, "the proxy forgets the connection")

    def test_cuts_refuses_and_accepts_again(self, echo: int, delay: Callable[..., DelayProxy]) -> None:
        proxy = delay(echo)
        address = ("127.0.0.1", proxy.port)
        with socket.create_connection(address) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            connection.sendall(b"y")
            assert connection.recv(1) == b"y"
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        proxy.accept()
        socket.create_connection(address).close()
        wait_until(lambda: proxy.connections == 2, "the second connection")

    def test_tells_what_it_sees_and_cuts_one_connection_of_several(
        self, echo: int, delay: Callable[..., DelayProxy]
    ) -> None:
        proxy = delay(echo)
        address = ("127.0.0.1", proxy.port)
        seen: list[tuple[int, str, bytes]] = []
        proxy.watch = lambda number, what, data: seen.append((number, what, data))
        with socket.create_connection(address) as first:
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            with socket.create_connection(address) as second:
                second.sendall(b"y")
                assert second.recv(1) == b"y"
                assert proxy.cut(1)
                assert not proxy.cut(1)
                with pytest.raises(ConnectionResetError):
                    first.recv(1)
                proxy.watch = lambda number, what, data: proxy.cut(number)  # before the bytes go on
                second.sendall(b"z")
                with pytest.raises(ConnectionResetError):
                    second.recv(1)
        both = [(number, what, data) for number, data in ((1, b"x"), (2, b"y")) for what in ("up", "down")]
        assert seen == [(1, "opened", b""), *both[:2], (2, "opened", b""), *both[2:]]

    def test_an_infinite_round_trip_is_silence(self, echo: int, delay: Callable[..., DelayProxy]) -> None:
        proxy = delay(echo, round_trip=math.inf)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as connection:
            connection.sendall(b"x")
            with pytest.raises(TimeoutError):
                connection.recv(1)
