"""The account's tokens: obtained once with a person, renewed without, kept in the config entry."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant

from mqtt_token_client import DeviceFlow, DeviceLogin, Token, TokenRequestRefused

from . import const

TOKEN = "token"  # in the data of the config entry

_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by entry


def device_flow(prompt: Callable[[DeviceLogin], object]) -> DeviceFlow:
    return DeviceFlow(issuer=const.ISSUER, client_id=const.CLIENT_ID, scope=const.SCOPE, prompt=prompt)


def as_data(token: Token) -> dict[str, Any]:
    """What the config entry keeps, as Home Assistant does for its own OAuth integrations."""
    return {"access_token": token.value, "lifetime": token.lifetime, "refresh_token": token.refresh_token}


class UnattendedLogin:
    """A token source that never asks a person: that is the config flow's part."""

    uses_refresh_tokens = True

    def __init__(self) -> None:
        self._flow = device_flow(lambda _login: None)

    def fetch(self, previous: Token | None) -> Token:
        if previous is None or previous.refresh_token is None:
            raise TokenRequestRefused("log in again", error="invalid_grant")
        return self._flow.fetch(previous)


class EntryStore:
    """Keeps the refresh token in the config entry. Its methods are called on worker threads."""

    def __init__(self, hass: HomeAssistant, entry: ConfigEntry) -> None:
        self._hass = hass
        self._entry = entry

    def load(self, key: str) -> Token | None:
        data = self._entry.data[TOKEN]
        if data is None:
            return None
        # How old it is nobody knows after a restart, so it is renewed first; if that fails, it may still be valid.
        return Token(data["access_token"], data["lifetime"], refresh_token=data["refresh_token"], age_known=False)

    def save(self, key: str, token: Token) -> None:
        asyncio.run_coroutine_threadsafe(self._update(as_data(token)), self._hass.loop).result(10)

    def delete(self, key: str) -> None:
        asyncio.run_coroutine_threadsafe(self._update(None), self._hass.loop).result(10)

    def lock(self, key: str) -> AbstractContextManager[object]:
        """Let one client of the entry renew at a time. One whose set-up failed may still wait for the server's answer
        when the next set-up begins, which would present the same refresh token again.
        """
        return _locks[self._entry.entry_id]

    async def _update(self, data: dict[str, Any] | None) -> None:
        self._hass.config_entries.async_update_entry(self._entry, data={**self._entry.data, TOKEN: data})
