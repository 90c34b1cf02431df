"""SensorEntity."""

from enum import StrEnum


class SensorDeviceClass(StrEnum):
    PRESSURE = "pressure"


class SensorEntity:
    """A sensor."""
