"""Discovery against a scripted server: where it looks, what it believes, when it looks again."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    InvalidTokenResponse,
    IssuerMismatch,
    TokenError,
    TokenRequestRefused,
)
from mqtt_token_client.sources.oauth.client_auth import ClientSecret, ClientSecretBasic
from mqtt_token_client.sources.oauth.discovery import discover, metadata_urls
from mqtt_token_client.sources.oauth.http import HttpClient
from mqtt_token_client.sources.oauth.token_endpoint import TokenEndpoint

from . import oauth_server
from .oauth_server import Answer, OAuthServer, answer, endless, token_answer

OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"
GRANT = [("grant_type", "client_credentials")]


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def transport() -> HttpClient:
    return HttpClient((5.0, 5.0))


def endpoint(issuer: str) -> TokenEndpoint:
    return TokenEndpoint("pump-17", ClientSecretBasic("secret"), issuer, transport())


def paths(server: OAuthServer) -> list[str]:
    return [request.path for request in server.requests]


@pytest.mark.parametrize(
    ("issuer", "openid", "oauth"),
    [
        ("https://a.example", f"https://a.example{OPENID}", f"https://a.example{OAUTH}"),
        ("https://a.example/", f"https://a.example{OPENID}", f"https://a.example{OAUTH}"),
        ("https://a.example:8443/x/y", f"https://a.example:8443/x/y{OPENID}", f"https://a.example:8443{OAUTH}/x/y"),
        ("https://a.example/x/", f"https://a.example/x{OPENID}", f"https://a.example{OAUTH}/x"),
    ],
)
def test_metadata_is_below_the_issuer_or_between_its_host_and_path(issuer: str, openid: str, oauth: str) -> None:
    assert metadata_urls(issuer) == (openid, oauth)


class TestDiscover:
    @pytest.mark.parametrize("path", [OPENID, OAUTH])
    def test_finds_metadata_at_either_place(self, server: OAuthServer, path: str) -> None:
        server.describe(path)
        assert discover(server.origin, transport())["token_endpoint"] == server.token_endpoint

    @pytest.mark.parametrize(
        "nothing",
        [
            answer(b"<html>", content_type="text/html"),
            answer([1]),
            answer(b"[" * 100_000),
            answer(b"", 401),
            answer({"error": "Realm does not exist"}, 404),
            endless(b"HTTP/1.1 302 Elsewhere\r\nLocation: https://login.example/\r\n\r\n", b"x"),
        ],
    )
    def test_goes_on_to_the_second_place_when_the_first_has_none(self, server: OAuthServer, nothing: Answer) -> None:
        server.pages[OPENID] = nothing
        server.describe(OAUTH)
        assert discover(server.origin, transport())["issuer"] == server.origin

    def test_without_metadata_says_where_it_looked(self, server: OAuthServer) -> None:
        with pytest.raises(InvalidTokenResponse) as caught:
            discover(server.origin, transport())
        assert all(f"{server.origin}{path}: HTTP 404" in str(caught.value) for path in (OPENID, OAUTH))
        assert str(caught.value).endswith("; check the issuer")
        assert caught.value.permanent

    def test_without_metadata_says_what_the_server_says(self, server: OAuthServer) -> None:
        keycloak = {"error": "Realm does not exist", "error_description": "For more on this\x1b, consult the log."}
        server.pages[OPENID] = answer(keycloak, 404)
        server.pages[OAUTH] = answer({"message": "no route\r\nhere"}, 404)
        with pytest.raises(InvalidTokenResponse) as caught:
            discover(server.origin, transport())
        assert "HTTP 404, Realm does not exist: For more on this, consult the log." in str(caught.value)
        assert "HTTP 404, no route here" in str(caught.value)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("path", [OPENID, OAUTH])
    def test_where_one_place_has_something_else_may_have_metadata_later(self, server: OAuthServer, path: str) -> None:
        server.pages[path] = answer(b"<html>", content_type="text/html")
        with pytest.raises(InvalidTokenResponse) as caught:
            discover(server.origin, transport())
        assert not caught.value.permanent

    @pytest.mark.parametrize("other", ["{}/", "{}/realms/plant", "https://evil.example", None, 5, ["{}"]])
    def test_takes_no_metadata_of_another_issuer(self, server: OAuthServer, other: Any) -> None:
        server.describe(OPENID, issuer=other.format(server.origin) if isinstance(other, str) else other)
        server.describe(OAUTH)
        with pytest.raises(IssuerMismatch, match=server.origin) as caught:
            discover(server.origin, transport())
        assert caught.value.permanent

    def test_server_in_trouble_is_asked_once_and_not_elsewhere(self, server: OAuthServer) -> None:
        server.script.append(answer(b"", 503, retry_after="9"))
        with pytest.raises(AuthorizationServerUnavailable) as caught:
            discover(server.origin, transport())
        assert caught.value.retry_after == 9
        assert paths(server) == [OPENID]

    def test_teaches_the_servers_time_before_the_first_token_request(self, server: OAuthServer) -> None:
        server.script.append(answer({"issuer": server.origin}, date=formatdate(1_000_000_000, usegmt=True)))
        learned = transport()
        discover(server.origin, learned)
        assert 1_000_000_000 <= learned.clock.now() < 1_000_000_060

    @pytest.mark.parametrize(("age", "learned"), [("0", True), ("3600", False)])
    def test_teaches_no_time_if_the_answer_was_kept_by_a_cache(
        self, server: OAuthServer, age: str, learned: bool
    ) -> None:
        """RFC 9111 section 5.1: its Date is that of the server's answer to an earlier request."""
        old = answer({"issuer": server.origin}, date=formatdate(1_000_000_000, usegmt=True), age=age)
        server.script.append(old)
        client = transport()
        discover(server.origin, client)
        assert client.clock.known is learned


class TestTwoDocuments:
    """Some servers have an endpoint in one of them only."""

    def test_complete_each_other_for_an_endpoint_that_is_missing_in_the_first(self, server: OAuthServer) -> None:
        server.describe(OPENID)
        server.describe(OAUTH, token_endpoint="https://elsewhere.example", revocation_endpoint=f"{server.origin}/gone")
        client = endpoint(server.origin)
        server.pages["/gone"] = answer(b"")
        assert client.revoke("a-token", "access_token") is True
        client.token(GRANT)
        assert paths(server) == [OPENID, OAUTH, "/gone", "/token"]

    def test_are_not_both_read_for_an_endpoint_of_the_first(self, server: OAuthServer) -> None:
        server.describe(OPENID, revocation_endpoint=f"{server.origin}/gone")
        server.describe(OAUTH)
        assert endpoint(server.origin).offers("revocation_endpoint")
        assert paths(server) == [OPENID]

    @pytest.mark.parametrize("second", [None, answer(b"<html>"), answer({"issuer": "https://evil.example"})])
    def test_are_not_both_needed(self, server: OAuthServer, second: bytes | None) -> None:
        server.describe(OPENID)
        if second is not None:
            server.pages[OAUTH] = second
        client = endpoint(server.origin)
        assert not client.offers("revocation_endpoint")
        client.token(GRANT)

    def test_of_which_the_second_cannot_be_read_now_leave_it_open(self, server: OAuthServer) -> None:
        server.describe(OPENID)
        server.pages[OAUTH] = answer(b"", 503)
        with pytest.raises(AuthorizationServerUnavailable):
            endpoint(server.origin).offers("revocation_endpoint")


class TestMetadata:
    def test_is_fetched_at_the_first_request_and_kept(self, server: OAuthServer) -> None:
        server.describe(OPENID)
        client = endpoint(server.origin)
        assert not server.requests
        for _ in range(3):
            client.token(GRANT)
        assert paths(server) == [OPENID, "/token", "/token", "/token"]

    @pytest.mark.parametrize(
        "wrong",
        [answer(b"", 503), answer(b"<html>"), answer(b"", 302), token_answer(token_type="mac"), oauth_server.HANG_UP],
    )
    def test_is_fetched_again_after_a_failure_and_the_server_found_where_it_moved(
        self, server: OAuthServer, wrong: bytes
    ) -> None:
        server.describe(OPENID)
        client = endpoint(server.origin)
        client.token(GRANT)
        server.describe(OPENID, token_endpoint=f"{server.origin}/moved")
        server.script.append(wrong)
        with pytest.raises(TokenError):
            client.token(GRANT)
        client.token(GRANT)
        assert paths(server) == [OPENID, "/token", "/token", OPENID, "/moved"]

    @pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client"])
    def test_is_fetched_again_after_a_refusal_of_the_client_and_the_server_found_where_it_moved(
        self, server: OAuthServer, error: str
    ) -> None:
        """How the client proves who it is depends on the metadata too."""
        server.describe(OPENID)
        client = TokenEndpoint("pump-17", ClientSecret("secret"), server.origin, transport())
        client.token(GRANT)
        methods = ["client_secret_post"]
        server.describe(OPENID, token_endpoint=f"{server.origin}/moved", token_endpoint_auth_methods_supported=methods)
        server.script.append(answer({"error": error}, 401))
        with pytest.raises(TokenRequestRefused):
            client.token(GRANT)
        client.token(GRANT)
        assert paths(server) == [OPENID, "/token", "/token", OPENID, "/moved"]
        assert ("client_secret", "secret") in server.requests[-1].form

    @pytest.mark.parametrize("error", ["invalid_grant", "slow_down"])
    def test_is_kept_when_the_server_answers_with_another_error_of_rfc_6749(
        self, server: OAuthServer, error: str
    ) -> None:
        server.describe(OPENID)
        client = endpoint(server.origin)
        client.token(GRANT)
        server.script.append(answer({"error": error}, 400))
        with pytest.raises((TokenRequestRefused, AuthorizationServerUnavailable)):
            client.token(GRANT)
        client.token(GRANT)
        assert paths(server) == [OPENID, "/token", "/token", "/token"]

    @pytest.mark.parametrize("url", [None, 5, "http://id.example.com/token", "/token", "https://u:p@id.example.com/"])
    def test_must_name_a_token_endpoint_that_is_safe(self, server: OAuthServer, url: object) -> None:
        server.describe(OPENID, token_endpoint=url)
        with pytest.raises(InvalidTokenResponse, match="token_endpoint"):
            endpoint(server.origin).token(GRANT)
        assert paths(server) == ([OPENID, OAUTH] if url is None else [OPENID])
