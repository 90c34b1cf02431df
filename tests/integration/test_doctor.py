# ruff: noqa: F811 - fixtures are arguments
"""mqtt-token doctor: what it names as the cause of planted faults, and what it says when all is well."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from authlib.oauth2.rfc6749.errors import InvalidScopeError
from click.testing import CliRunner, Result

from devtools.servers.keys import RIGHTS
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer as OidcProvider
from devtools.servers.pki import Certificate, Pki
from devtools.servers.processes import wait_until
from devtools.servers.rabbitmq import RabbitMQ
from devtools.servers.secret_service import Session
from mqtt_token_client import Backoff, ClientCredentials, KeyringStore, TokenClient
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.cli.doctor import broker as doctor_broker
from mqtt_token_client.mqtt.transport import open as transport
from mqtt_token_client.testing import AuthorizationServer, Broker, authorization_server
from mqtt_token_client.testing.device_clock import DeviceClock
from mqtt_token_client.testing.plugin import broker, clock, idp, token_source  # noqa: F401 - as fixtures
from tests.integration.test_secret_service import session as secret_service  # noqa: F401 - a fixture
from tests.unit.scripted_broker import Peer, ScriptedBroker


class Device:
    """A configuration file, which a test changes, and what doctor says about it."""

    def __init__(self, folder: Path, idp: AuthorizationServer, broker: Broker) -> None:
        self.folder = folder
        self.secret = folder / "secret"
        self.secret.write_text(idp.client_secret)
        self.secret.chmod(0o600)
        self.top: dict[str, Any] = {"broker": broker.url, "client_id": "pump-17", "store": f"file:{folder / 'store'}"}
        self.source: dict[str, Any] = {
            "type": "client_credentials",
            "issuer": idp.issuer,
            "client_id": idp.client_id,
            "client_secret_file": "secret",
        }

    def doctor(self, *options: str) -> Result:
        file = self.folder / "mqtt-token.toml"
        tables = (self.top, self.source)
        lines = ["\n".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) for table in tables]
        file.write_text("\n[source]\n".join(lines))
        return CliRunner().invoke(mqtt_token, ["doctor", "-c", str(file), "--timeout", "5", *options])

    def cause(self, timeout: float = 5) -> dict[str, str]:
        """The cause that it names; what is retried is tried for so many seconds."""
        result = self.doctor("--json", "--timeout", str(timeout))
        assert result.exit_code, result.output
        cause: dict[str, str] = json.loads(result.stdout)["cause"]
        return cause


@pytest.fixture
def device(tmp_path: Path, idp: AuthorizationServer, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(doctor_broker, "_PEACE", 0.5)
    return Device(tmp_path, idp, broker)


@contextlib.contextmanager
def tls_server(certificate: Certificate) -> Iterator[int]:
    """Accepts TLS connections, and closes them; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as sock:
                        sock.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_device_whose_setup_is_right_passes_each_step(device: Device, broker: Broker) -> None:
    result = device.doctor()
    assert (result.exit_code, result.output.endswith("\nAll is well.\n")) == (0, True), result.output
    steps = [line.split("  ")[0] for line in result.output.splitlines() if "  " in line]
    assert steps == [
        *("configuration", "system", "store", "authorization server", "token", "clock", "claims"),
        *("connection", "login", "publish", "subscribe"),
    ]
    wait_until(lambda: broker.client_ids == set(), "the broker has read DISCONNECT")


@pytest.mark.parametrize(("scheme", "about"), [("ws", ", not encrypted"), ("wss", ", TLSv1.3, certificate until ")])
def test_a_device_that_connects_by_websocket_passes_each_step(
    device: Device, oidc: OidcProvider, mosquitto: Mosquitto, pki: Pki, scheme: str, about: str
) -> None:
    device.secret.write_text(oidc.client_secret)
    device.source |= {"issuer": oidc.issuer, "client_id": oidc.client_id}
    if scheme == "ws":
        device.top["broker"] = f"ws://localhost:{mosquitto.ws_port}/mqtt"
    else:
        device.top |= {"broker": f"wss://localhost:{mosquitto.wss_port}/mqtt", "ca_bundle": str(pki.ca)}
    result = device.doctor()
    assert (result.exit_code, result.output.endswith("\nAll is well.\n")) == (0, True), result.output
    (connection,) = (line for line in result.output.splitlines() if line.startswith("connection "))
    assert about in connection


def test_no_secret_is_shown(device: Device, idp: AuthorizationServer, broker: Broker) -> None:
    broker.reject(0x87, times=2)
    output = device.doctor().output + device.doctor("--json").output
    assert idp.client_secret not in output
    assert "eyJ" not in output  # how every JWT begins


def test_messages_that_wait_for_the_device_are_left_to_it(
    device: Device, broker: Broker, token_source: ClientCredentials
) -> None:
    received: list[bytes] = []
    client = TokenClient(broker.url, token_source, client_id="pump-17")
    client.subscribe("pump/17/command", lambda message: received.append(message.payload))
    with client:
        client.publish("pump/17/ready", "", qos=1).wait(5)
    broker.publish("pump/17/command", "stop", qos=1)
    assert device.doctor().exit_code == 0
    client = TokenClient(broker.url, token_source, client_id="pump-17")
    client.subscribe("pump/17/command", lambda message: received.append(message.payload))
    with client:
        deadline = time.monotonic() + 5
        while not received and time.monotonic() < deadline:
            time.sleep(0.01)
    assert received == [b"stop"]


# Planted faults


def test_an_unknown_entry(device: Device) -> None:
    device.top["brokr"] = "x"
    cause = device.cause()
    assert (cause["step"], "brokr: unknown entry" in cause["saw"]) == ("configuration", True)


def test_a_missing_credential(device: Device) -> None:
    device.secret.unlink()
    cause = device.cause()
    assert (cause["step"], "client_secret_file" in cause["saw"]) == ("configuration", True)


def test_a_full_disk(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=0))
    cause = device.cause()
    assert (cause["step"], "0 bytes left" in cause["saw"]) == ("system", True)


def test_a_store_that_cannot_be_written(device: Device) -> None:
    (device.folder / "a file").write_text("")
    device.top["store"] = f"file:{device.folder / 'a file' / 'store'}"
    assert device.cause()["step"] in ("configuration", "store")


def test_a_file_system_without_flock(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    cause = device.cause()
    assert (cause["step"], "lock" in cause["saw"]) == ("store", True)


def test_a_wrong_issuer(device: Device) -> None:
    device.source["issuer"] += "/realms/plant"
    cause = device.cause()
    assert (cause["step"], "check the issuer" in cause["saw"]) == ("authorization server", True)


def test_an_issuer_that_another_server_answers_for(device: Device) -> None:
    device.source["issuer"] = device.source["issuer"].replace("127.0.0.1", "localhost")
    cause = device.cause()
    assert (cause["step"], "letter by letter" in cause["saw"]) == ("authorization server", True)


def test_an_authorization_server_that_is_not_there(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    device.source["issuer"] = f"http://127.0.0.1:{port}"
    cause = device.cause()
    assert (cause["step"], "refused" in cause["saw"]) == ("authorization server", True)


def test_a_captive_portal(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as portal:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = portal.accept()
                    with connection:
                        connection.recv(4096)
                        page = b"<html>Welcome to the hotel</html>"
                        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
                        connection.sendall(head.encode() + page)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        device.source["issuer"] = f"http://127.0.0.1:{portal.getsockname()[1]}"
        cause = device.cause()
        portal.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert (cause["step"], "not a JSON object" in cause["saw"]) == ("authorization server", True)


def test_a_wrong_client_secret(device: Device) -> None:
    device.secret.write_text("wrong")
    cause = device.cause()
    assert (cause["step"], "check client_id and client_secret" in cause["saw"]) == ("token", True)


def test_a_wrong_client_id(device: Device) -> None:
    device.source["client_id"] = "nobody"
    cause = device.cause()
    assert (cause["step"], "check client_id" in cause["saw"]) == ("token", True)


def test_a_wrong_audience(device: Device, idp: AuthorizationServer, broker: Broker) -> None:
    idp.audience = "somebody else"
    broker._issuer = SimpleNamespace(issuer=idp.issuer, audience="mqtt", jwks=idp.jwks)
    cause = device.cause()
    assert (cause["step"], "aud='somebody else'" in cause["saw"]) == ("login", True)


def test_a_key_that_is_not_in_the_jwks(
    device: Device, idp: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AuthorizationServer() as other:
        keys = other.jwks
    monkeypatch.setattr(AuthorizationServer, "jwks", keys)
    with Broker(SimpleNamespace(issuer=idp.issuer, audience="mqtt", jwks=keys)) as strict:
        device.top["broker"] = strict.url
        cause = device.cause()
    assert (cause["step"], "not in the server's JWKS" in cause["saw"]) == ("signing keys", True)


def test_a_broker_that_is_not_there(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        device.top["broker"] = f"mqtt://127.0.0.1:{taken.getsockname()[1]}"
    cause = device.cause()
    assert (cause["step"], "refused" in cause["saw"]) == ("connection", True)


def test_a_host_name_that_does_not_exist(device: Device) -> None:
    device.top["broker"] = "mqtts://broker.invalid"
    assert device.cause()["step"] == "connection"


def test_tls_to_a_port_without_it(device: Device) -> None:
    device.top["broker"] = device.top["broker"].replace("mqtt:", "mqtts:")
    cause = device.cause()
    assert (cause["step"], "TLS" in cause["saw"]) == ("connection", True), cause


def test_no_tls_to_a_port_with_it(device: Device, pki: Pki) -> None:
    with tls_server(pki.server) as port:
        device.top["broker"] = f"mqtt://127.0.0.1:{port}"
        cause = device.cause()
    assert (cause["step"], "mqtts://" in cause["saw"]) == ("login", True)


def test_an_authority_that_is_not_trusted(device: Device, pki: Pki) -> None:
    with tls_server(pki.server) as port:
        device.top["broker"] = f"mqtts://localhost:{port}"
        cause = device.cause()
    assert (cause["step"], "ca_bundle" in cause["saw"]) == ("connection", True)


def test_a_certificate_for_another_host(device: Device, pki: Pki) -> None:
    with tls_server(pki.other_host) as port:
        device.top |= {"broker": f"mqtts://localhost:{port}", "ca_bundle": str(pki.ca)}
        cause = device.cause()
    assert (cause["step"], "another host" in cause["saw"] or "localhost" in cause["saw"]) == ("connection", True)


def test_a_certificate_that_has_expired(device: Device, pki: Pki) -> None:
    with tls_server(pki.issue_for_days(-20, -10)) as port:
        device.top |= {"broker": f"mqtts://localhost:{port}", "ca_bundle": str(pki.ca)}
        cause = device.cause()
    assert (cause["step"], "expired" in cause["saw"]) == ("connection", True)


def test_a_clock_that_is_wrong_where_a_certificate_is_not_valid_by_it(
    device: Device, pki: Pki, clock: DeviceClock
) -> None:
    clock.set_wrong(hours=-24 * 365)
    with tls_server(pki.issue_for_days(-20, -10)) as port:
        device.top |= {"broker": f"mqtts://localhost:{port}", "ca_bundle": str(pki.ca)}
        cause = device.cause()
    assert (cause["step"], "behind the server's" in cause["saw"]) == ("clock", True)


def test_a_clock_that_is_wrong_is_noted_where_it_harms_nothing(device: Device, clock: DeviceClock) -> None:
    clock.set_wrong(hours=1)
    result = device.doctor()
    assert result.exit_code == 0
    assert "this machine's clock is 60 min ahead of the server's" in result.output


def test_a_proxy_that_is_not_there(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        device.top["proxy"] = f"http://127.0.0.1:{taken.getsockname()[1]}"
    cause = device.cause()
    assert (cause["step"], "proxy" in cause["saw"]) == ("connection", True)


@contextlib.contextmanager
def broker_that(answers: Callable[[Peer], None]) -> Iterator[str]:
    """A broker that answers CONNECT like this, once; yields its URL."""
    scripted = ScriptedBroker()

    def serve() -> None:
        scripted.accept().expect_end()  # the look at the connection
        peer = scripted.accept()
        assert peer.packet()
        answers(peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield scripted.url
    thread.join(5)
    scripted.close()


def test_a_version_of_mqtt_that_the_broker_does_not_speak(device: Device) -> None:
    with broker_that(lambda peer: peer.connack(0x84)) as device.top["broker"]:
        cause = device.cause()
    assert (cause["step"], "try the other protocol" in cause["saw"]) == ("login", True)


def add_claims(patch: pytest.MonkeyPatch, size: int) -> None:
    """Let the authorization server's tokens have so many bytes of roles."""
    generator = authorization_server._TokenGenerator
    usual = generator.get_extra_claims
    patch.setattr(generator, "get_extra_claims", lambda *of: usual(*of) | {"roles": "r" * size})


def test_a_token_that_is_too_large_for_mqtt(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    add_claims(monkeypatch, 66_000)
    cause = device.cause()
    assert (cause["step"], "MQTT accepts at most 65535; use a token with fewer claims" in cause["saw"]) == (
        "token",
        True,
    )


def test_a_token_that_is_too_large_for_a_broker_whose_limit_is_known(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.top |= {"profile": "rabbitmq", "client_id": "p" * 1000}
    add_claims(monkeypatch, 48_000)
    cause = device.cause()
    assert (cause["step"], "the broker accepts 65536; ask for a token with fewer claims" in cause["saw"]) == (
        "login",
        True,
    ), cause


def test_a_token_that_is_too_large_for_a_broker_that_says_so(device: Device) -> None:
    with broker_that(lambda peer: peer.connack(0x95)) as device.top["broker"]:
        cause = device.cause()
    assert (cause["step"], "ask for a token with fewer claims" in cause["saw"]) == ("login", True)


def test_a_token_that_is_too_large_for_a_broker_that_says_nothing(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_claims(monkeypatch, 5000)
    with broker_that(Peer.close) as device.top["broker"]:
        cause = device.cause(timeout=2)
    assert (cause["step"], "the token may be too large" in cause["fix"]) == ("login", True)


def test_a_small_token_is_not_called_too_large(device: Device) -> None:
    with broker_that(Peer.close) as device.top["broker"]:
        cause = device.cause(timeout=2)
    assert (cause["step"], cause["fix"]) == ("login", "")


def test_a_port_that_a_firewall_blocks(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_TIMEOUT", 0.5)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # a full queue: the kernel does not answer any more
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        device.top["broker"] = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        cause = device.cause()
    assert (cause["step"], "a firewall blocks port" in cause["fix"]) == ("connection", True), cause


def test_a_scope_that_the_server_does_not_know(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def validate(_server: object, _scope: str) -> None:
        raise InvalidScopeError

    monkeypatch.setattr("authlib.oauth2.AuthorizationServer.validate_requested_scope", validate)
    device.source["scope"] = "mqqt"
    cause = device.cause()
    assert (cause["step"], "scope" in cause["saw"]) == ("token", True), cause


def test_a_scope_that_the_server_does_not_grant(
    device: Device, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authorization_server._Client, "get_allowed_scope", lambda *_: "read")
    device.source["scope"] = "read write"
    assert device.doctor().exit_code == 0
    broker.forbid("pump-17/#")  # as the broker does for whom the token lacks the scope
    cause = device.cause()
    assert (cause["step"], "did not grant the scope 'write'" in cause["saw"]) == ("token", True), cause


def test_a_keyring_that_is_locked(device: Device, secret_service: Session) -> None:
    device.top["store"] = "keyring"
    secret_service.start_keyring()
    KeyringStore().delete("nobody's")  # the keyring is there from now on
    assert device.doctor().exit_code == 0
    secret_service.stop_keyring()
    secret_service.start_keyring(None)
    cause = device.cause()
    assert (cause["step"], "KeyringLocked" in cause["saw"], "unlock the keyring" in cause["fix"]) == (
        "store",
        True,
        True,
    )


@pytest.fixture
def at_rabbitmq(device: Device, oidc: OidcProvider, rabbitmq: RabbitMQ) -> Device:
    device.secret.write_text(oidc.client_secret)
    device.source |= {"issuer": oidc.issuer, "client_id": oidc.client_id, "scope": RIGHTS}
    device.top |= {"broker": f"mqtt://127.0.0.1:{rabbitmq.port}", "protocol": 4}
    return device


def test_a_user_name_that_rabbitmq_takes_for_a_virtual_host(at_rabbitmq: Device) -> None:
    at_rabbitmq.top["client_id"] = "nowhere:pump"
    cause = at_rabbitmq.cause(timeout=2)
    assert (cause["step"], "the user name 'nowhere:pump'" in cause["saw"]) == ("login", True), cause
    assert "RabbitMQ takes 'nowhere' for the virtual host" in cause["saw"]


def test_a_broker_that_is_unavailable_perhaps_for_want_of_a_permission(device: Device) -> None:
    with broker_that(lambda peer: peer.connack(0x88)) as device.top["broker"]:
        cause = device.cause(timeout=2)
    assert (cause["step"], "the token's scope lacks a permission" in cause["fix"]) == ("login", True), cause


@pytest.mark.parametrize("timeout", [2, 30], ids=["in doubt", "found to be the cause"])
def test_a_topic_at_which_the_broker_ends_the_connection(at_rabbitmq: Device, timeout: int) -> None:
    at_rabbitmq.top["client_id"] = "pump-without-topics"  # RabbitMQ remembers what one has subscribed to
    at_rabbitmq.source["scope"] = "rabbitmq.read:*/* rabbitmq.write:*/* rabbitmq.configure:*/*"  # none of a topic
    cause = at_rabbitmq.cause(timeout)
    assert (cause["step"], "ends the connection when" in cause["saw"]) == ("publish", True), cause
    assert "in the token's scope" in cause["fix"]


def test_two_clients_with_one_client_id(device: Device, broker: Broker, token_source: ClientCredentials) -> None:
    impatient = Backoff(initial=0.2, maximum=0.2)
    with TokenClient(broker.url, token_source, client_id="pump-17", backoff=impatient):
        cause = device.cause()
    assert (cause["step"], "another client uses this client id" in cause["fix"]) == ("login", True)


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_topic_that_the_device_may_not_use(device: Device, broker: Broker, protocol: int) -> None:
    device.top["protocol"] = protocol
    broker.forbid("pump-17/#")
    cause = device.cause()
    assert (cause["step"] in ("publish", "subscribe"), "allow this client to" in cause["fix"]) == (True, True)


def test_a_person_who_has_to_log_in(device: Device, idp: AuthorizationServer) -> None:
    device.source = {"type": "device_flow", "issuer": idp.issuer, "client_id": idp.device_client_id}
    result = device.doctor()
    assert (result.exit_code, "run mqtt-token login" in result.output) == (3, True)
