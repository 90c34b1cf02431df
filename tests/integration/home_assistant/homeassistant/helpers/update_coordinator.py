"""DataUpdateCoordinator and its entities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Data = TypeVar("_Data")
_Coordinator = TypeVar("_Coordinator")


class DataUpdateCoordinator(Generic[_Data]):
    data: _Data

    def __init__(self, hass: Any, logger: Any, *, config_entry: Any, name: str) -> None:
        self.hass = hass
        self.config_entry = config_entry
        self.last_update_success = True
        self._listeners: list[Callable[[], None]] = []

    def async_add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def async_set_updated_data(self, data: _Data) -> None:
        self.data, self.last_update_success = data, True
        self._call()

    def async_set_update_error(self, error: Exception) -> None:
        self.last_update_success = False
        self._call()

    def _call(self) -> None:
        for listener in list(self._listeners):
            listener()


class CoordinatorEntity(Generic[_Coordinator]):
    def __init__(self, coordinator: _Coordinator) -> None:
        self.coordinator = coordinator

    @property
    def available(self) -> bool:
        return bool(self.coordinator.last_update_success)  # type: ignore[attr-defined]  # a DataUpdateCoordinator
