"""ConfigEntry and ConfigFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .core import HomeAssistant

SOURCE_USER, SOURCE_REAUTH = "user", "reauth"
ConfigFlowResult = dict[str, Any]


class AbortFlow(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigEntry:
    def __init__(self, domain: str, entry_id: str, unique_id: str, data: dict[str, Any]) -> None:
        self.domain = domain
        self.entry_id = entry_id
        self.unique_id = unique_id
        self.data = data
        self.runtime_data: Any = None
        self.reauths = 0

    def async_start_reauth(self, hass: HomeAssistant) -> None:
        self.reauths += 1

    def async_on_unload(self, function: Callable[[], None]) -> None:
        """Called when the entry is unloaded; here never."""


class ConfigFlow:
    hass: HomeAssistant
    source = SOURCE_USER
    entry: ConfigEntry | None = None  # that is authenticated again
    unique_id: str | None = None

    def __init_subclass__(cls, *, domain: str, **more: Any) -> None:
        super().__init_subclass__(**more)

    def async_show_form(self, **result: Any) -> ConfigFlowResult:
        return {"type": "form", **result}

    def async_show_progress(self, **result: Any) -> ConfigFlowResult:
        return {"type": "progress", **result}

    def async_show_progress_done(self, **result: Any) -> ConfigFlowResult:
        return {"type": "progress_done", **result}

    def async_abort(self, *, reason: str) -> ConfigFlowResult:
        return {"type": "abort", "reason": reason}

    def async_create_entry(self, **result: Any) -> ConfigFlowResult:
        return {"type": "create_entry", **result}

    async def async_set_unique_id(self, unique_id: str) -> None:
        self.unique_id = unique_id

    def _abort_if_unique_id_configured(self) -> None:
        """There is no other entry."""

    def _abort_if_unique_id_mismatch(self, *, reason: str) -> None:
        assert self.entry is not None
        if self.entry.unique_id != self.unique_id:
            raise AbortFlow(reason)

    def _get_reauth_entry(self) -> ConfigEntry:
        assert self.entry is not None
        return self.entry

    def async_update_reload_and_abort(self, entry: ConfigEntry, *, data_updates: dict[str, Any]) -> ConfigFlowResult:
        entry.data = {**entry.data, **data_updates}
        self.hass.config_entries.reloads += 1
        return self.async_abort(reason="reauth_successful")
