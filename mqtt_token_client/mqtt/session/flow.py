"""How many messages may be unacknowledged at once: as many as keep the line busy, and not so many that they pile up.

A fixed number is too small for a long line (20 at a round trip of 100 ms are 200 messages a second) and too large for a
slow one, where what has been handed to the operating system delays PINGREQ, and with it a handover, by minutes. So the
window doubles while it is what holds messages up and their acknowledgements still come as fast as the first ones did,
and it shrinks when they take far longer: TCP Vegas with a coarse scale.
"""

from __future__ import annotations

import math

from ...clock import monotonic

_FIRST, _LEAST = 100, 20  # messages
_WAIT, _LONG_WAIT = 0.01, 0.1  # seconds behind others, that count for nothing and that count


class InflightWindow:
    """The window of one client.

    Args:
        most: messages.

    Attributes:
        size: messages that may be unacknowledged now.
        timed: the packet identifier of the message whose acknowledgement is timed, 0 for none.
    """

    def __init__(self, most: int) -> None:
        self.size = min(_FIRST, most)
        self.timed = 0
        self._most = most
        self._sent_at = 0.0
        self._shortest = math.inf  # seconds from a message to its acknowledgement, on this connection
        self._was_full = False

    def full(self) -> None:
        """A message waits, as the window is full."""
        self._was_full = True

    def sent(self, packet_id: int) -> None:
        """Time this message."""
        self.timed, self._sent_at = packet_id, monotonic()

    def answered(self) -> None:
        """The timed message is acknowledged."""
        took, self.timed = monotonic() - self._sent_at, 0
        self._shortest = min(self._shortest, took)
        if took > 4 * self._shortest + _LONG_WAIT:
            least = min(_LEAST, self._most)
            if self.size == least:  # so few hardly wait for each other: the line itself has become longer
                self._shortest = took
            self.size = max(self.size // 2, least)
        elif self._was_full and took < 2 * self._shortest + _WAIT:
            self.size = min(self.size * 2, self._most)
        self._was_full = False

    def forget(self, packet_id: int) -> None:
        """This message will not be acknowledged, or not now."""
        if packet_id == self.timed:
            self.timed = 0

    def connection_lost(self) -> None:
        """The next one may be of another length."""
        self.timed, self._shortest = 0, math.inf
