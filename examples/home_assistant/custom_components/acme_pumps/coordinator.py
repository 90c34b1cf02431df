"""The connection to Acme's broker, and the newest state of each pump."""

from __future__ import annotations

import json
import logging
from typing import Any, TypeAlias

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import Event as HomeAssistantEvent, HomeAssistant
from homeassistant.exceptions import ConfigEntryAuthFailed, ConfigEntryNotReady
from homeassistant.helpers.update_coordinator import DataUpdateCoordinator, UpdateFailed

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

AcmeConfigEntry: TypeAlias = "ConfigEntry[PumpCoordinator]"


class PumpCoordinator(DataUpdateCoordinator[dict[str, dict[str, Any]]]):
    """``data`` has the newest state of each pump, by its name. The broker pushes; nothing polls."""

    config_entry: AcmeConfigEntry

    def __init__(self, hass: HomeAssistant, entry: AcmeConfigEntry) -> None:
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

    async def async_connect(self) -> None:
        """Connect. From then on the client stays connected by itself.

        Raises:
            ConfigEntryAuthFailed: a person has to log in.
            ConfigEntryNotReady: it did not work this time; Home Assistant tries again.
        """
        try:
            connected = await self.client.connect(timeout=const.CONNECT_TIMEOUT)
        except TokenRequestRefused as error:
            if error.needs_login:
                raise ConfigEntryAuthFailed("Acme no longer accepts this login") from error
            raise ConfigEntryNotReady(str(error)) from error
        except MqttTokenError as error:
            raise ConfigEntryNotReady(str(error)) from error
        if not connected:
            raise ConfigEntryNotReady("Acme's broker did not answer")

    async def async_shutdown(self) -> None:
        """Disconnect. Home Assistant calls this when it unloads the entry, and when the set-up has failed."""
        await super().async_shutdown()
        await self.client.disconnect()

    async def async_on_stop(self, _event: HomeAssistantEvent) -> None:
        """Disconnect when Home Assistant stops."""
        await self.async_shutdown()

    async def async_send(self, pump: str, command: str) -> None:
        """Send a command; returns when the broker has it."""
        await self.client.publish(f"pumps/{pump}/command", command, qos=1)

    def _on_state(self, message: Message) -> None:
        pump = message.topic.split("/")[1]
        try:
            state = json.loads(message.payload)
        except ValueError:
            state = None
        if not isinstance(state, dict):
            _LOGGER.warning("%s sent a state that is not a JSON object", pump)
            return
        self.async_set_updated_data({**self.data, pump: state})

    def _on_event(self, event: Event) -> None:
        match event:
            case LoginRequired():
                self.config_entry.async_start_reauth(self.hass)
            case Disconnected(cause=cause):
                self.async_set_update_error(UpdateFailed(cause))  # the entities become unavailable
            case Connected():
                self.async_set_updated_data(self.data)
