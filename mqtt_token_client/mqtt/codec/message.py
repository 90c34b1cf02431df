"""A message from the broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Message:
    """A message from the broker.

    ``duplicate`` is the DUP flag: it may have been delivered before. ``properties`` are those of MQTT 5, by their names
    in snake_case, such as ``content_type``; empty in MQTT 3.1.1.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    properties: dict[str, Any] = field(default_factory=dict)
    packet_id: int = field(default=0, repr=False, compare=False)
    _acknowledge: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def acknowledge(self) -> None:
        """With ``manual_ack=True``: acknowledge the message once it is stored or acted upon; from any thread. Until
        then the broker keeps it, and sends it again after a restart. Without ``manual_ack`` it is acknowledged already.
        """
        if self._acknowledge is not None:
            self._acknowledge()
