"""A rejected token: the error and the event show what the broker got, and never the token."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from mqtt_token_client import (
    Connected,
    Credentials,
    Password,
    Profile,
    Token,
    TokenRefused,
    TokenRefusedByBroker,
    Username,
)
from mqtt_token_client.tokens.rejection import rejection_hint
from tests.unit.device import Make
from tests.unit.scripted_broker import PATIENCE

CLAIMS = {"iss": "https://id.example.com", "aud": ["plant", "mqtt"], "sub": "pump-17", "scope": "read write"}


def token(claims: dict[str, Any]) -> Token:
    return Token(jwt.encode(claims, "a key of thirty-two bytes, or more"), 60)


class Nameless:
    def place(self, token: Token, client_id: str) -> Credentials:
        return Credentials(None, None, token, auth_method="OAUTH2-JWT", auth_data=token.value.encode())


@pytest.mark.parametrize(
    ("profile", "begins"),
    [
        (
            Password(),
            "it got the user name 'pump-17' (profile=Password(username='…') sends another), and a token with ",
        ),
        (Password(username="plant"), "it got the user name 'plant' (profile= decides that), and a token with "),
        (
            Password(username="a:b:pump"),
            "it got the user name 'a:b:pump' (RabbitMQ takes 'a:b' for the virtual host; profile= decides that), and ",
        ),
        (Username(), "it got the token in the user name (profile= decides that): a token with "),
        (Nameless(), "it got no user name (profile= decides that), and a token with "),
    ],
)
def test_the_hint_begins_with_the_user_name_and_how_to_change_it(profile: Profile, begins: str) -> None:
    sent = token(CLAIMS)
    hint = rejection_hint(sent, profile.place(sent, "pump-17").username, "pump-17")
    assert hint.startswith(begins)
    assert sent.value not in hint


@pytest.mark.parametrize(
    ("claims", "shown"),
    [
        (CLAIMS, "iss='https://id.example.com', aud='plant mqtt', sub='pump-17', scope='read write': check"),
        ({"iss": "a\x1b[31m", "jti": "7"}, "iss='a[31m': check"),
        ({"scp": ["read"], "secret": "hidden"}, "a token with scp='read': check"),
        ({"sub": "x" * 500}, f"sub='{'x' * 99}…': check"),
        ({"jti": "7"}, "a JWT without iss, aud, sub and scope: check"),
    ],
)
def test_the_hint_shows_the_claims_that_a_broker_looks_at(claims: dict[str, Any], shown: str) -> None:
    assert shown in rejection_hint(token(claims), "pump-17", "pump-17")


def test_the_hint_says_that_a_token_is_opaque() -> None:
    hint = rejection_hint(Token("an-opaque-token", 60), "pump-17", "pump-17")
    assert "a token that is not a JWT, which only its issuer can check" in hint
    assert "an-opaque-token" not in hint


@pytest.mark.usefixtures("impatient")
def test_a_token_that_is_rejected_again_is_reported_with_the_hint(make: Make, pool: ThreadPoolExecutor) -> None:
    device = make()
    device.source.next = [token({**CLAIMS, "jti": str(number)}) for number in range(2)]
    connected = pool.submit(device.client.connect, PATIENCE)
    for _ in range(2):
        device.answer(0x87)
    with pytest.raises(
        TokenRefusedByBroker, match=r"in a row: Not authorized; it got the user name 'device'.*iss='https"
    ):
        connected.result(PATIENCE)
    first, second = device.reported(TokenRefused)
    assert first.hint == ""
    assert second.hint.startswith(
        "it got the user name 'device' (profile=Password(username='…') sends another), and a "
    )


def test_the_profile_of_the_application_is_not_asked_on_the_network_thread(make: Make) -> None:
    """It may block, and raise anything."""
    asked_on: list[str] = []

    class Blocking:
        def place(self, token: Token, client_id: str) -> Credentials:
            asked_on.append(threading.current_thread().name)
            return Credentials(client_id, token.value.encode(), token)

    device = make(profile=Blocking())
    device.client.connect(timeout=0)
    for _ in range(2):
        device.answer(0x87)
    device.until(lambda: len(device.reported(TokenRefused)) == 2)
    device.answer()
    device.event(Connected)
    assert set(asked_on) == {"mqtt-token-worker"}
