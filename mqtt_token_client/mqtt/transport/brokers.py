"""Which of several brokers to connect to."""

from __future__ import annotations

from collections.abc import Sequence

from ...clock import monotonic
from .address import Address

_AVOIDED = 60.0  # seconds after a failure in which a broker is used only if all the others have failed as well


class Brokers:
    """The addresses of one client, in the order of its preference.

    Attributes:
        current: the one to connect to. It stays the same, also after a loss, until it fails.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._avoided_until: dict[Address, float] = {}
        self.current = addresses[0]

    def failed(self) -> None:
        """Report that the current broker cannot be reached or rejected the client. The next is the first that is not
        avoided, or else the one that has been avoided for the longest time.
        """
        now = monotonic()
        self._avoided_until[self.current] = now + _AVOIDED
        self.current = min(self._addresses, key=lambda address: max(now, self._avoided_until.get(address, now)))
