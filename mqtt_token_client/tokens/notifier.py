"""Notifier: reports a keeper's events to the library's own observers and to the application's listeners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from ..events import Event
from ..logs import get_logger
from ..token import Token

_log = get_logger("mqtt_token_client.keeper")

Listener = Callable[[Event], None]
Observer = Callable[[Event, Token | None], None]


class Notifier:
    """Collects the events of a flight, and reports them once it has ended, when a listener may use the keeper again.

    An observer is called under the keeper's lock, and so gets the tokens in order; it must neither block nor use the
    keeper. A listener is the application's: it is called without the lock, on the thread of the flight.

    Args:
        lock: the keeper's.
        listener: the first listener, or None.
    """

    def __init__(self, lock: threading.Condition, listener: Listener | None) -> None:
        self._lock = lock
        self._listeners: list[Listener] = [] if listener is None else [listener]
        self._observers: list[Observer] = []
        self._collected: list[tuple[Event, Token | None]] = []

    def after_fork(self, lock: threading.Condition) -> None:
        """In a child: forget the events of a flight that goes on in the parent."""
        self._lock = lock
        self._collected = []

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Report each event to an observer, with the new token if it is :class:`TokenRenewed`; returns the function
        that ends it.
        """
        self._observers.append(observer)

        def end() -> None:
            with suppress(ValueError):
                self._observers.remove(observer)

        return end

    def add(self, listener: Listener) -> None:
        """Report each event to a listener too."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Report no further events to a listener; no error if it was not added."""
        with suppress(ValueError):
            self._listeners.remove(listener)

    def collect(self, event: Event, token: Token | None = None) -> None:
        """Report an event when the flight that is under way has ended; called on its thread only."""
        self._collected.append((event, token))

    def flush(self) -> list[Event]:
        """Report what was collected to the observers; returns it for :meth:`inform`. The lock is held."""
        collected, self._collected = self._collected, []
        for event, token in collected:
            self._notify(event, token)
        return [event for event, _ in collected]

    def inform(self, event: Event) -> None:
        """Report an event to the listeners."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - the application's
                _log.exception("a listener for token events raised an exception; it is ignored")

    def report_now(self, event: Event) -> None:
        """Report an event to all, while the flight goes on."""
        with self._lock:
            self._notify(event, None)
        self.inform(event)

    def _notify(self, event: Event, token: Token | None) -> None:
        for observer in tuple(self._observers):
            try:
                observer(event, token)
            except Exception:  # noqa: BLE001 - of a runtime that was closed under it
                _log.exception("a client that shares the token cannot be notified; it gets no further events")
                self._observers.remove(observer)
