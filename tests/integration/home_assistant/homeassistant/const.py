"""Names."""

from enum import StrEnum


class Platform(StrEnum):
    SENSOR = "sensor"


class UnitOfPressure(StrEnum):
    BAR = "bar"
