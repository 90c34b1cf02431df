"""A type."""

from collections.abc import Callable, Iterable
from typing import Any

AddConfigEntryEntitiesCallback = Callable[[Iterable[Any]], None]
