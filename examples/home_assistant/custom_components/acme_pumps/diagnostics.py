"""What a person may attach to a bug report."""

from __future__ import annotations

from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant

from .coordinator import PumpCoordinator


async def async_get_config_entry_diagnostics(hass: HomeAssistant, entry: ConfigEntry) -> dict[str, Any]:
    coordinator: PumpCoordinator = entry.runtime_data
    stats = coordinator.client.stats
    return {
        "state": coordinator.client.state,
        "token_expires_in": coordinator.client.token_expires_in,
        "stats": {name: getattr(stats, name) for name in stats.__match_args__},
        "pumps": sorted(coordinator.data),
    }
