"""Client assertions: what they say, which keys they take, and what becomes of one that a wrong clock made."""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from mqtt_token_client import Event, LoginRequired, MemoryStore, Token, TokenKeeper
from mqtt_token_client.clock import ServerClock
from mqtt_token_client.errors import ConfigurationError, TokenError, TokenRequestRefused
from mqtt_token_client.sources.oauth.client_assertion import ClientSecretJWT, PrivateKeyJWT
from mqtt_token_client.sources.oauth.client_auth import ClientAuthentication, ClientSecretPost, TokenRequest
from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials
from mqtt_token_client.sources.oauth.device_flow import DeviceFlow

from .oauth_server import HANG_UP, OAuthServer, answer, token_answer

ISSUER = "https://id.example.com"
METADATA = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}
SECRET = "a client secret of thirty-two bytes or more, some of them ä and €"
YEAR = 365 * 86400


def pem(key: Any, passphrase: bytes | None = None) -> str:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    made: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return made.decode()


EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
EC_PEM = pem(EC)


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def request(clock: ServerClock | None = None, metadata: dict[str, str] = METADATA) -> TokenRequest:
    return TokenRequest("pump-17", f"{ISSUER}/token", metadata, clock or ServerClock(), [("grant_type", "x")])


def asserted(auth: ClientAuthentication, to: TokenRequest | None = None) -> str:
    to = to or request()
    auth.authenticate(to)
    return dict(to.form)["client_assertion"]


def claims(assertion: str) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(assertion, options={"verify_signature": False})
    return read


class TestAssertion:
    @pytest.mark.parametrize(("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256"), (ED, "EdDSA")])
    def test_is_signed_with_the_private_key(self, key: Any, algorithm: str) -> None:
        assertion = asserted(PrivateKeyJWT(pem(key), algorithm=algorithm))
        decoded = jwt.decode(assertion, key.public_key(), [algorithm], audience=ISSUER, issuer="pump-17")
        assert decoded["sub"] == "pump-17"

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_is_keyed_with_the_client_secret_which_is_not_sent(self, algorithm: str) -> None:
        to = request()
        decoded = jwt.decode(
            asserted(ClientSecretJWT(SECRET, algorithm=algorithm), to), SECRET, [algorithm], audience=ISSUER
        )
        assert (decoded["iss"], decoded["sub"], decoded["exp"] - decoded["iat"]) == ("pump-17", "pump-17", 60)
        assert SECRET not in str(to.form)

    @pytest.mark.parametrize("auth", [PrivateKeyJWT(EC_PEM), ClientSecretJWT(SECRET)])
    def test_goes_into_the_form_with_its_type_and_the_client_id(self, auth: ClientAuthentication) -> None:
        to = request()
        auth.authenticate(to)
        names = [name for name, _ in to.form]
        assert names == ["grant_type", "client_id", "client_assertion_type", "client_assertion"]
        assert dict(to.form)["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert to.headers == {}

    def test_has_an_id_of_its_own_each_time(self) -> None:
        auth = PrivateKeyJWT(EC_PEM)
        assert len({claims(asserted(auth))["jti"] for _ in range(10)}) == 10

    def test_is_for_the_issuer_else_for_the_token_endpoint_or_for_whom_it_is_told(self) -> None:
        endpoint_only = {"token_endpoint": f"{ISSUER}/token"}
        assert claims(asserted(PrivateKeyJWT(EC_PEM)))["aud"] == ISSUER
        assert claims(asserted(PrivateKeyJWT(EC_PEM), request(metadata=endpoint_only)))["aud"] == f"{ISSUER}/token"
        assert claims(asserted(PrivateKeyJWT(EC_PEM, audience="urn:it")))["aud"] == "urn:it"
        assert claims(asserted(ClientSecretJWT(SECRET, audience="urn:it")))["aud"] == "urn:it"

    @pytest.mark.parametrize("of_wall_clock", [-50 * YEAR, YEAR])
    def test_is_timed_by_the_servers_clock(self, monkeypatch: pytest.MonkeyPatch, of_wall_clock: int) -> None:
        right = time.time()
        clock = ServerClock()
        clock.learn(formatdate(right, usegmt=True))
        monkeypatch.setattr(time, "time", lambda: right + of_wall_clock)
        decoded = claims(asserted(PrivateKeyJWT(EC_PEM, lifetime=30), request(clock)))
        assert right - 5 < decoded["iat"] < right  # somewhat in the past, as clocks differ
        assert decoded["exp"] - decoded["iat"] == 30
        assert "nbf" not in decoded

    def test_names_the_key_only_if_it_is_told_to(self) -> None:
        assert "kid" not in jwt.get_unverified_header(asserted(PrivateKeyJWT(EC_PEM)))
        assert jwt.get_unverified_header(asserted(PrivateKeyJWT(EC_PEM, key_id="2026")))["kid"] == "2026"


class TestKeyFile:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_that_is_exchanged_is_used_from_then_on(self, tmp_path: Path, kind: type) -> None:
        path = tmp_path / "device.pem"
        path.write_text(EC_PEM)
        auth = PrivateKeyJWT(kind(path))
        asserted(auth)
        newer = ec.generate_private_key(ec.SECP256R1())
        path.write_text(pem(newer))
        jwt.decode(asserted(auth), newer.public_key(), ["ES256"], audience=ISSUER)

    @pytest.mark.parametrize(
        "content",
        [None, "", EC_PEM[:100], pem(ED), "-----BEGIN PRIVATE KEY-----\nAAAA"],
        ids=["gone", "empty", "half", "of another kind", "damaged"],
    )
    def test_that_is_gone_or_half_written_is_trouble_that_passes(self, tmp_path: Path, content: str | None) -> None:
        path = tmp_path / "device.pem"
        path.write_text(EC_PEM)
        auth = PrivateKeyJWT(path)
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(TokenError, match=r"private_key: .*device\.pem") as caught:
            asserted(auth)
        assert not caught.value.permanent
        path.write_text(EC_PEM)
        asserted(auth)


class TestArguments:
    @pytest.mark.parametrize(
        ("key", "algorithm", "named"),
        [
            (pem(RSA), "ES256", "EC key on P-256"),
            (pem(ec.generate_private_key(ec.SECP384R1())), "ES256", "EC key on P-256"),
            (pem(ED), "RS256", "RSA key of 2048 bits"),
            (pem(rsa.generate_private_key(65537, 1024)), "RS256", "RSA key of 2048 bits"),
            (EC_PEM, "EdDSA", "Ed25519"),
            (pem(ed448.Ed448PrivateKey.generate()), "EdDSA", "Ed25519"),
            (pem(EC, b"passphrase"), "ES256", "passphrase"),
            (EC_PEM.replace("PRIVATE", "PUBLIC"), "ES256", "something else than a private key"),
            (EC_PEM[: len(EC_PEM) // 2], "ES256", "something else than a private key"),
            (EC_PEM.encode()[:-40], "ES256", "something else than a private key"),
            (b"", "ES256", "something else than a private key"),
            ("/no/such/file", "ES256", "must be PEM text, or the path"),
            ("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0w" * 10, "ES256", "must be PEM text, or the path"),
            (5, "ES256", "got int"),
            (None, "ES256", "got NoneType"),
        ],
    )
    def test_key_that_does_not_do_is_named_and_not_shown(self, key: Any, algorithm: str, named: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^private_key.* {named}") as caught:
            PrivateKeyJWT(key, algorithm=algorithm)
        assert "\n" not in str(caught.value)
        shown = "".join(traceback.format_exception_only(caught.value))
        assert "MIG" not in shown

    @pytest.mark.parametrize(
        "wrong",
        [
            {"algorithm": "HS256"},
            {"algorithm": "none"},
            {"algorithm": ["ES256"]},
            {"key_id": ""},
            {"key_id": 5},
            {"audience": ""},
            {"audience": [ISSUER]},
            {"lifetime": 0},
            {"lifetime": 86400},
            {"lifetime": float("nan")},
            {"lifetime": True},
            {"lifetime": "60"},
        ],
        ids=str,
    )
    def test_wrong_one_is_named(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))} must "):
            PrivateKeyJWT(EC_PEM, **wrong)

    @pytest.mark.parametrize(
        ("secret", "algorithm"),
        [("x" * 31, "HS256"), ("x" * 47, "HS384"), ("x" * 63, "HS512"), ("x" * 32 + "\n", "HS256"), (None, "HS256")],
    )
    def test_secret_that_does_not_do_is_named_and_not_shown(self, secret: Any, algorithm: str) -> None:
        with pytest.raises(ConfigurationError, match=r"^client_secret must ") as caught:
            ClientSecretJWT(secret, algorithm=algorithm)
        assert "xxx" not in str(caught.value)

    @pytest.mark.parametrize("wrong", [{"algorithm": "ES256"}, {"algorithm": None}, {"audience": 5}], ids=str)
    def test_wrong_one_of_a_secrets_is_named(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))} must "):
            ClientSecretJWT(SECRET, **wrong)


REFUSED = {"error": "invalid_client", "error_description": "assertion has expired"}


def device(server: OAuthServer, auth: ClientAuthentication | None = None, **where: str) -> ClientCredentials:
    where = where or {"token_endpoint": server.token_endpoint}
    return ClientCredentials(client_id="pump-17", client_auth=auth or PrivateKeyJWT(EC_PEM), **where)  # type: ignore[arg-type]  # names


class TestRefusedForItsTime:
    """The first request to a token endpoint that was not discovered knows the time only by the device's clock."""

    def test_is_made_again_at_once_by_the_time_that_the_refusal_told(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = time.time()
        monkeypatch.setattr(time, "time", lambda: 1000.0)  # 1970
        server.script.append(answer(REFUSED, 401, date=formatdate(right, usegmt=True)))
        source = device(server)
        assert source.fetch(None).value == "opaque-token-2"
        first, second = (claims(dict(one.form)["client_assertion"]) for one in server.requests)
        assert first["iat"] == 995
        assert right - 7 < second["iat"] < right + 20
        assert first["jti"] != second["jti"]
        source.fetch(None)
        assert len(server.requests) == 3

    def test_is_made_again_after_years_of_a_device_clock_that_drifts(self, server: OAuthServer) -> None:
        now = time.time()
        server.script.append(answer({"access_token": "a-first-token"}, date=formatdate(now - 60, usegmt=True)))
        server.script.append(answer(REFUSED, 401, date=formatdate(now, usegmt=True)))
        source = device(server)
        source.fetch(None)
        assert source.fetch(None).value == "opaque-token-3"

    def test_is_made_again_once_only(self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
        right = time.time()
        monkeypatch.setattr(time, "time", lambda: 1000.0)
        server.script.extend([answer(REFUSED, 401, date=formatdate(right + 1000 * i, usegmt=True)) for i in range(5)])
        with pytest.raises(TokenRequestRefused, match="invalid_client"):
            device(server).fetch(None)
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("auth", "refusal", "of_wall_clock"),
        [
            (PrivateKeyJWT(EC_PEM), REFUSED, 0),
            (PrivateKeyJWT(EC_PEM), {"error": "invalid_scope"}, -YEAR),
            (ClientSecretPost("a-client-secret"), REFUSED, -YEAR),
        ],
        ids=["the clock was right", "another error", "no assertion"],
    )
    def test_is_not_made_again_where_the_time_is_not_the_reason(
        self, server: OAuthServer, auth: Any, refusal: object, of_wall_clock: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = int(time.time())
        monkeypatch.setattr(time, "time", lambda: float(right + of_wall_clock))
        server.script.append(answer(refusal, 401, date=formatdate(right, usegmt=True)))
        with pytest.raises(TokenRequestRefused):
            device(server, auth).fetch(None)
        assert len(server.requests) == 1

    def test_does_not_happen_with_discovery_which_tells_the_time(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = time.time()
        monkeypatch.setattr(time, "time", lambda: 1000.0)
        metadata = {"issuer": server.origin, "token_endpoint": server.token_endpoint}
        server.pages["/.well-known/openid-configuration"] = answer(metadata, date=formatdate(right, usegmt=True))
        device(server, issuer=server.origin).fetch(None)
        decoded = claims(dict(server.token_requests[0].form)["client_assertion"])
        assert right - 7 < decoded["iat"] < right + 20
        assert decoded["aud"] == server.origin
        assert len(server.token_requests) == 1


class TestServerThatSendsNoDate:
    """Such as Keycloak."""

    @pytest.fixture(autouse=True)
    def wall(self, monkeypatch: pytest.MonkeyPatch) -> float:
        """The device's clock is a minute and a half slow; returns the right time."""
        right = time.time()
        monkeypatch.setattr(time, "time", lambda: right - 90)
        return right

    @pytest.fixture
    def of_time(self, wall: float) -> Iterator[OAuthServer]:
        """A web server that sends the time."""
        with OAuthServer() as server:
            server.pages["/"] = answer(b"", date=formatdate(wall, usegmt=True))
            yield server

    def issued(self, server: OAuthServer, number: int = -1) -> float:
        decoded: float = claims(dict(server.token_requests[number].form)["client_assertion"])["iat"]
        return decoded

    @pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client"])
    def test_refuses_for_the_time_perhaps_so_the_error_may_pass_and_names_the_clock(
        self, server: OAuthServer, error: str
    ) -> None:
        server.script.append(answer({"error": error, "error_description": "Token is not active"}, 400))
        with pytest.raises(TokenRequestRefused) as caught:
            device(server).fetch(None)
        assert not caught.value.permanent
        says = r"Token is not active.*this device's clock, \d{4}-.* UTC.*set the clock or give client_auth a time_from"
        assert re.search(says, str(caught.value))

    def test_refuses_for_another_reason_if_the_time_is_known(self, server: OAuthServer, of_time: OAuthServer) -> None:
        server.script.append(answer(REFUSED, 401))
        with pytest.raises(TokenRequestRefused) as caught:
            device(server, PrivateKeyJWT(EC_PEM, time_from=f"{of_time.origin}/")).fetch(None)
        assert caught.value.permanent
        assert "clock" not in str(caught.value)

    @pytest.mark.parametrize("auth", [PrivateKeyJWT, ClientSecretJWT])
    def test_gets_the_time_of_another_server(
        self, server: OAuthServer, of_time: OAuthServer, wall: float, auth: Callable[..., ClientAuthentication]
    ) -> None:
        secret = EC_PEM if auth is PrivateKeyJWT else SECRET
        device(server, auth(secret, time_from=f"{of_time.origin}/")).fetch(None)
        assert wall - 7 < self.issued(server) < wall + 20
        assert [one.method for one in of_time.requests] == ["HEAD"]

    def test_gets_the_time_of_this_device_while_the_other_server_does_not_answer(
        self, server: OAuthServer, of_time: OAuthServer, wall: float
    ) -> None:
        of_time.script.append(HANG_UP)
        source = device(server, PrivateKeyJWT(EC_PEM, time_from=f"{of_time.origin}/"))
        source.fetch(None)
        assert wall - 97 < self.issued(server) < wall - 60
        source.fetch(None)
        assert wall - 7 < self.issued(server) < wall + 20

    @pytest.mark.parametrize(
        "intercepted",
        [answer(b""), answer(b"", date="soon"), answer(b"", date=formatdate(1000, usegmt=True))],
        ids=["without Date", "with an unreadable Date", "of 1970"],
    )
    def test_gets_the_time_of_this_device_where_a_router_without_time_answers_for_the_other_server(
        self, server: OAuthServer, of_time: OAuthServer, wall: float, intercepted: bytes
    ) -> None:
        of_time.script.append(intercepted)
        server.script.append(answer(REFUSED, 401))
        source = device(server, PrivateKeyJWT(EC_PEM, time_from=f"{of_time.origin}/"))
        with pytest.raises(TokenRequestRefused, match="this device's clock") as caught:
            source.fetch(None)
        assert not caught.value.permanent
        assert wall - 97 < self.issued(server) < wall - 60
        source.fetch(None)
        assert wall - 7 < self.issued(server) < wall + 20

    def test_asks_the_other_server_again_as_what_answered_for_it_may_have_been_a_router(
        self, server: OAuthServer, of_time: OAuthServer, wall: float
    ) -> None:
        of_time.script.append(answer(b"", date=formatdate(wall - YEAR, usegmt=True)))
        source = device(server, PrivateKeyJWT(EC_PEM, time_from=f"{of_time.origin}/"))
        source.fetch(None)
        source.fetch(None)
        assert wall - 7 < self.issued(server) < wall + 20

    @pytest.mark.parametrize("status", [301, 404, 503])
    def test_gets_the_time_of_another_server_whatever_it_answers(
        self, server: OAuthServer, of_time: OAuthServer, wall: float, status: int
    ) -> None:
        of_time.script.append(answer(b"", status, date=formatdate(wall, usegmt=True)))
        device(server, PrivateKeyJWT(EC_PEM, time_from=f"{of_time.origin}/")).fetch(None)
        assert wall - 7 < self.issued(server) < wall + 20

    @pytest.mark.parametrize("by", ["Date", "token"])
    def test_is_believed_more_than_the_other_server_which_is_not_asked_any_more(
        self, server: OAuthServer, of_time: OAuthServer, wall: float, by: str
    ) -> None:
        now = int(wall)
        times = {"iat": now, "exp": now + 300}
        server.script.append(
            answer({"access_token": "a-token"}, date=formatdate(wall, usegmt=True))
            if by == "Date"
            else token_answer(jwt.encode(times, SECRET, "HS256"), expires_in=300)
        )
        of_time.pages["/"] = answer(b"", date=formatdate(wall - YEAR, usegmt=True))
        source = device(server, PrivateKeyJWT(EC_PEM, time_from=f"{of_time.origin}/"))
        source.fetch(None)
        source.fetch(None)
        assert wall - 7 < self.issued(server) < wall + 20
        assert len(of_time.requests) == 1

    def test_shows_the_time_by_the_first_token(self, server: OAuthServer, wall: float) -> None:
        now = int(wall)
        token = jwt.encode({"iat": now, "exp": now + 300}, SECRET, "HS256")
        server.script.append(token_answer(token, expires_in=300))
        source = device(server)
        source.fetch(None)
        source.fetch(None)
        assert wall - 97 < self.issued(server, 0) < wall - 60
        assert wall - 7 < self.issued(server, 1) < wall + 20

    @pytest.mark.parametrize(
        ("iat", "expires_in"), [(-600, 300), (-600, None), (None, 300), ("now", 300), (-(10**400), 300)], ids=str
    )
    def test_does_not_show_the_time_by_a_token_that_it_issued_earlier(
        self, server: OAuthServer, wall: float, iat: Any, expires_in: int | None
    ) -> None:
        now = int(wall)
        times = {"iat": now + iat if isinstance(iat, int) else iat, "exp": now + 300}
        server.script.append(token_answer(jwt.encode(times, SECRET, "HS256"), expires_in=expires_in))
        source = device(server)
        source.fetch(None)
        source.fetch(None)
        assert wall - 97 < self.issued(server) < wall - 60

    def test_is_believed_more_than_its_tokens_once_it_sends_one(self, server: OAuthServer, wall: float) -> None:
        now = int(wall)
        token = token_answer(jwt.encode({"iat": now + 900, "exp": now + 1200}, SECRET, "HS256"), expires_in=300)
        server.script.extend([answer({"access_token": "a-token"}, date=formatdate(wall, usegmt=True)), token])
        source = device(server)
        for _ in range(3):
            source.fetch(None)
        assert wall - 7 < self.issued(server) < wall + 20

    def test_asks_nobody_to_log_in_when_it_refuses_a_refresh_for_the_time(self, server: OAuthServer) -> None:
        source = DeviceFlow(
            client_id="pump-17",
            client_auth=PrivateKeyJWT(EC_PEM),
            token_endpoint=server.token_endpoint,
            device_authorization_endpoint=f"{server.origin}/device",
        )
        store = MemoryStore()
        store.save("key", Token("old", 60, refresh_token="a-refresh-token"))
        events: list[Event] = []
        keeper = TokenKeeper(source, store, key="key", on_event=events.append)
        server.script.extend([answer(REFUSED, 401)] * 4)
        for _ in range(2):
            with pytest.raises(TokenRequestRefused):
                keeper.renew()
        assert not [event for event in events if isinstance(event, LoginRequired)]


@pytest.mark.parametrize("auth", [PrivateKeyJWT(EC_PEM), ClientSecretJWT(SECRET)])
def test_neither_assertion_nor_secret_is_shown_if_the_server_sends_it_back(
    server: OAuthServer, auth: ClientAuthentication, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(connection: Any, _closing: object) -> None:
        sent = dict(server.requests[-1].form)["client_assertion"]
        decoded = {"error": "invalid_client", "error_description": f"{sent} {SECRET}"}
        connection.sendall(answer(decoded, 401))

    server.script.extend([echo, token_answer()])
    with pytest.raises(TokenRequestRefused) as caught:
        device(server, auth).fetch(None)
    sent = dict(server.requests[0].form)["client_assertion"]
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.description + caplog.text
    assert sent not in shown
    assert sent.split(".")[2] not in shown
    if isinstance(auth, ClientSecretJWT):
        assert SECRET not in shown
    assert SECRET not in repr(auth)
