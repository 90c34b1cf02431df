"""RenewalTimer: renews a keeper's token in time, with one timer however many clients share the keeper."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..mqtt.runtime.base import Runtime, Timer


class RenewalTimer:
    """Runs on the runtime of the first of the clients that joined; when that one leaves, on the next one's.

    Args:
        due: when the renewal is due, as a reading of :func:`~mqtt_token_client.clock.monotonic`.
        renew: renews the token if it is due. Blocks.
        failed: gets the error if ``renew`` could not be called, as no thread could be started.
    """

    def __init__(
        self, due: Callable[[], float], renew: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        self._due = due
        self._renew = renew
        self._failed = failed
        self._lock = threading.Lock()
        self._members: dict[_Member, None] = {}  # in the order in which they joined; the first one has the timer

    def after_fork(self) -> None:
        """In a child: forget the parent's runtimes, which call nothing here."""
        self._lock = threading.Lock()
        self._members = {}

    @property
    def members(self) -> int:
        """How many clients have joined."""
        return len(self._members)

    def join(self, runtime: Runtime) -> Callable[[], None]:
        """Renew in time from now on; returns the function that ends it. Both are called on the runtime's thread."""
        member = _Member(runtime, self._due, self._renew, self._failed)
        with self._lock:
            self._members[member] = None
            first = next(iter(self._members)) is member
        if first:
            member.schedule()

        def leave() -> None:
            member.stop()
            with self._lock:
                self._members.pop(member, None)
            self.reschedule()

        return leave

    def reschedule(self) -> None:
        """Set the timer again, as the renewal may be due at another time now. Called on any thread; never blocks."""
        while True:
            with self._lock:
                member = next(iter(self._members), None)
            if member is None:
                return
            try:
                member.runtime.call_soon(member.schedule)
            except RuntimeError:  # an event loop that was closed before the client was
                with self._lock:
                    self._members.pop(member, None)
            else:
                return


class _Member:
    """The timer on one client's runtime. All but the constructor is called on the runtime's thread."""

    def __init__(
        self,
        runtime: Runtime,
        due: Callable[[], float],
        renew: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.runtime = runtime
        self._due = due
        self._renew = renew
        self._failed = failed
        self._timer: Timer | None = None
        self._stopped = False

    def schedule(self) -> None:
        """Set the timer to when the renewal is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._due()
        if not self._stopped and due < math.inf:
            self._timer = self.runtime.call_at(due, self._renew_when_due)

    def stop(self) -> None:
        """Cancel the timer and set it no more."""
        self._stopped = True
        self.schedule()

    def _renew_when_due(self) -> None:
        # Another thread may be renewing the token: then this returns at once, and its event sets the timer again.
        self.runtime.run_blocking(self._renew, self._renewed)

    def _renewed(self, _none: None, error: Exception | None) -> None:
        if error is not None:
            self._failed(error)
        self.schedule()
