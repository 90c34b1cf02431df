"""Shared by the tests of the keeper: a clock that tests set, and a scripted source."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_token_client import token
from mqtt_token_client.errors import AuthorizationServerUnavailable
from mqtt_token_client.events import Event
from mqtt_token_client.token import Token
from mqtt_token_client.tokens import keeper, renewal, renewer, requests, saving
from mqtt_token_client.tokens.keeper import RenewalPolicy, TokenKeeper


class Clock:
    """A monotonic clock for keepers and tokens that moves only when a test moves it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (keeper, renewal, renewer, requests, saving, token):
            patch.setattr(module, "monotonic", lambda: self.now)


class Source:
    """Returns a new token each time, unless the script says otherwise."""

    key = "a source"

    def __init__(self, life: float | None = 60.0) -> None:
        self.life = life
        self.asked_with: list[Token | None] = []
        self.next: list[Any] = []  # tokens to return, exceptions to raise, functions to call
        self.always: Any = None

    @property
    def requests(self) -> int:
        return len(self.asked_with)

    def fetch(self, previous: Token | None) -> Token:
        self.asked_with.append(previous)
        step = self.next.pop(0) if self.next else self.always
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step = step()
        return Token(f"token {self.requests}", self.life) if step is None else step


EXACT = RenewalPolicy(jitter=0.0)
BUSY = AuthorizationServerUnavailable("busy")


def keep(source: Any, store: Any = None, **more: Any) -> tuple[TokenKeeper, list[Event]]:
    events: list[Event] = []
    return TokenKeeper(source, store, on_event=events.append, **{"policy": EXACT, **more}), events
