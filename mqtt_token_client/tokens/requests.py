"""Requests: when a keeper asks for a token, and what each of its callers gets."""

from __future__ import annotations

import math
import threading
from contextlib import suppress

from ..clock import monotonic
from ..errors import ClientClosed, MqttTokenError, TokenError
from ..token import Token
from .notifier import Notifier
from .renewer import MIN_INTERVAL, Enough, Renewer
from .single_flight import Flight, SingleFlight, without_traceback
from .validity import is_usable


class Requests:
    """Makes one request at a time for all threads, and reports its events once it has ended.

    Args:
        renewer: obtains tokens.
        flights: the request that is under way.
        events: reports them.
        lock: guards all three.
    """

    def __init__(self, renewer: Renewer, flights: SingleFlight, events: Notifier, lock: threading.Condition) -> None:
        self._renewer = renewer
        self._flights = flights
        self._events = events
        self._lock = lock
        self._closed = False
        self._save_wanted = False  # once no request is under way

    def after_fork(self, lock: threading.Condition) -> None:
        """In a child: all is guarded by another lock."""
        self._lock = lock
        self._save_wanted = False

    @property
    def renewal_due(self) -> float:
        """When the next renewal or retry begins; see :attr:`.TokenKeeper.renewal_due`."""
        return max(self._earliest, self._renewer.renewal_due)

    @property
    def due(self) -> float:
        """When :meth:`renew_when_due` has something to do."""
        return max(self._earliest, self._renewer.due)

    @property
    def _earliest(self) -> float:
        # Read before what is due: a flight that ends in between only means to look again later.
        if self._closed:
            return math.inf
        return -math.inf if self._flights.current is None else monotonic() + MIN_INTERVAL

    def get(self, enough: Enough, refused: Token | None) -> Token:
        """Return a token that is ``enough``, and not ``refused``; during a back-off raise the last error."""
        with self._lock:
            while True:
                if (token := self._renewer.token) is not None and enough(token):
                    return token
                flight = self._flights.current
                if flight is None:
                    break
                self._flights.wait_for(flight)
                token = self._renewer.token
                if flight.asked and not (token is not None and enough(token)):
                    flight.outcome()  # raises its error; a token that is not enough is fetched again
            error = self._renewer.error
            if error is not None and monotonic() < self._renewer.renewal_due:
                raise without_traceback(error)
            flight = self._start()
        return self._run(flight, enough, refused)

    def renew(self) -> Token:
        """Fetch a new token now, back-off or not."""
        with self._lock:
            while (flight := self._flights.current) is not None:
                self._flights.wait_for(flight)
                if flight.asked:
                    return flight.outcome()
            flight = self._start()
        return self._run(flight, lambda _token: False)

    def renew_when_due(self) -> None:
        """Renew if that is due and no thread is renewing, and store a token that could not be stored before. A failed
        renewal raises nothing; its event reports it.
        """
        with self._lock:
            if self.due > monotonic():
                return
            flight = None if self.renewal_due > monotonic() else self._start()
        if flight is None:
            self.save_again()
            return
        with suppress(MqttTokenError):
            self._run(flight, lambda token: is_usable(token) and self._renewer.renewal_due > monotonic())

    def save_again(self) -> None:
        """Store the current token if it could not be stored before; after the request that is under way, if any."""
        with self._lock:
            self._save_wanted = self._flights.current is not None
            if not self._renewer.unsaved or self._save_wanted:
                return
            flight = self._flights.start()
        try:
            self._renewer.save_again()
        finally:
            self._end(flight)

    def not_started(self, error: Exception) -> None:
        """Report that a renewal found no thread to run on, and back off."""
        with self._lock:
            if self.due > monotonic():
                return
            flight = self._start()
        try:
            no_thread = TokenError("no thread could be started: too little memory, or too many threads")
            self._renewer.not_started(error if isinstance(error, MqttTokenError) else no_thread)
        finally:
            self._end(flight)

    def close(self) -> None:
        """Start no further requests; store the current token if it could not be stored before."""
        with self._lock:
            self._closed = True
        self.save_again()

    def _start(self) -> Flight:
        """Begin a flight; the lock is held."""
        if self._closed:
            raise ClientClosed("the token keeper is closed")
        return self._flights.start()

    def _run(self, flight: Flight, enough: Enough, refused: Token | None = None) -> Token:
        """Load the stored token if that has not been done, ask the source unless that is ``enough``, and report."""
        renewer = self._renewer
        try:
            stale = renewer.load()
            if renewer.save_due:
                renewer.save_again()
            if renewer.token is not None and enough(renewer.token) and not stale:
                flight.result = renewer.token
            else:
                flight.result = renewer.renew(enough, refused)
                flight.asked = True
                # A stored token that is due may have expired while the power was off, which a device without a clock
                # cannot tell: a new one is better, and the stored one is better than none.
                if stale and renewer.token is not None and enough(renewer.token):
                    flight.result = renewer.token
        finally:
            self._end(flight)
        return flight.outcome()

    def _end(self, flight: Flight) -> None:
        with self._lock:
            self._flights.end(flight)
            happened = self._events.flush()
            save_wanted, self._save_wanted = self._save_wanted, False
        for event in happened:
            self._events.inform(event)
        if save_wanted:
            self.save_again()
