"""A token with fewer scopes than requested is reported, once, and used."""

from __future__ import annotations

import pytest

from mqtt_token_client.events import ScopeReduced, TokenRenewed
from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials
from mqtt_token_client.token import Token

from .keeping import Source, keep
from .oauth_server import OAuthServer, answer


class Scoped(Source):
    scope = "read write admin"


def granted(scope: str | None, number: int = 1, refresh_token: str | None = None) -> Token:
    return Token(f"token {number} for {scope}", 60, scope=scope, refresh_token=refresh_token)


def test_missing_scopes_are_reported_after_the_token() -> None:
    source = Scoped()
    source.next = [granted("write read")]
    keeper, events = keep(source)
    assert keeper.token.value == "token 1 for write read"
    assert [type(event) for event in events] == [TokenRenewed, ScopeReduced]
    assert events[1] == ScopeReduced("admin", "write read")


def test_each_difference_is_reported_once() -> None:
    source = Scoped()
    scopes = ["read", "read", "read write admin", "read"]
    source.next = [granted(scope, number) for number, scope in enumerate(scopes)]
    keeper, events = keep(source)
    for _ in scopes:
        keeper.renew()
    assert [event for event in events if isinstance(event, ScopeReduced)] == [ScopeReduced("write admin", "read")] * 2


@pytest.mark.parametrize(
    ("requested", "scope", "refresh_token"),
    [
        ("read", "read", None),
        ("read", None, None),  # RFC 6749 section 5.1: the same as requested
        ("read", "read more", None),
        (None, "read", None),
        ("openid offline_access", "openid", "a refresh token"),
        ("api://plant/.default", "api://plant/Read", None),
    ],
)
def test_a_token_with_all_that_was_requested_is_not_reported(
    requested: str | None, scope: str | None, refresh_token: str | None
) -> None:
    source = Source()
    source.scope = requested  # type: ignore[attr-defined]
    source.next = [granted(scope, refresh_token=refresh_token)]
    keeper, events = keep(source)
    keeper.renew()
    assert [type(event) for event in events] == [TokenRenewed]


def test_the_scopes_of_client_credentials_are_compared() -> None:
    with OAuthServer() as server:
        server.script.append(answer({"access_token": "t", "token_type": "Bearer", "expires_in": 60, "scope": "read"}))
        made = ClientCredentials(
            token_endpoint=server.token_endpoint, client_id="pump", client_secret="s", scope=["read", "write"]
        )
        keeper, events = keep(made)
        keeper.renew()
    assert events[1] == ScopeReduced("write", "read")
