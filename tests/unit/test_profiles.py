"""How a token is placed in CONNECT."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.profiles import Credentials, open_profile
from mqtt_token_client.profiles.password import Password
from mqtt_token_client.token import Token


def jwt(**claims: object) -> Token:
    return Token(f"e30.{urlsafe_b64encode(json.dumps(claims).encode()).decode()}.x")


class TestPassword:
    def test_is_the_token_with_the_client_id_as_user_name(self) -> None:
        token = Token("tokén")
        placed = Password().place(token, "pump-17")
        assert (placed.username, placed.password, placed.token) == ("pump-17", "tokén".encode(), token)

    @pytest.mark.parametrize("username", ["", "vhost:user"])
    def test_goes_with_the_user_name_that_is_given_even_an_empty_one(self, username: str) -> None:
        assert Password(username).place(Token("a"), "pump-17").username == username

    def test_goes_with_the_claim_that_is_named(self) -> None:
        assert Password(username_claim="sub").place(jwt(sub="alice"), "pump-17").username == "alice"

    @pytest.mark.parametrize("token", [Token("opaque"), jwt(), jwt(sub=5)])
    def test_cannot_go_with_a_claim_that_is_not_there(self, token: Token) -> None:
        with pytest.raises(ConfigurationError, match="sub"):
            Password(username_claim="sub").place(token, "pump-17")

    def test_holds_what_mqtt_can_carry_and_no_more(self) -> None:
        assert Password().place(Token("a" * 65_535), "pump-17").password == b"a" * 65_535
        for longer in ("a" * 65_536, "ü" * 32_768):
            with pytest.raises(ConfigurationError, match="65536 bytes"):
                Password().place(Token(longer), "pump-17")

    @pytest.mark.parametrize("wrong", [("a", "b"), (5, None), (None, 5)])
    def test_takes_one_user_name(self, wrong: tuple[Any, Any]) -> None:
        with pytest.raises(ConfigurationError, match="username"):
            Password(*wrong)


def test_repr_of_credentials_shows_no_password() -> None:
    assert "secret" not in repr(Credentials("pump-17", b"secret", Token("secret")))


def test_profile_is_opened_by_name_or_is_itself() -> None:
    mine = Password(username="me")
    assert open_profile("password") == Password()
    assert open_profile(mine) is mine


@pytest.mark.parametrize("wrong", ["passwort", 5, None, object()])
def test_something_else_than_a_profile_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="profile"):
        open_profile(wrong)
