"""The connection to Acme's broker, and the newest state of each pump."""

from __future__ import annotations

import json
import logging
from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import ConfigEntryAuthFailed, ConfigEntryNotReady
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator

from mqtt_token_client import (
    AsyncTokenClient,
    Connected,
    Disconnected,
    Event,
    LoginRequired,
    Message,
    MqttTokenError,
    TokenRequestRefused,
)

from . import const
from .tokens import EntryStore, UnattendedLogin

_LOGGER = logging.getLogger(__name__)


class PumpCoordinator(DataUpdateCoordinator[dict[str, dict[str, Any]]]):
    """``data`` has the newest state of each pump, by its name. The broker pushes; nothing polls."""

    def __init__(self, hass: HomeAssistant, entry: ConfigEntry) -> None:
        super().__init__(hass, _LOGGER, config_entry=entry, name=const.DOMAIN)
        self.data = {}
        self.client = AsyncTokenClient(
            const.BROKER,
            UnattendedLogin(),
            client_id=f"home-assistant-{entry.entry_id}",
            store=EntryStore(hass, entry),
            profile=const.PROFILE,
            on_event=self._on_event,
        )
        self.client.subscribe("pumps/+/state", self._on_state, qos=1)

    async def connect(self) -> None:
        """Connect. From then on the client stays connected by itself.

        Raises:
            ConfigEntryAuthFailed: a person has to log in.
            ConfigEntryNotReady: it did not work this time; Home Assistant tries again.
        """
        try:
            if not await self.client.connect(timeout=10):
                await self.client.disconnect(timeout=0)
                raise ConfigEntryNotReady("Acme's broker did not answer")
        except TokenRequestRefused as error:
            if error.needs_login:
                raise ConfigEntryAuthFailed("Acme no longer accepts this login") from error
            raise ConfigEntryNotReady(str(error)) from error
        except MqttTokenError as error:
            raise ConfigEntryNotReady(str(error)) from error

    async def disconnect(self) -> None:
        await self.client.disconnect()

    async def send(self, pump: str, command: str) -> None:
        """Send a command; returns when the broker has it."""
        await self.client.publish(f"pumps/{pump}/command", command, qos=1)

    def _on_state(self, message: Message) -> None:
        pump = message.topic.split("/")[1]
        try:
            state = json.loads(message.payload)
        except ValueError:
            _LOGGER.warning("%s sent a state that is not JSON", pump)
            return
        self.async_set_updated_data({**self.data, pump: state})

    def _on_event(self, event: Event) -> None:
        match event:
            case LoginRequired():
                self.config_entry.async_start_reauth(self.hass)
            case Disconnected(cause=cause):
                self.async_set_update_error(ConnectionError(cause))  # the entities become unavailable
            case Connected():
                self.async_set_updated_data(self.data)
