"""Packet identifiers: 1 to 65,535, each used by one packet at a time (MQTT 5 section 2.2.1)."""

from __future__ import annotations

HIGHEST_PACKET_ID = 65_535


class PacketIds:
    """The packet identifiers of one session. Runs on the network thread.

    Args:
        last: the identifier before the first one to be taken, 0 to 65,535.
    """

    def __init__(self, last: int = 0) -> None:
        self._in_use: set[int] = set()
        self._last = last

    def take(self) -> int:
        """Return an identifier that is not in use, or 0 if all of them are."""
        while True:
            self._last = self._last % HIGHEST_PACKET_ID + 1
            if self._last not in self._in_use:
                self._in_use.add(self._last)
                return self._last
            if len(self._in_use) == HIGHEST_PACKET_ID:
                return 0

    def reserve(self, packet_id: int) -> None:
        """Mark an identifier as in use that an earlier process took."""
        self._in_use.add(packet_id)

    def free(self, packet_id: int) -> None:
        """Make an identifier available again."""
        self._in_use.discard(packet_id)
