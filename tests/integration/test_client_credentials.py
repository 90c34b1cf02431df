"""The client credentials grant and the keeper against a certified authorization server."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import jwt
import pytest

from devtools.servers.keys import Keys
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from mqtt_token_client.backoff import Backoff
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    InvalidTokenResponse,
    IssuerMismatch,
    TokenRequestRefused,
)
from mqtt_token_client.events import Event, RenewalFailed, TokenRenewed
from mqtt_token_client.sources.oauth.client_auth import ClientAuthentication, ClientSecretPost, TokenRequest
from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import RenewalPolicy, TokenKeeper


def source(oidc: AuthorizationServer, **more: Any) -> ClientCredentials:
    given = {"issuer": oidc.issuer, "client_id": oidc.client_id, "client_secret": oidc.client_secret}
    return ClientCredentials(**{**given, **more})


class TestGrant:
    def test_gives_a_token_that_lives_as_long_as_the_server_says(self, oidc: AuthorizationServer) -> None:
        oidc.config(at=30)
        before = monotonic()
        token = source(oidc).fetch(None)
        assert token.claims["iss"] == oidc.issuer
        assert token.claims["sub"] == oidc.client_id
        assert token.since >= before
        assert 29 <= token.lifetime <= 30

    def test_needs_no_discovery(self, oidc: AuthorizationServer) -> None:
        assert source(oidc, issuer=None, token_endpoint=oidc.token_endpoint).fetch(None).expires_in > 50

    def test_basic_is_understood_with_every_character_in_id_and_secret(self, oidc: AuthorizationServer) -> None:
        odd = source(oidc, client_id=oidc.odd_client_id, client_secret=oidc.odd_client_secret)
        assert odd.fetch(None).claims["sub"] == oidc.odd_client_id

    def test_post_is_understood(self, oidc: AuthorizationServer) -> None:
        auth = ClientSecretPost(oidc.client_secret)
        post = source(oidc, client_id=oidc.post_client_id, client_secret=None, client_auth=auth)
        assert post.fetch(None).claims["sub"] == oidc.post_client_id

    @pytest.mark.parametrize(("resource", "algorithm"), [("urn:test:mqtt", "RS256"), ("urn:test:mqtt-es", "ES256")])
    def test_resource_and_scope_hold_on_every_renewal(
        self, oidc: AuthorizationServer, resource: str, algorithm: str
    ) -> None:
        keeper = TokenKeeper(source(oidc, resource=resource, scope=["rabbitmq.read:*/*", "rabbitmq.write:*/*"]))
        tokens = [keeper.renew() for _ in range(3)]
        assert {jwt.get_unverified_header(token.value)["alg"] for token in tokens} == {algorithm}
        assert {token.scope for token in tokens} == {"rabbitmq.read:*/* rabbitmq.write:*/*"}
        assert len({token.claims["jti"] for token in tokens}) == 3

    def test_refusals_name_what_is_wrong(self, oidc: AuthorizationServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        cases: list[tuple[dict[str, Any], str, int]] = [
            ({"client_secret": "a-wrong-secret-of-some-length"}, "invalid_client", 401),
            ({"client_id": "nobody"}, "invalid_client", 401),
            ({"resource": "urn:test:unknown"}, "invalid_target", 400),
        ]
        for wrong, error, status in cases:
            with pytest.raises(TokenRequestRefused) as caught:
                source(oidc, **wrong).fetch(None)
            assert (caught.value.error, caught.value.status) == (error, status)
            assert "a-wrong-secret" not in f"{caught.value!r} {caught.value.description} {caught.value.__context__}"
        assert "a-wrong-secret" not in caplog.text

    @pytest.mark.parametrize("issuer", ["{}/", "http://localhost:{}"])
    def test_issuer_must_be_the_servers_own_name_to_the_letter(self, oidc: AuthorizationServer, issuer: str) -> None:
        wrong = issuer.format(oidc.port if "localhost" in issuer else oidc.issuer)
        with pytest.raises(IssuerMismatch, match=oidc.issuer):
            source(oidc, issuer=wrong).fetch(None)

    def test_issuer_that_is_none_is_told(self, oidc: AuthorizationServer) -> None:
        with pytest.raises(InvalidTokenResponse, match="HTTP 404"):
            source(oidc, issuer=f"{oidc.issuer}/nowhere").fetch(None)


class SignedAssertion:
    """A client authentication from outside the library: a JWT (RFC 7523), timed by the server's clock."""

    def __init__(self, key: Any, algorithm: str) -> None:
        self.key, self.algorithm = key, algorithm

    def authenticate(self, request: TokenRequest) -> None:
        now = request.clock.now()
        claims = {
            "iss": request.client_id,
            "sub": request.client_id,
            "aud": request.metadata["issuer"],
            "jti": uuid.uuid4().hex,
            "iat": int(now),
            "exp": int(now + 60),
        }
        request.form += [
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", jwt.encode(claims, self.key, self.algorithm)),
        ]


class TestClientAuthentication:
    @pytest.mark.parametrize("of_wall_clock", [-365 * 86400, 0, 365 * 86400])
    @pytest.mark.parametrize("client_id", ["service-secret-jwt", "service-key-jwt"])
    def test_by_assertion_can_be_added_and_does_not_need_this_machines_clock(
        self, oidc: AuthorizationServer, keys: Keys, monkeypatch: pytest.MonkeyPatch, client_id: str, of_wall_clock: int
    ) -> None:
        by_key = SignedAssertion((keys.folder / "client.pem").read_text(), "ES256")
        by_secret = SignedAssertion(oidc.client_secret, "HS256")
        auth: ClientAuthentication = by_key if "key" in client_id else by_secret
        monkeypatch.setattr(time, "time", lambda wall=time.time: wall() + of_wall_clock)
        device = source(oidc, client_id=client_id, client_secret=None, client_auth=auth)
        assert device.fetch(None).claims["sub"] == client_id


QUICK = RenewalPolicy(backoff=Backoff(initial=0.2, maximum=0.4))


class TestKeeper:
    def test_eight_threads_with_no_token_make_one_request(self, oidc: AuthorizationServer) -> None:
        keeper = TokenKeeper(source(oidc))
        with ThreadPoolExecutor(8) as pool:
            tokens = [future.result(30) for future in [pool.submit(keeper.get) for _ in range(8)]]
        assert len(set(tokens)) == 1
        assert oidc.token_requests() == 1

    def test_short_tokens_are_renewed_in_time_again_and_again(self, oidc: AuthorizationServer) -> None:
        oidc.config(at=4)
        events: list[Event] = []
        left: list[float] = []

        class Watched:
            real = source(oidc)

            def fetch(self, previous: Token | None) -> Token:
                if previous is not None:
                    left.append(previous.expires_in)
                return self.real.fetch(previous)

        keeper = TokenKeeper(Watched(), on_event=events.append)
        end = monotonic() + 8.5
        while monotonic() < end:
            assert keeper.token.expires_in > 0
            time.sleep(0.02)
        keeper.close()
        wait_until(lambda: all(one.name != "token-renewal" for one in threading.enumerate()), "the last renewal")
        assert min(left) > 0.2  # a third of a life of 3 to 4 seconds, less what a busy machine takes
        assert {type(event) for event in events} == {TokenRenewed}
        assert len(events) == oidc.token_requests() == len(left) + 1
        assert 3 <= len(events) <= 6

    def test_server_in_trouble_costs_nothing_while_the_token_lives(self, oidc: AuthorizationServer) -> None:
        events: list[Event] = []
        keeper = TokenKeeper(source(oidc), policy=QUICK, on_event=events.append)
        first = keeper.get()
        oidc.fail(503, times=2)
        for _ in range(2):
            with pytest.raises(AuthorizationServerUnavailable, match="HTTP 503"):
                keeper.renew()
            assert keeper.get() is keeper.token is first
        assert keeper.renew() != first
        assert [type(event) for event in events] == [TokenRenewed, RenewalFailed, RenewalFailed, TokenRenewed]

    @pytest.mark.parametrize("as_date", [False, True])
    def test_retry_after_is_kept_to_in_both_forms(self, oidc: AuthorizationServer, as_date: bool) -> None:
        keeper = TokenKeeper(source(oidc), policy=QUICK)
        oidc.fail(429, retry_after=formatdate(time.time() + 3, usegmt=True) if as_date else 3)
        asked = monotonic()
        with pytest.raises(AuthorizationServerUnavailable) as caught:
            keeper.get()
        assert caught.value.retry_after is not None
        assert 1 < caught.value.retry_after <= 4
        assert keeper.renewal_due - asked >= caught.value.retry_after
        while monotonic() < keeper.renewal_due - 0.5:
            with pytest.raises(AuthorizationServerUnavailable):
                keeper.get()
            keeper.renew_when_due()
            time.sleep(0.1)
        assert oidc.token_requests() == 1
        wait_until(lambda: monotonic() > keeper.renewal_due, "the time of the retry")
        keeper.renew_when_due()
        assert oidc.token_requests() == 2
        assert keeper.get().expires_in > 50

    def test_server_that_is_away_for_longer_than_a_life_is_found_again(self, oidc: AuthorizationServer) -> None:
        oidc.config(at=2)
        keeper = TokenKeeper(source(oidc), policy=QUICK)
        first = keeper.get()
        oidc.stop()
        wait_until(lambda: first.expires_in < 0, "the end of the token")
        with pytest.raises(AuthorizationServerUnavailable, match="refused"):
            keeper.get()
        oidc.start()

        def renewed() -> bool:
            keeper.renew_when_due()
            return keeper.current != first

        wait_until(renewed, "a new token")
        assert keeper.get() != first
        assert oidc.token_requests() == 2
