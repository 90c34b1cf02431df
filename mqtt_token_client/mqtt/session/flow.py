"""Flow control: how many messages may be unacknowledged at once, so that the connection is busy and nothing piles up.

A fixed number is too small for a long round trip (20 messages at 100 ms are 200 a second) and too large for a slow
connection, where what has been handed to the operating system delays PINGREQ, and with it a handover, by minutes. So
the window doubles while it is the window that holds messages up and their acknowledgements still come as fast as the
first ones did, and it shrinks when they take far longer: TCP Vegas with a coarse scale.

A broker may accept fewer messages than it announces, and then reject messages or end the connection because of a quota.
The window is halved then, and stays below that limit, which grows so slowly that the broker is rarely hit again. After
a rejected message nothing is sent for a while, which doubles from time to time, and then one message.
"""

from __future__ import annotations

import math

from ...backoff import uniform
from ...clock import monotonic

_INITIAL_PACKETS, _MIN_PACKETS = 100, 20
# A message waits behind others: for so long without consequence, and for so long before the window shrinks.
_SHORT_WAIT_SECONDS, _LONG_WAIT_SECONDS = 0.01, 0.1

_SAME_QUOTA_SECONDS = 1.0  # what is rejected within so many seconds was sent before the window was halved
_FIRST_GROWTH_SECONDS, _LAST_GROWTH_SECONDS = 60.0, 3600.0  # until the limit that follows from a quota grows a little
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 1.0, 60.0
_MAX_PAUSES = 10  # in a row, after each of which the same message was rejected: some five minutes


class InflightWindow:
    """The window of one client. Runs on the network thread.

    Args:
        maximum: messages.

    Attributes:
        size: how many messages may be unacknowledged now; 0 in a pause.
        timed: the packet identifier of the message whose acknowledgement is timed, 0 for none.
    """

    def __init__(self, maximum: int) -> None:
        self.size = min(_INITIAL_PACKETS, maximum)
        self.timed = 0
        self._maximum = maximum  # that the application allows
        self._limit = maximum  # that the broker's quotas allow
        self._halved_at = -math.inf
        self._grows_at, self._growth_seconds = math.inf, _FIRST_GROWTH_SECONDS
        self._pauses = 0  # in a row, with no message acknowledged after them
        self._resumes_at = 0.0
        self._sent_at = 0.0
        self._shortest = math.inf  # seconds from a message to its acknowledgement, on this connection
        self._was_full = False

    def full(self) -> None:
        """A message waits because the window is full."""
        self._was_full = True

    def sent(self, packet_id: int) -> None:
        """Time this message."""
        self.timed, self._sent_at = packet_id, monotonic()

    def answered(self) -> None:
        """The timed message is acknowledged."""
        now = monotonic()
        seconds, self.timed = now - self._sent_at, 0
        if not self.size:
            return
        self._pauses = 0
        if now >= self._grows_at and self._was_full:
            self._grow(now)
        self._shortest = min(self._shortest, seconds)
        if seconds > 4 * self._shortest + _LONG_WAIT_SECONDS:
            minimum = min(_MIN_PACKETS, self._limit)
            if self.size == minimum:  # so few hardly wait for each other: the round trip itself has become longer
                self._shortest = seconds
            self.size = max(self.size // 2, minimum)
        elif self._was_full and seconds < 2 * self._shortest + _SHORT_WAIT_SECONDS:
            self.size = min(self.size * 2, self._limit)
        self._was_full = False

    def quota_exceeded(self, inflight: int) -> None:
        """The broker has rejected a message or ended the connection because of a quota, with so many messages in
        flight: Receive Maximum exceeded (0x93), Message rate too high (0x96) or Quota exceeded (0x97).
        """
        now = monotonic()
        if self._pauses or now < self._halved_at + _SAME_QUOTA_SECONDS:
            return
        self._halved_at = now
        self._limit = self.size = max(min(self.size, inflight) // 2, 1)
        self._grows_at = now + self._growth_seconds
        self._growth_seconds = min(2 * self._growth_seconds, _LAST_GROWTH_SECONDS)

    def may_pause(self) -> bool:
        """Whether to wait for the broker's quota once more; asked for each message that it rejects. If it has rejected
        the oldest message after each of many pauses, that one is given up, and the next one has its own pauses.
        """
        if self.size and self._pauses >= _MAX_PAUSES:
            self._pauses = 0
            return False
        return True

    def pause(self) -> float:
        """Have nothing sent until :meth:`resume`. Return after how many seconds to call it; 0 in a pause."""
        if not self.size:
            return 0.0
        bound = min(_FIRST_PAUSE_SECONDS * 2.0**self._pauses, _LAST_PAUSE_SECONDS)
        seconds = uniform(bound / 2, bound)
        self.size = 0
        self._pauses += 1
        self._resumes_at = monotonic() + seconds
        return seconds

    def resume(self) -> bool:
        """Return whether a pause is over: one message may be sent then."""
        if self.size or monotonic() < self._resumes_at:
            return False
        self.size = 1
        return True

    def _grow(self, now: float) -> None:
        self._limit += max(self._limit // 8, 1)
        self._grows_at = now + self._growth_seconds
        if self._limit >= self._maximum:
            self._limit, self._grows_at = self._maximum, math.inf

    def forget(self, packet_id: int) -> None:
        """This message will not be acknowledged, or only later."""
        if packet_id == self.timed:
            self.timed = 0

    def connection_lost(self) -> None:
        """The next one may have another round trip, and has quotas of its own."""
        self.timed, self._shortest = 0, math.inf
        self.size = self.size or 1
