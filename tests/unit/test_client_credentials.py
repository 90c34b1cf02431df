"""The client credentials grant against a scripted server: what is sent, every time."""

from __future__ import annotations

import base64
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

import pytest

from mqtt_token_client.errors import ConfigurationError, TokenError
from mqtt_token_client.sources.oauth.client_auth import ClientSecretBasic, ClientSecretPost
from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.tokens.keeper import TokenKeeper

from . import oauth_server
from .oauth_server import Answer, OAuthServer, Request, answer, token_answer

OPENID = "/.well-known/openid-configuration"


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def basic(request: Request) -> tuple[str, str]:
    """Client id and secret, decoded as a server does (RFC 6749 section 2.3.1)."""
    credentials = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode("ascii")
    client_id, secret = credentials.split(":")
    return unquote_plus(client_id), unquote_plus(secret)


class TestRequest:
    def test_sends_every_parameter_again_on_every_renewal(self, server: OAuthServer) -> None:
        source = ClientCredentials(
            client_id="pump-17",
            client_secret="secret",
            token_endpoint=server.token_endpoint,
            scope=["mqtt", "telemetry"],
            audience="https://broker.example.com",
            resource=["urn:plant:1", "urn:plant:2"],
            extra={"tenant": "süd", "account": "&="},
        )
        keeper = TokenKeeper(source)
        for _ in range(3):
            keeper.renew()
        assert [request.form for request in server.requests] == [
            [
                ("grant_type", "client_credentials"),
                ("scope", "mqtt telemetry"),
                ("audience", "https://broker.example.com"),
                ("resource", "urn:plant:1"),
                ("resource", "urn:plant:2"),
                ("account", "&="),
                ("tenant", "süd"),
            ]
        ] * 3
        assert {basic(request) for request in server.requests} == {("pump-17", "secret")}

    def test_sends_nothing_that_was_not_asked_for(self, server: OAuthServer) -> None:
        ClientCredentials(client_id="a", client_secret="b", token_endpoint=server.token_endpoint).fetch(None)
        assert server.requests[0].form == [("grant_type", "client_credentials")]

    def test_asks_for_json_by_a_form_without_compression(self, server: OAuthServer) -> None:
        ClientCredentials(client_id="a", client_secret="b", token_endpoint=server.token_endpoint).fetch(None)
        headers = server.requests[0].headers
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        assert (headers["accept"], headers["accept-encoding"]) == ("application/json", "identity")

    def test_keeps_the_query_of_a_token_endpoint(self, server: OAuthServer) -> None:
        url = f"{server.token_endpoint}?tenant=1"
        ClientCredentials(client_id="a", client_secret="b", token_endpoint=url).fetch(None)
        assert server.requests[0].path == "/token?tenant=1"

    @pytest.mark.parametrize("client_id", ["pump-17", "pump:17", "a b+c%20&=ä/ü?"])
    @pytest.mark.parametrize("secret", ["simple", "with:colon", "+ %2B&=/?#", "pässwörd €", "~!*'()"])
    def test_basic_survives_every_character(self, server: OAuthServer, client_id: str, secret: str) -> None:
        ClientCredentials(client_id=client_id, client_secret=secret, token_endpoint=server.token_endpoint).fetch(None)
        assert basic(server.requests[0]) == (client_id, secret)

    def test_post_sends_id_and_secret_in_the_body_only(self, server: OAuthServer) -> None:
        auth = ClientSecretPost("pässwörd:+%")
        ClientCredentials(client_id="ä b", client_auth=auth, token_endpoint=server.token_endpoint).fetch(None)
        assert server.requests[0].form[1:] == [("client_id", "ä b"), ("client_secret", "pässwörd:+%")]
        assert "authorization" not in server.requests[0].headers

    @pytest.mark.parametrize(
        ("offered", "in_the_body"),
        [
            (None, False),
            (["client_secret_basic", "client_secret_post"], False),
            (["client_secret_post", "private_key_jwt"], True),
            (["private_key_jwt"], False),
            ("client_secret_post", False),
        ],
    )
    def test_secret_goes_into_the_body_only_where_the_server_offers_nothing_better(
        self, server: OAuthServer, offered: object, in_the_body: bool
    ) -> None:
        server.describe(OPENID, token_endpoint_auth_methods_supported=offered)
        ClientCredentials(client_id="pump-17", client_secret="secret", issuer=server.origin).fetch(None)
        request = server.token_requests[0]
        assert (("client_secret", "secret") in request.form) is in_the_body
        assert ("authorization" in request.headers) is not in_the_body

    def test_authentication_that_is_named_is_used_whatever_the_server_offers(self, server: OAuthServer) -> None:
        server.describe(OPENID, token_endpoint_auth_methods_supported=["client_secret_post"])
        auth = ClientSecretBasic("secret")
        ClientCredentials(client_id="pump-17", client_auth=auth, issuer=server.origin).fetch(None)
        assert basic(server.token_requests[0]) == ("pump-17", "secret")


class TestHostileAnswer:
    @pytest.mark.parametrize(
        "hostile",
        [
            oauth_server.SILENCE,
            oauth_server.TRICKLE,
            oauth_server.HEADER_TRICKLE,
            oauth_server.ENDLESS,
            oauth_server.TEN_MEGABYTES,
            oauth_server.GZIP_BOMB,
            oauth_server.CUT_OFF,
            oauth_server.HANG_UP,
            oauth_server.NOT_HTTP,
            answer(b"", 307, location="https://evil.example/token"),
            answer(b'{"access_token": "abc', content_type="application/json"),
            answer(b"<html>Log in</html>", content_type="text/html"),
            token_answer(token_type="mac"),
            answer({"access_token": 7}),
        ],
    )
    def test_becomes_no_token_and_nothing_is_stored(self, server: OAuthServer, hostile: Answer) -> None:
        source = ClientCredentials(
            client_id="a", client_secret="b", token_endpoint=server.token_endpoint, timeout=(0.1, 0.1)
        )
        server.script.append(hostile)
        store = MemoryStore()
        keeper = TokenKeeper(source, store)
        with pytest.raises(TokenError):
            keeper.get()
        assert keeper.current is None
        assert store.load(source.key) is None


RIGHT: dict[str, Any] = {"client_id": "pump-17", "client_secret": "secret", "issuer": "https://id.example.com"}


class TestArguments:
    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"client_id": ""}, "client_id"),
            ({"client_id": None}, "client_id"),
            ({"client_id": "a\n"}, "client_id"),
            ({"issuer": None}, "issuer is missing; give it, or token_endpoint instead"),
            ({"token_endpoint": "https://id.example.com/token"}, "issuer cannot be combined with token_endpoint"),
            ({"issuer": "http://id.example.com"}, "https"),
            ({"issuer": "id.example.com"}, "issuer"),
            ({"issuer": "https://id.example.com?a=b"}, "query"),
            ({"issuer": None, "token_endpoint": "http://id.example.com/token"}, "token_endpoint"),
            ({"client_secret": None}, "client_secret"),
            ({"client_secret": ""}, "client_secret"),
            ({"client_secret": 5}, "client_secret"),
            ({"client_secret": "secret\n"}, "line end"),
            ({"client_secret": "\udce4"}, "client_secret"),
            ({"client_auth": ClientSecretBasic("s")}, "client_auth"),
            ({"client_secret": None, "client_auth": "s"}, "client_auth"),
            ({"scope": 5}, "scope"),
            ({"scope": ["a", 5]}, "scope"),
            ({"scope": {"a"}}, "scope"),
            ({"scope": ""}, "scope"),
            ({"audience": ["a"]}, "audience"),
            ({"audience": ""}, "audience"),
            ({"resource": 5}, "resource"),
            ({"resource": [""]}, "resource"),
            ({"extra": ["a"]}, "extra"),
            ({"extra": {"a": 5}}, "extra"),
            ({"extra": {5: "a"}}, "extra"),
            ({"extra": {"scope": "a"}}, "scope"),
            ({"extra": {"grant_type": "a"}}, "grant_type"),
            ({"timeout": 10}, "timeout"),
            ({"ca_bundle": "/no/such/file"}, "ca_bundle"),
            ({"proxies": "http://proxy"}, "proxies"),
        ],
        ids=str,
    )
    def test_wrong_one_is_named_in_one_line_without_the_secret(self, wrong: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named) as caught:
            ClientCredentials(**{**RIGHT, **wrong})
        assert "\n" not in str(caught.value)
        assert "secret\n" not in str(caught.value)

    def test_plain_http_to_another_machine_may_be_allowed_by_name(self) -> None:
        ClientCredentials(client_id="a", client_secret="b", issuer="http://id.example.com", allow_insecure=True)

    def test_repr_names_the_client_and_the_server_only(self) -> None:
        assert repr(ClientCredentials(**RIGHT)) == (
            "ClientCredentials(client_id='pump-17', issuer='https://id.example.com')"
        )


class TestKey:
    def test_is_of_all_that_makes_the_token_another(self) -> None:
        others: list[dict[str, Any]] = [
            {},
            {"client_id": "pump-18"},
            {"issuer": "https://id2.example.com"},
            {"issuer": None, "token_endpoint": "https://id.example.com"},
            {"scope": "a"},
            {"audience": "a"},
            {"resource": "a"},
            {"resource": ["a", "b"]},
            {"extra": {"a": "b"}},
        ]
        assert len({ClientCredentials(**{**RIGHT, **other}).key for other in others}) == len(others)

    def test_is_not_of_the_secret_nor_of_how_things_are_written(self) -> None:
        same: list[dict[str, Any]] = [
            {"scope": "a b", "extra": {"x": "1", "y": "2"}},
            {"scope": ["a", "b"], "extra": {"y": "2", "x": "1"}, "client_secret": "another"},
        ]
        assert len({ClientCredentials(**{**RIGHT, **one}).key for one in same}) == 1

    def test_is_the_same_in_every_process(self) -> None:
        program = (
            "from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials\n"
            f"print(ClientCredentials(**{RIGHT!r}, scope=['a', 'b'], extra={{'x': '1', 'y': '2'}}).key)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ClientCredentials(**RIGHT, scope=["a", "b"], extra={"y": "2", "x": "1"}).key


def test_making_a_source_imports_no_http_library() -> None:
    program = (
        "import sys\n"
        "from mqtt_token_client.tokens.keeper import TokenKeeper\n"
        "from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials\n"
        f"TokenKeeper(ClientCredentials(**{RIGHT!r}))\n"
        "print({'requests', 'urllib3', 'keyring', 'cryptography', 'jwt'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_debug_log_of_a_renewal_shows_no_secret(server: OAuthServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = ClientCredentials(
        client_id="pump-17", client_secret="the-client-secret", token_endpoint=server.token_endpoint
    )
    server.script.append(token_answer("the-first-token"))
    server.script.append(answer({"error": "invalid_client", "error_description": "the-client-secret"}, 401))
    keeper = TokenKeeper(source, MemoryStore(), on_event=lambda event: logging.getLogger("app").info("%r", event))
    keeper.get()
    with pytest.raises(TokenError):
        keeper.renew()
    assert "TokenRenewed" in caplog.text
    assert "RenewalFailed" in caplog.text
    basic = base64.b64encode(b"pump-17:the-client-secret").decode()
    assert not [secret for secret in ("the-client-secret", "the-first-token", basic) if secret in caplog.text]
