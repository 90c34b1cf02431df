"""What a person may attach to a bug report."""

from __future__ import annotations

from typing import Any

from homeassistant.core import HomeAssistant

from .coordinator import AcmeConfigEntry


async def async_get_config_entry_diagnostics(hass: HomeAssistant, entry: AcmeConfigEntry) -> dict[str, Any]:
    """Return the state of the connection, without a token."""
    coordinator = entry.runtime_data
    stats = coordinator.client.stats
    return {
        "state": coordinator.client.state,
        "token_expires_in": coordinator.client.token_expires_in,
        "stats": {name: getattr(stats, name) for name in stats.__match_args__},
        "pumps": sorted(coordinator.data),
    }
