"""Which of several brokers to dial."""

from __future__ import annotations

from collections.abc import Sequence

from ...clock import monotonic
from .address import Address

_AVOIDED = 60.0  # seconds after a failure in which a broker is dialed only if all the others have failed as well


class Brokers:
    """The addresses of one client, in the order of its preference.

    Attributes:
        current: the one to dial. It stays the same, also after a loss, until it fails.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._avoided_until: dict[Address, float] = {}
        self.current = addresses[0]

    def failed(self) -> None:
        """No connection to the current one. The next is the first that is not avoided, or else that which has been
        avoided the longest.
        """
        now = monotonic()
        self._avoided_until[self.current] = now + _AVOIDED
        self.current = min(self._addresses, key=lambda address: max(now, self._avoided_until.get(address, now)))
