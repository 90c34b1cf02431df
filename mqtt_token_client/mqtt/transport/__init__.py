"""An open connection to the broker: TCP, TLS, WebSocket, proxy, keepalive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from ..codec.packets import Packet
    from .connection import NetworkConnection

_Item = TypeVar("_Item")


class Loss(NamedTuple):
    """How a connection ended."""

    cause: str
    reason: int | None = None  # the reason code of MQTT 5, if the broker gave one
    by_broker: bool = False  # whether the broker ended it, and not this client or the network


class ConnectionListener(Protocol[_Item]):
    """Receives a connection's notifications."""

    def packets_arrived(self, link: NetworkConnection[_Item], packets: list[Packet]) -> None: ...

    def connection_writable(self, link: NetworkConnection[_Item]) -> None:
        """It was full and accepts data again."""

    def connection_wrote(self, items: list[_Item]) -> None:
        """The operating system has all bytes that were written with these items."""

    def connection_closed(self, link: NetworkConnection[_Item], loss: Loss) -> None:
        """It failed. This is the last call."""


class Nobody(ConnectionListener[Any]):
    """Receives the notifications of a connection that was closed, and ignores them."""
