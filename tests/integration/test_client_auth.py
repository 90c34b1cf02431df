"""Client authentication without a secret that is sent, and tokens that no server issues, against the real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from devtools.servers.secret_check import remember_secret
from devtools.servers.wrong_clock import WrongClock
from mqtt_token_client import (
    ClientCredentials,
    ClientSecretJWT,
    Event,
    MutualTLS,
    PrivateKeyJWT,
    PublicClient,
    Rotated,
    SignedJWT,
    TokenClient,
    TokenFile,
    TokenKeeper,
    TokenRequestRefused,
)
from mqtt_token_client.sources.oauth.client_auth import ClientAuthentication

YEAR = 365 * 86400


def source(oidc: AuthorizationServer, client_id: str, auth: ClientAuthentication, **more: Any) -> ClientCredentials:
    given = {"issuer": oidc.issuer, "client_id": client_id, "client_auth": auth, "ca_bundle": oidc.pki.ca}
    return ClientCredentials(**{**given, **more})


@pytest.fixture(params=["issuer", "token_endpoint"])
def where(request: pytest.FixtureRequest, oidc: AuthorizationServer) -> dict[str, str | None]:
    """Both ways to name the server."""
    return {"issuer": None, "token_endpoint": None} | {request.param: getattr(oidc, request.param)}


class TestAssertion:
    @pytest.mark.parametrize(
        ("client_id", "key", "algorithm"),
        [
            ("service-key-jwt", "client", "ES256"),
            ("service-key-jwt-rs", "client-rs", "RS256"),
            ("service-key-jwt-ed", "client-ed", "EdDSA"),
        ],
    )
    def test_by_private_key_is_understood_again_and_again(
        self, oidc: AuthorizationServer, keys: Keys, where: dict[str, str], client_id: str, key: str, algorithm: str
    ) -> None:
        auth = PrivateKeyJWT(keys.folder / f"{key}.pem", algorithm=algorithm)
        keeper = TokenKeeper(source(oidc, client_id, auth, **where))
        assert {keeper.renew().claims["sub"] for _ in range(3)} == {client_id}  # a jti that was used is refused
        assert oidc.token_requests() == 3

    def test_names_its_key(self, oidc: AuthorizationServer, keys: Keys) -> None:
        pem = (keys.folder / "client.pem").read_bytes()
        assert source(oidc, "service-key-jwt", PrivateKeyJWT(pem, key_id="client")).fetch(None)
        with pytest.raises(TokenRequestRefused, match="invalid_client"):
            source(oidc, "service-key-jwt", PrivateKeyJWT(pem, key_id="another")).fetch(None)

    def test_by_client_secret_is_understood(self, oidc: AuthorizationServer, where: dict[str, str]) -> None:
        auth = ClientSecretJWT(oidc.client_secret)
        assert source(oidc, "service-secret-jwt", auth, **where).fetch(None).claims["sub"] == "service-secret-jwt"

    def test_by_another_key_or_for_somebody_else_is_refused_once(self, oidc: AuthorizationServer, keys: Keys) -> None:
        right = keys.folder / "client.pem"
        wrong = [PrivateKeyJWT(keys.folder / "es.pem"), PrivateKeyJWT(right, audience="https://elsewhere.example")]
        for requests, auth in enumerate(wrong, start=1):
            with pytest.raises(TokenRequestRefused) as caught:
                source(oidc, "service-key-jwt", auth).fetch(None)
            assert caught.value.error == "invalid_client"
            assert oidc.token_requests() == requests


class TestMutualTLS:
    @pytest.mark.parametrize("client_id", ["service-tls", "service-self-signed-tls"])
    def test_goes_to_the_alias_of_the_metadata(self, oidc: AuthorizationServer, client_id: str) -> None:
        auth = MutualTLS(oidc.pki.client.certificate, oidc.pki.client.key)
        keeper = TokenKeeper(source(oidc, client_id, auth))
        assert {keeper.renew().claims["sub"] for _ in range(2)} == {client_id}

    def test_needs_no_discovery(self, oidc: AuthorizationServer) -> None:
        auth = MutualTLS(oidc.pki.client.certificate, oidc.pki.client.key)
        given = source(oidc, "service-tls", auth, issuer=None, token_endpoint=oidc.tls_token_endpoint)
        assert given.fetch(None).claims["sub"] == "service-tls"

    @pytest.mark.parametrize("client_id", ["service-tls", "service-self-signed-tls"])
    def test_with_another_certificate_or_none_is_refused(self, oidc: AuthorizationServer, client_id: str) -> None:
        auth: ClientAuthentication
        for auth in (MutualTLS(oidc.pki.other_host.certificate, oidc.pki.other_host.key), PublicClient()):
            with pytest.raises(TokenRequestRefused) as caught:
                source(oidc, client_id, auth).fetch(None)
            assert caught.value.error == "invalid_client"


@pytest.mark.parametrize("offset", [-50 * YEAR, -YEAR, YEAR])
def test_a_device_whose_clock_is_wrong_by_years_signs_by_the_servers_time(
    offset: int, oidc: AuthorizationServer, keys: Keys, tmp_path: Path
) -> None:
    clock = WrongClock(tmp_path / "now")
    clock.set(offset)
    arguments = {
        "issuer": oidc.issuer,
        "token_endpoint": oidc.token_endpoint,
        "client_id": "service-key-jwt",
        "client_key": str(keys.folder / "client.pem"),
        "key": str(keys.folder / "es.pem"),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "signing_device.py")],
        input=json.dumps(arguments),
        env=clock.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert abs(result["clock"] - time.time() - offset) < 60  # the process did have a wrong clock
    jwks = jwt.PyJWKClient(oidc.jwks_uri)
    for name in ("discovered", "given"):
        remember_secret(result[name])
        key = jwks.get_signing_key_from_jwt(result[name])
        assert jwt.decode(result[name], key, audience="rabbitmq")["sub"] == "service-key-jwt"
    remember_secret(result["signed"])
    public = (keys.folder / "es.pub.pem").read_text()
    jwt.decode(result["signed"], public, ["ES256"], audience="rabbitmq")  # by this process's clock, which is right
    # Without discovery it is the first answer that tells the time; this server also takes an assertion of next year.
    assert oidc.token_requests() == (3 if offset < 0 else 2)


class Remembered:
    """A token source whose tokens the check of the debug log knows."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.key = source.key
        self.watch = getattr(source, "watch", None)

    def fetch(self, previous: Any) -> Any:
        token = self.source.fetch(previous)
        remember_secret(token.value)
        return token


def client(mosquitto: Mosquitto, source: Any, name: str, events: list[Event]) -> TokenClient:
    broker = f"mqtt://127.0.0.1:{mosquitto.port}"
    return TokenClient(broker, Remembered(source), client_id=name, on_event=events.append)


@pytest.mark.parametrize(("key", "algorithm"), [("es", "ES256"), ("rs", "RS256")])
def test_a_broker_takes_what_the_device_signs_itself(
    mosquitto: Mosquitto, keys: Keys, key: str, algorithm: str
) -> None:
    signed = SignedJWT(keys.folder / f"{key}.pem", algorithm, {"aud": "rabbitmq", "sub": "pump-17"}, 3600)
    events: list[Event] = []
    with client(mosquitto, signed, f"signed-{key}", events) as device:
        device.publish("pump/17", b"21.5", qos=1).wait(10)
        second = int(time.time())
        wait_until(lambda: int(time.time()) > second, "another second: RS256 signs the same claims to the same token")
        device.rotate()
        wait_until(lambda: any(isinstance(event, Rotated) for event in events), "the rotation")
        device.publish("pump/17", b"21.5", qos=1).wait(10)
    assert mosquitto.refused(f"signed-{key}") == 0
    assert mosquitto.accepted(f"signed-{key}") == 2


def test_a_token_that_an_agent_renames_into_place_is_picked_up_at_once(
    mosquitto: Mosquitto, keys: Keys, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(keys.token(60))
    events: list[Event] = []
    with client(mosquitto, TokenFile(path), "from-file", events) as device:
        device.publish("pump/17", b"21.5", qos=1).wait(10)
        (tmp_path / "new").write_text(keys.token(600) + "\n")
        (tmp_path / "new").replace(path)
        wait_until(lambda: any(isinstance(event, Rotated) for event in events), "the rotation")
        device.publish("pump/17", b"21.5", qos=1).wait(10)
        left = device.token_expires_in
        assert left is not None
        assert left > 500
    assert mosquitto.refused("from-file") == 0
