"""HomeAssistant: the loop, its tasks, its executor, and the config entries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def callback(function: _Result) -> _Result:
    """Marks what runs on the loop."""
    return function


class ConfigEntries:
    def __init__(self, hass: HomeAssistant) -> None:
        self._hass = hass
        self.entities: list[Any] = []
        self.reloads = 0

    def async_update_entry(self, entry: Any, *, data: dict[str, Any]) -> None:
        asyncio.get_running_loop()  # on the loop only
        entry.data = data

    async def async_forward_entry_setups(self, entry: Any, platforms: list[str]) -> None:
        for platform in platforms:
            module = import_module(f"custom_components.{entry.domain}.{platform}")
            await module.async_setup_entry(self._hass, entry, self.entities.extend)

    async def async_unload_platforms(self, entry: Any, platforms: list[str]) -> bool:
        return True


class HomeAssistant:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.config_entries = ConfigEntries(self)

    def async_create_task(self, coroutine: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        return self.loop.create_task(coroutine)

    def async_add_executor_job(self, function: Callable[..., _Result], *arguments: Any) -> asyncio.Future[_Result]:
        return self.loop.run_in_executor(None, function, *arguments)
