"""A sensor for the pressure of each pump."""

from __future__ import annotations

from homeassistant.components.sensor import SensorDeviceClass, SensorEntity
from homeassistant.config_entries import ConfigEntry
from homeassistant.const import UnitOfPressure
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from .coordinator import PumpCoordinator


async def async_setup_entry(
    hass: HomeAssistant, entry: ConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    coordinator: PumpCoordinator = entry.runtime_data
    known: set[str] = set()

    @callback
    def add_new() -> None:
        new = coordinator.data.keys() - known
        known.update(new)
        async_add_entities(PressureSensor(coordinator, pump) for pump in sorted(new))

    add_new()
    entry.async_on_unload(coordinator.async_add_listener(add_new))


class PressureSensor(CoordinatorEntity[PumpCoordinator], SensorEntity):
    _attr_has_entity_name = True
    _attr_device_class = SensorDeviceClass.PRESSURE
    _attr_native_unit_of_measurement = UnitOfPressure.BAR

    def __init__(self, coordinator: PumpCoordinator, pump: str) -> None:
        super().__init__(coordinator)
        self._pump = pump
        self._attr_unique_id = f"{pump}-pressure"
        self._attr_name = f"{pump} pressure"

    @property
    def native_value(self) -> float | None:
        value = self.coordinator.data[self._pump].get("pressure")
        return float(value) if isinstance(value, int | float) else None
