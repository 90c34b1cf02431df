"""What a journal reports to its session."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ...clock import monotonic
from ...events import Event
from ..runtime.base import Runtime, Timer, current
from .journal import CallSoon, Journal, Recorded, Reporting
from .journal_events import JournalFull, Resumed

_DROPS_REPORTED_EVERY = 10.0  # seconds


class JournalLink:
    """Carries what a journal says, on any thread, to the network thread.

    Args:
        journal: the journal.
        receiving: returns the receiving half of the session.
        emit: gets events.

    Attributes:
        journal: the journal.
    """

    def __init__(self, journal: Journal, receiving: Callable[[], Reporting], emit: Callable[[Event], None]) -> None:
        self.journal = journal
        self._receiving = receiving
        self._emit = emit
        self._report_sending: Callable[[], None] = lambda: None
        self._call_soon: CallSoon | None = None  # None while the session is closed
        self._is_lost = False
        self._dropped = 0  # messages, since the last report
        self._reports_dropped = False  # whether that is planned: at once, or by the timer
        self._report_dropped_at = 0.0  # at the earliest
        self._timer: Timer | None = None
        self._resumed = 0  # messages of an earlier process that were not reported as Resumed

    def load(self, wake: Callable[[], None], sending: Reporting) -> Recorded:
        """Return what the journal has.

        Args:
            wake: called when more of what was reported is on disk, or the journal has become smaller.
            sending: the sending half of the session.
        """
        self._report_sending = sending.report_again
        recorded = self.journal.load(wake, self._lost)
        self._resumed = recorded.count
        return recorded

    def open(self, call_soon: CallSoon) -> None:
        """The session is open; ``call_soon`` runs a function on the network thread."""
        self._call_soon = call_soon
        self._report_dropped()
        if self._is_lost:
            call_soon(self._report_again)
        if self._resumed:
            self._emit(Resumed(self._resumed))
            self._resumed = 0

    def soon(self, function: Callable[[], None]) -> None:
        """Run a function on the network thread, if the session is open. Called on any thread."""
        if self._call_soon is not None:
            self._call_soon(function)

    def dropped(self, count: int) -> None:
        """Messages were dropped. Called on any thread."""
        self._dropped += count
        if self._call_soon is not None and not self._reports_dropped:
            self._reports_dropped = True
            self._call_soon(self._report_dropped_in_time)

    def _report_dropped_in_time(self) -> None:
        wait = self._report_dropped_at - monotonic()
        if self._dropped and wait > 0 and self._call_soon is not None:
            self._timer = cast(Runtime, current.runtime).call_later(wait, self._report_dropped)
        else:
            self._report_dropped()

    def _report_dropped(self) -> None:
        self._timer, self._reports_dropped = None, False
        count, self._dropped = self._dropped, 0
        if count:
            self._report_dropped_at = monotonic() + _DROPS_REPORTED_EVERY
            self._emit(JournalFull(count))

    def close(self) -> None:
        """The session is closed. A publish() that it interrupts may still report a drop, after this. On the network
        thread.
        """
        self._call_soon = None
        if self._timer is not None:
            self._timer.cancel()
        self._report_dropped()

    def _lost(self) -> None:
        """The journal has lost what it had. Called on any thread."""
        self._is_lost = True
        if self._call_soon is not None:
            self._call_soon(self._report_again)

    def _report_again(self) -> None:
        self._is_lost = False
        self._report_sending()
        self._receiving().report_again()
