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
        self._unfinished: dict[int, None] = {}  # part of those in use, oldest first: see give_up()
        self._last = last

    def take(self) -> int:
        """Return an identifier that is not in use, or 0 if all of them are."""
        in_use, packet_id = self._in_use, self._last % HIGHEST_PACKET_ID + 1
        while packet_id in in_use:
            if len(in_use) == HIGHEST_PACKET_ID:
                return self._take_unfinished()
            packet_id = packet_id % HIGHEST_PACKET_ID + 1
        in_use.add(packet_id)
        self._last = packet_id
        return packet_id

    def _take_unfinished(self) -> int:
        for oldest in self._unfinished:
            del self._unfinished[oldest]
            return oldest
        return 0

    def reserve(self, packet_id: int) -> None:
        """Mark an identifier as in use that an earlier process took."""
        self._in_use.add(packet_id)

    def free(self, packet_id: int) -> None:
        """Make an identifier available again."""
        self._in_use.discard(packet_id)

    def give_up(self, packet_id: int, *, finished: bool) -> None:
        """Give up the identifier of a message that has failed. If the broker may not have ``finished`` its exchange of
        QoS 2, it would take another message with this identifier for the same one, and drop it (section 4.3.3): until
        :meth:`finish` it is taken only if no other is left.
        """
        if finished:
            self._in_use.discard(packet_id)
        else:
            self._unfinished[packet_id] = None

    def finish(self, packet_id: int) -> None:
        """The broker has finished the exchange of an identifier, if it is one that was given up."""
        if packet_id in self._unfinished:
            del self._unfinished[packet_id]
            self._in_use.discard(packet_id)

    @property
    def unfinished(self) -> tuple[int, ...]:
        """The identifiers that were given up, and are not finished."""
        return tuple(self._unfinished)

    def session_lost(self) -> None:
        """The broker has no session: it has finished every exchange."""
        self._in_use -= self._unfinished.keys()
        self._unfinished.clear()
