"""SingleFlight: one request for a token at a time, whose outcome all callers share."""

from __future__ import annotations

import threading

from ..errors import MqttTokenError, TokenError
from ..token import Token


class Flight:
    """One request for a token, which any number of threads wait for.

    Attributes:
        done: whether it has ended.
        asked: whether it ended with an answer; not so if a stored token was enough, or if it was interrupted.
        result: the token, or why there is none.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.done = False
        self.asked = False
        self.result: Token | MqttTokenError = TokenError("the request for a token was interrupted")

    def outcome(self) -> Token:
        """Return the token.

        Raises:
            MqttTokenError: the request failed.
        """
        if isinstance(self.result, Token):
            return self.result
        raise without_traceback(self.result)


class SingleFlight:
    """The flight that is under way, if one is. Every method is called with the lock held.

    Args:
        lock: guards what the flights change.
    """

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self.current: Flight | None = None

    def start(self) -> Flight:
        """Begin a flight on this thread."""
        assert self.current is None, "a flight is under way already"
        self.current = Flight()
        return self.current

    def wait_for(self, flight: Flight) -> None:
        """Release the lock until a flight has ended.

        Raises:
            TokenError: the flight is this thread's own, so the wait would never end.
        """
        if flight.thread == threading.get_ident():
            raise TokenError("the token source, or a listener that it waits for, must not ask the keeper for a token")
        while not flight.done:
            self._lock.wait()

    def after_fork(self, lock: threading.Condition) -> None:
        """In a child: the flight goes on in the parent. If it was its thread that forked, it ends here as well."""
        self._lock = lock
        if self.current is not None:
            self.current.done = True
            self.current = None

    def end(self, flight: Flight) -> None:
        """End a flight and wake all that wait for it."""
        if flight.done:  # after a fork
            return
        assert self.current is flight, "another flight is under way"
        self.current = None
        flight.done = True
        self._lock.notify_all()


def without_traceback(error: MqttTokenError) -> MqttTokenError:
    """Return an error that is safe to raise again, in any thread: the frames of its last time hold on to secrets."""
    return error.with_traceback(None)
