"""A sensor for the pressure of each pump."""

from __future__ import annotations

from homeassistant.components.sensor import SensorDeviceClass, SensorEntity, SensorStateClass
from homeassistant.const import UnitOfPressure
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.update_coordinator import CoordinatorEntity

from . import const
from .coordinator import AcmeConfigEntry, PumpCoordinator

PARALLEL_UPDATES = 0  # nothing is polled


async def async_setup_entry(
    hass: HomeAssistant, entry: AcmeConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add a sensor for each pump, when its first state arrives."""
    coordinator = entry.runtime_data
    known: set[str] = set()

    @callback
    def add_new() -> None:
        if new := coordinator.data.keys() - known:
            known.update(new)
            async_add_entities(PressureSensor(coordinator, pump) for pump in sorted(new))

    add_new()
    entry.async_on_unload(coordinator.async_add_listener(add_new))


class PressureSensor(CoordinatorEntity[PumpCoordinator], SensorEntity):
    """Its name is that of its device class."""

    _attr_has_entity_name = True
    _attr_device_class = SensorDeviceClass.PRESSURE
    _attr_native_unit_of_measurement = UnitOfPressure.BAR
    _attr_state_class = SensorStateClass.MEASUREMENT

    def __init__(self, coordinator: PumpCoordinator, pump: str) -> None:
        super().__init__(coordinator)
        self._pump = pump
        self._attr_unique_id = f"{pump}-pressure"
        self._attr_device_info = DeviceInfo(
            identifiers={(const.DOMAIN, pump)}, manufacturer="Acme", name=f"Pump {pump}"
        )

    @property
    def native_value(self) -> float | None:
        """The pressure, if the newest state has it."""
        value = self.coordinator.data[self._pump].get("pressure")
        return float(value) if isinstance(value, int | float) else None
