"""Turns: when each of the clients that share a token moves onto the new one.

Without turns, all of them would open a connection in the moment in which the token is renewed. They go one after
another instead, evenly over half of the time for which their old token is still valid, and at most 20 at once.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

from ..clock import monotonic

if TYPE_CHECKING:
    from ..mqtt.runtime.base import Runtime, Timer

MOST_AT_ONCE = 20
_SPREAD = 1 / 2  # of the time for which the old token is valid
_LATEST = 4 / 5  # of that time: a client that has waited for so long waits no longer
_LONGEST = 3600.0  # seconds for which a token counts as valid that never expires


class Turns:
    """Gives turns to clients, whose runtimes may be different ones. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._round_ends = -math.inf  # the time over which turns are spread
        self._next = -math.inf  # when the next turn of this round begins
        self._interval = 0.0  # seconds between two turns
        self._under_way = 0
        self._queue: deque[Turn] = deque()  # those whose time has come, while as many as possible are under way

    def take(
        self, runtime: Runtime, begin: Callable[[], None], *, clients: int, valid_for: float, urgent: bool
    ) -> Turn:
        """Take a turn. Called on the client's runtime, as are the methods of the turn.

        Args:
            runtime: of the client.
            begin: called when the turn begins, perhaps at once.
            clients: how many share the token.
            valid_for: the seconds for which the token that the client's connection has is valid.
            urgent: whether it is not spread.
        """
        now, valid_for = monotonic(), min(max(0.0, valid_for), _LONGEST)
        turn = Turn(self, runtime, begin, now + _LATEST * valid_for)
        with self._lock:
            due = now if urgent else self._due(now, clients, _SPREAD * valid_for)
        turn.begin_at(due)
        return turn

    def _due(self, now: float, clients: int, spread: float) -> float:
        if now >= self._round_ends:
            self._round_ends, self._next, self._interval = now + spread, now, spread / clients
        due = self._next
        if due >= self._round_ends:  # more turns than clients, as some had to be taken again
            return now
        self._next += self._interval
        return due

    # Called by a turn

    def enter(self, turn: Turn, *, wait: bool) -> bool:
        """Return whether a turn may begin; if not, it is queued. Unless it is to ``wait``, it may."""
        with self._lock:
            if wait and self._under_way >= MOST_AT_ONCE:
                self._queue.append(turn)
                return False
            self._under_way += 1
            return True

    def leave_queue(self, turn: Turn) -> bool:
        """Remove a turn from the queue; returns whether it was there."""
        with self._lock:
            if turn not in self._queue:
                return False
            self._queue.remove(turn)
            return True

    def leave(self) -> None:
        """A turn is over: the next in the queue may begin."""
        with self._lock:
            self._under_way -= 1
            while self._queue and self._under_way < MOST_AT_ONCE:
                turn = self._queue.popleft()
                try:
                    turn.runtime.call_soon(turn.let_in)
                except RuntimeError:  # an event loop that was closed before the client was
                    continue
                self._under_way += 1


class State(Enum):
    WAITING = auto()  # for its time
    QUEUED = auto()  # for another turn to end
    UNDER_WAY = auto()
    ENDED = auto()


class Turn:
    """One client's turn. All of it runs on the client's runtime.

    Args:
        turns: gave it.
        runtime: of the client.
        begin: called when it begins.
        latest: when it begins in any case.
    """

    def __init__(self, turns: Turns, runtime: Runtime, begin: Callable[[], None], latest: float) -> None:
        self.runtime = runtime
        self._turns = turns
        self._begin = begin
        self._latest = latest
        self._state = State.WAITING
        self._timer: Timer | None = None

    def begin_at(self, due: float) -> None:
        """Begin at this time, or now if it has passed."""
        due = min(due, self._latest)  # a round of clients on newer tokens may last longer than this client's token
        if due > monotonic():
            self._set_timer(due, self._due)
        else:
            self._due()

    def hurry(self) -> None:
        """Begin at once, if it has not begun: there is no connection left to keep."""
        if self._state is State.WAITING or (self._state is State.QUEUED and self._turns.leave_queue(self)):
            self._turns.enter(self, wait=False)
            self._go()

    def end(self) -> None:
        """The client has moved, or does not want to any more."""
        state, self._state = self._state, State.ENDED
        self._cancel_timer()
        if state is State.UNDER_WAY or (state is State.QUEUED and not self._turns.leave_queue(self)):
            self._turns.leave()

    def let_in(self) -> None:
        """Begin: another turn has ended."""
        if self._state is State.QUEUED:
            self._go()

    def _due(self) -> None:
        if self._turns.enter(self, wait=monotonic() < self._latest):
            self._go()
        else:
            self._state = State.QUEUED
            self._set_timer(self._latest, self.hurry)

    def _go(self) -> None:
        self._state = State.UNDER_WAY
        self._cancel_timer()
        self._begin()

    def _set_timer(self, when: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self.runtime.call_at(when, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
