"""An open connection to the broker: TCP, TLS, WebSocket, proxy, keepalive."""

from __future__ import annotations

from typing import NamedTuple


class Loss(NamedTuple):
    """How a connection ended."""

    cause: str
    reason: int | None = None  # the reason code of MQTT 5, if the broker gave one
    by_broker: bool = False  # whether the broker ended it, and not this client or the network
