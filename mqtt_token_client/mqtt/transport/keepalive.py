"""The keepalive of one connection: PINGREQ after a silence, and a PINGRESP in time (MQTT 5 sections 3.1.2.10, 3.12)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ...clock import monotonic
from ..codec.packets import PINGREQ_PACKET
from ..runtime.base import Runtime, Timer
from . import Unsent

_LONGEST_WAIT = 15.0  # seconds that a broker has for its PINGRESP, if the keepalive is not shorter
# On a slow network a large packet may stand between PINGREQ and its answer, in either direction. The broker gets more
# time while this many bytes a second move (GPRS and NB-IoT move more), but only for as many as one packet and the
# buffers on the way can hold. What dribbles slower than that is useless, and nothing else would end it.
_SLOWEST = 1024
_MOST_BEFORE_ANSWER = 2**28 + 2**24  # the largest packet of MQTT, which is skipped if it is too large, and 16 MiB


class PingedConnection(Protocol):
    """What the keepalive needs of its connection."""

    sent: int
    received: int
    closed: bool
    paused: bool
    unsent: Unsent

    def write(self, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def fail(self, cause: str) -> None: ...


class Keepalive:
    """Sends PINGREQ when one direction has been silent, and fails the connection if no PINGRESP comes in time.

    Attributes:
        last_in: when the last packet arrived. Bytes of an unfinished packet do not count.
        last_out: when the socket took bytes last.
        unanswered: each PINGREQ that has no answer yet: where it ends, and what to call.
    """

    def __init__(self, runtime: Runtime, connection: PingedConnection) -> None:
        self.last_in = self.last_out = monotonic()
        self._runtime = runtime
        self._connection = connection
        self._seconds = 0.0
        self._timer: Timer | None = None
        self.unanswered: deque[tuple[int, Callable[[], None]]] = deque()
        # For the oldest of these:
        self._deadline = 0.0
        self._received_before = 0
        self._progress_before = 0

    def start(self, seconds: float) -> None:
        """From now on send PINGREQ after so many seconds without a packet in or out; 0 never does, nor does it limit
        the time for an answer.
        """
        self._seconds = 0.0 if self._connection.closed else seconds
        self._set_timer()

    def stop(self) -> None:
        """Send no PINGREQ and expect no answer any more."""
        self._seconds = 0.0
        self.unanswered.clear()
        self._set_timer()

    def ping(self, then: Callable[[], None]) -> None:
        """Send PINGREQ. ``then`` is called at its PINGRESP, when the broker has read all that was written before it."""
        self._connection.write(PINGREQ_PACKET)
        self.unanswered.append((self._connection.sent + len(self._connection.unsent), then))
        if len(self.unanswered) == 1:
            self._await_next_answer()
        self._connection.flush()

    def answered(self) -> None:
        """PINGRESP has come. One that nobody asked for is ignored, as brokers have sent such."""
        if self.unanswered:
            _, then = self.unanswered.popleft()
            self._await_next_answer()
            then()

    def _await_next_answer(self) -> None:
        self._received_before = self._connection.received
        self._set_deadline()
        self._set_timer()

    def _set_deadline(self) -> None:
        self._deadline = monotonic() + min(self._seconds, _LONGEST_WAIT)
        self._progress_before = self._progress()

    def _progress(self) -> int:
        """Bytes that have moved on the way to the answer: what arrived, and what was sent up to PINGREQ."""
        ping_ends = self.unanswered[0][0] if self.unanswered else 0
        return self._connection.received + min(self._connection.sent, ping_ends)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._seconds:
            due = self._ping_due()
            self._timer = self._runtime.call_at(min(due, self._deadline) if self.unanswered else due, self._check)

    def _ping_due(self) -> float:
        if not self._connection.unsent:
            # While an answer is awaited, the broker alone needs a sign of life [MQTT-3.1.2-20].
            silent_since = self.last_out if self.unanswered else min(self.last_in, self.last_out)
        elif self.unanswered:
            return math.inf
        else:  # PINGREQ would queue behind what waits already: as long as that moves, the broker is alive
            silent_since = self.last_out
        return silent_since + self._seconds

    def _check(self) -> None:
        now = monotonic()
        if self.unanswered and now >= self._deadline:
            if not self._connection.paused and not self._deserves_more_time():
                self._connection.fail("the broker did not answer PINGREQ")
                return
            self._set_deadline()
        if now >= self._ping_due():
            self.ping(lambda: None)
        self._set_timer()

    def _deserves_more_time(self) -> bool:
        moved = self._progress() - self._progress_before
        received = self._connection.received - self._received_before
        return moved >= _SLOWEST * min(self._seconds, _LONGEST_WAIT) and received <= _MOST_BEFORE_ANSWER
