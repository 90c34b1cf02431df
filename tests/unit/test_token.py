"""Token, a value."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mqtt_token_client import token as token_module
from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.token import Token, read_claims


def jwt(**claims: object) -> str:
    payload = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{payload}.signature"


class TestLife:
    def test_is_what_the_server_said(self) -> None:
        assert Token("opaque", 3600).lifetime == 3600

    def test_is_that_of_the_claims_where_the_server_said_nothing(self) -> None:
        assert Token(jwt(iat=1000, exp=1060)).lifetime == 60

    @pytest.mark.parametrize(("expires_in", "life"), [(30, 30), (90, 60)])
    def test_is_the_shorter_of_both(self, expires_in: float, life: float) -> None:
        assert Token(jwt(iat=1000, exp=1060), expires_in).lifetime == life

    @pytest.mark.parametrize(
        "claims",
        [{}, {"exp": 1060}, {"iat": 1000}, {"iat": True, "exp": 5}, {"iat": "1", "exp": 5}, {"iat": 1, "exp": 10**400}],
    )
    def test_has_no_end_where_nobody_says_when(self, claims: dict[str, object]) -> None:
        assert Token(jwt(**claims)).lifetime == math.inf
        assert Token("opaque").expires_in == math.inf

    def test_counts_down_from_when_the_request_was_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(token_module, "monotonic", lambda: 1000.0)
        token = Token("opaque", 60, since=990.0)
        assert token.expires_in == 50
        assert Token("opaque", 60).expires_in == 60
        monkeypatch.setattr(token_module, "monotonic", lambda: 1100.0)
        assert token.expires_in == -50

    @pytest.mark.parametrize("expires_in", ["soon", [], {}, math.nan])
    def test_must_be_a_number(self, expires_in: Any) -> None:
        with pytest.raises(ConfigurationError, match="expires_in"):
            Token("opaque", expires_in)


class TestValue:
    @pytest.mark.parametrize("value", ["", None, 5, b"bytes"])
    def test_must_be_a_string_that_is_not_empty(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="token"):
            Token(value)

    def test_is_not_shown_and_neither_is_the_refresh_token(self) -> None:
        value = jwt(jti="0123456789abcdef")
        token = Token(value, 60, refresh_token="the-refresh-token")
        assert "jti=…abcdef" in repr(token)
        assert "9abcdef" not in repr(token)
        assert not [secret for secret in (value, value.split(".")[1], "the-refresh-token") if secret in repr(token)]
        assert repr(Token("opaque")) == "Token(expires_in=inf)"

    @pytest.mark.parametrize("name", ["value", "lifetime", "refresh_token", "since", "other"])
    def test_does_not_change(self, name: str) -> None:
        with pytest.raises(AttributeError, match=name):
            setattr(Token("opaque"), name, 5)

    def test_alone_makes_tokens_equal(self) -> None:
        assert Token("a", 5) == Token("a", 60)
        assert hash(Token("a", 5)) == hash(Token("a", 60))
        assert Token("a") != Token("b")
        assert Token("a") != "a"

    def test_comes_with_what_the_server_added(self) -> None:
        token = Token("a", refresh_token="r", scope="x y")
        assert (token.refresh_token, token.scope) == ("r", "x y")
        assert (Token("a").refresh_token, Token("a").scope) == (None, None)


class TestClaims:
    def test_are_read_without_checking(self) -> None:
        assert Token(jwt(sub="pump-17", exp=1)).claims == {"sub": "pump-17", "exp": 1}

    def test_cannot_be_changed_through_what_was_read(self) -> None:
        token = Token(jwt(sub="pump-17"))
        token.claims["sub"] = "other"
        assert token.claims == {"sub": "pump-17"}

    @pytest.mark.parametrize("length", range(8))
    def test_need_no_padding(self, length: int) -> None:
        assert read_claims(jwt(a="x" * length)) == {"a": "x" * length}

    @pytest.mark.parametrize(
        "value", ["opaque", "a.b.c", "a..c", f"a.{urlsafe_b64encode(b'[1]').decode()}.c", "a.ü.c", "..."]
    )
    def test_of_a_token_that_is_not_a_jwt_are_empty(self, value: str) -> None:
        assert read_claims(value) == {}

    @given(st.text(min_size=1))
    def test_of_any_text_raise_nothing(self, value: str) -> None:
        assert Token(value).expires_in > 0
