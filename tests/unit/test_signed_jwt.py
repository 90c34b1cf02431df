"""Tokens that a device signs itself: their claims, their times by whatever clock is right, their life."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from devtools.servers.processes import free_port
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import ConfigurationError, TokenError
from mqtt_token_client.sources.signed_jwt import SignedJWT
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import TokenKeeper

from .oauth_server import HANG_UP, OAuthServer, answer

EC, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
EC_PEM, RSA_PEM = (
    key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for key in (EC, RSA)
)
CLAIMS = {"aud": "project", "sub": "pump-17", "roles": ["a", "b"], "nested": {"a": None}}
RIGHT = 1_800_000_000.0  # 2027


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def answer_with(date: float, status: int = 200) -> bytes:
    """An answer to HEAD that gives the time."""
    return answer(b"", status, date=formatdate(date, usegmt=True))


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the wall clock of this device."""
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: seconds)


class TestToken:
    @pytest.mark.parametrize(("pem", "key", "algorithm"), [(EC_PEM, EC, "ES256"), (RSA_PEM, RSA, "RS256")])
    def test_has_the_claims_that_were_given_and_its_times_and_no_others(
        self, pem: bytes, key: Any, algorithm: str
    ) -> None:
        token = SignedJWT(pem, algorithm, CLAIMS, 3600).fetch(None)
        claims = jwt.decode(token.value, key.public_key(), [algorithm], audience="project")
        assert claims == CLAIMS | {"iat": claims["iat"], "exp": claims["iat"] + 3600}
        assert jwt.get_unverified_header(token.value) == {"alg": algorithm, "typ": "JWT"}

    def test_was_issued_some_seconds_ago_and_is_valid_for_that_much_less(self, wall: Any) -> None:
        wall(RIGHT + 0.9)
        before = monotonic()
        token = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600).fetch(None)
        assert token.claims["iat"] == RIGHT - 5
        assert token.since == pytest.approx(before - 5.9, abs=0.5)
        assert token.lifetime == 3600

    def test_that_is_short_is_still_valid_for_most_of_its_lifetime(self) -> None:
        assert SignedJWT(EC_PEM, "ES256", {}, 5).fetch(None).expires_in > 3

    def test_names_the_key_if_it_is_told_to(self) -> None:
        token = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, key_id="2026").fetch(None)
        assert jwt.get_unverified_header(token.value)["kid"] == "2026"

    def test_has_the_claims_of_the_moment_when_the_source_was_made(self) -> None:
        claims: dict[str, Any] = {"roles": ["a"]}
        source = SignedJWT(EC_PEM, "ES256", claims, 3600)
        claims["roles"].append("admin")
        assert source.fetch(None).claims["roles"] == ["a"]

    def test_is_signed_anew_for_each_renewal(self) -> None:
        keeper = TokenKeeper(SignedJWT(EC_PEM, "ES256", CLAIMS, 3600))
        first = keeper.get()
        assert keeper.renew() != first  # ECDSA has a random part

    def test_is_signed_with_the_key_that_stands_in_the_file_now(self, tmp_path: Path) -> None:
        path = tmp_path / "device.pem"
        path.write_bytes(EC_PEM)
        source = SignedJWT(path, "ES256", CLAIMS, 3600)
        path.unlink()
        with pytest.raises(TokenError, match=r"device\.pem") as caught:
            source.fetch(None)
        assert not caught.value.permanent
        path.write_bytes(EC_PEM)
        source.fetch(None)

    @pytest.mark.timeout(20)
    def test_is_not_waited_for_if_a_fifo_has_taken_the_place_of_the_key(self, tmp_path: Path) -> None:
        path = tmp_path / "device.pem"
        path.write_bytes(EC_PEM)
        source = SignedJWT(path, "ES256", CLAIMS, 3600)
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(TokenError, match=r"^private_key: .*device\.pem: not a regular file$"):
            source.fetch(None)

    def test_has_no_key_of_a_file_that_is_too_large_for_one(self, tmp_path: Path) -> None:
        path = tmp_path / "disk.img"
        path.write_bytes(EC_PEM.ljust(65_536))
        SignedJWT(path, "ES256", CLAIMS, 3600)
        path.write_bytes(EC_PEM.ljust(65_537))
        says = r"^private_key: .*disk\.img: longer than 64 KiB; give the path of the right file$"
        with pytest.raises(ConfigurationError, match=says):
            SignedJWT(path, "ES256", CLAIMS, 3600)


class TestTime:
    @pytest.mark.parametrize("of_wall_clock", [1000.0, RIGHT - 1e8, RIGHT + 1e8])
    @pytest.mark.parametrize("status", [200, 301, 404, 503])
    def test_is_the_servers_whatever_it_answers_and_the_wall_clock_says(
        self, server: OAuthServer, wall: Any, status: int, of_wall_clock: float
    ) -> None:
        wall(of_wall_clock)
        server.script.append(answer_with(RIGHT, status))
        token = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, time_from=server.origin).fetch(None)
        assert RIGHT - 10 < token.claims["iat"] < RIGHT
        assert 3590 < token.expires_in < 3600
        assert server.requests[0].method == "HEAD"

    def test_is_that_of_a_content_delivery_network_too(self, server: OAuthServer, wall: Any) -> None:
        """It answers from its cache, with its own Date."""
        wall(1000.0)
        server.script.append(answer(b"", date=formatdate(RIGHT, usegmt=True), age="86400"))
        token = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, time_from=server.origin).fetch(None)
        assert RIGHT - 10 < token.claims["iat"] < RIGHT

    def test_is_asked_for_at_each_signature(self, server: OAuthServer) -> None:
        source = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, time_from=server.origin)
        server.script.extend([answer_with(RIGHT), answer_with(RIGHT + 86400)])
        first, second = source.fetch(None), source.fetch(None)
        assert 86400 - 10 < second.claims["iat"] - first.claims["iat"] < 86400 + 10

    @pytest.mark.parametrize("trouble", [HANG_UP, answer(b"", 200), answer(b"", 200, date="soon"), answer_with(1000.0)])
    def test_goes_on_from_the_last_answer_where_there_is_none(
        self, server: OAuthServer, wall: Any, trouble: bytes
    ) -> None:
        source = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, time_from=server.origin)
        server.script.extend([answer_with(RIGHT), trouble])
        source.fetch(None)
        wall(1000.0)
        assert RIGHT - 10 < source.fetch(None).claims["iat"] < RIGHT + 10

    def test_is_the_wall_clocks_where_nobody_ever_answered(self, wall: Any) -> None:
        wall(RIGHT)
        nobody = f"http://127.0.0.1:{free_port()}"
        assert SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, time_from=nobody).fetch(None).claims["iat"] == RIGHT - 5

    def test_of_a_clock_that_was_never_set_signs_nothing_and_may_be_right_later(
        self, server: OAuthServer, wall: Any
    ) -> None:
        wall(1000.0)
        source = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, time_from=server.origin)
        server.script.append(HANG_UP)
        with pytest.raises(TokenError, match=f"clock of this device is not set.*time_from: {server.origin}") as caught:
            source.fetch(None)
        assert not caught.value.permanent
        server.script.append(answer_with(RIGHT))
        source.fetch(None)

    @pytest.mark.parametrize("intercepted", [answer(b""), answer_with(1000.0)], ids=["without Date", "of 1970"])
    def test_of_a_clock_that_was_never_set_may_be_that_of_a_router_which_the_error_says(
        self, server: OAuthServer, wall: Any, intercepted: bytes
    ) -> None:
        wall(1000.0)
        source = SignedJWT(EC_PEM, "ES256", CLAIMS, 3600, time_from=server.origin)
        server.script.append(intercepted)
        with pytest.raises(TokenError, match=f"not set.*time_from: {server.origin}: the answer has no Date") as caught:
            source.fetch(None)
        assert not caught.value.permanent
        server.script.append(answer_with(RIGHT))
        assert RIGHT - 10 < source.fetch(None).claims["iat"] < RIGHT

    def test_of_a_clock_that_was_never_set_is_reported_with_what_to_do(self, wall: Any) -> None:
        wall(1000.0)
        with pytest.raises(TokenError, match=r"clock of this device is not set.*set it, or give time_from"):
            SignedJWT(EC_PEM, "ES256", CLAIMS, 3600).fetch(None)


class TestArguments:
    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"private_key": RSA_PEM}, "private_key"),
            ({"private_key": 5}, "private_key"),
            ({"algorithm": "HS256"}, "algorithm"),
            ({"claims": None}, "claims"),
            ({"claims": [("aud", "a")]}, "claims"),
            ({"claims": {5: "a"}}, "claims"),
            ({"claims": {"a": object()}}, "claims"),
            ({"claims": {"a": float("nan")}}, "claims"),
            ({"claims": {"iss": 5}}, "claims"),
            ({"claims": {"iat": 5}}, "claims must not contain 'iat'"),
            ({"claims": {"exp": 5}}, "claims must not contain 'exp'"),
            ({"claims": {"nbf": 5}}, "claims must not contain 'nbf'"),
            ({"lifetime": 0}, "lifetime"),
            ({"lifetime": 86_401}, "lifetime must be 5 to 86400 s"),
            ({"lifetime": 3601, "max_lifetime": 3600}, "lifetime must be 5 to 3600 s"),
            ({"lifetime": float("nan")}, "lifetime"),
            ({"lifetime": "60"}, "lifetime"),
            ({"lifetime": True}, "lifetime"),
            ({"max_lifetime": 0}, "max_lifetime"),
            ({"max_lifetime": None}, "max_lifetime"),
            ({"key_id": 5}, "key_id"),
            ({"time_from": "time.example.com"}, "time_from"),
            ({"time_from": 5}, "time_from"),
        ],
        ids=lambda value: str(value)[:30],  # the same each time, without a key
    )
    def test_wrong_one_is_named_in_one_line(self, wrong: dict[str, Any], named: str) -> None:
        right = {"private_key": EC_PEM, "algorithm": "ES256", "claims": CLAIMS, "lifetime": 60}
        with pytest.raises(ConfigurationError, match=f"^{named}") as caught:
            SignedJWT(**{**right, **wrong})
        assert "\n" not in str(caught.value)

    def test_time_may_come_from_any_machine_over_plain_http(self) -> None:
        SignedJWT(EC_PEM, "ES256", CLAIMS, 60, time_from="http://time.example.com")

    def test_longest_life_is_the_brokers_to_set(self) -> None:
        SignedJWT(EC_PEM, "ES256", CLAIMS, 7 * 86400, max_lifetime=30 * 86400)


class TestKey:
    def test_is_of_all_that_makes_the_token_another_and_not_of_the_private_key(self) -> None:
        def key(pem: bytes = EC_PEM, algorithm: str = "ES256", life: float = 60, **more: Any) -> str:
            claims = more.pop("claims", CLAIMS)
            return SignedJWT(pem, algorithm, claims, life, **more).key

        others = {key(), key(RSA_PEM, "RS256"), key(life=61), key(claims={}), key(key_id="a")}
        assert len(others) == 5
        assert key(claims=dict(reversed(CLAIMS.items())), time_from="https://time.example.com") == key()

    def test_is_the_same_in_every_process(self, tmp_path: Path) -> None:
        (tmp_path / "key.pem").write_bytes(EC_PEM)
        given = json.dumps([str(tmp_path / "key.pem"), "ES256", CLAIMS, 60])
        program = f"import json; from mqtt_token_client import SignedJWT; print(SignedJWT(*json.loads({given!r})).key)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == SignedJWT(EC_PEM, "ES256", CLAIMS, 60).key


def test_neither_source_nor_token_shows_key_or_token() -> None:
    source = SignedJWT(EC_PEM, "ES256", CLAIMS, 60)
    token: Token = source.fetch(None)
    shown = f"{source!r} {token!r}"
    assert token.value not in shown
    assert EC_PEM.decode().splitlines()[1] not in shown
