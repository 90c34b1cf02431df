"""An open connection to the broker: TCP, TLS, WebSocket, proxy, keepalive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from ..codec.packets import Packet
    from .connection import NetworkConnection

HIGH_WATER = 65_536  # bytes waiting beyond which nothing is taken from the outbox
_MOST_ANSWERS = 2**20  # bytes; two answers to each packet identifier take less

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


class Unsent(bytearray):
    """Bytes that wait for the operating system to take them."""

    _answers = 0  # bytes of answers that came behind HIGH_WATER others
    _first = 0  # where these begin, in all that is sent

    def piles_up(self, before: int, sent: int) -> bool:
        """Whether the broker sends without reading the answers: it may send that much only once it has read some.

        Args:
            before: how many bytes, HIGH_WATER or more, waited before packets of the broker were answered.
            sent: how many have been sent, since the beginning.
        """
        if sent >= self._first:
            self._answers, self._first = 0, sent + before
        self._answers += max(0, len(self) - before)
        return self._answers > _MOST_ANSWERS
