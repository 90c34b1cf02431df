"""Acme pumps."""

from __future__ import annotations

from homeassistant.const import EVENT_HOMEASSISTANT_STOP, Platform
from homeassistant.core import HomeAssistant

from .coordinator import AcmeConfigEntry, PumpCoordinator

PLATFORMS = [Platform.SENSOR]


async def async_setup_entry(hass: HomeAssistant, entry: AcmeConfigEntry) -> bool:
    """Connect, and create the entities."""
    coordinator = PumpCoordinator(hass, entry)
    await coordinator.async_connect()
    entry.runtime_data = coordinator
    # Home Assistant does not unload entries when it stops.
    entry.async_on_unload(hass.bus.async_listen_once(EVENT_HOMEASSISTANT_STOP, coordinator.async_on_stop))
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    return True


async def async_unload_entry(hass: HomeAssistant, entry: AcmeConfigEntry) -> bool:
    """Remove the entities; then Home Assistant shuts the coordinator down."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)
