"""Closing: the outbox gets some time, then DISCONNECT goes out, and the broker closes the connection.

EMPTYING       messages are still sent and acknowledged
DISCONNECTING  DISCONNECT was sent, if a connection was up; the broker is to close it
CLOSED
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from ..runtime.base import Runtime
from ..session.delivery import Outgoing
from ..transport import Loss, Nobody
from ..transport.connection import NetworkConnection
from .attempt import Attempt, Deadline
from .connect import Connect
from .current import CurrentConnection

# Seconds for the broker to close the connection after DISCONNECT. A client that closes its half at once is faster where
# the broker leaves it to the client; but HiveMQ publishes the will now and then if it meets that end too early.
OWN_CLOSE_TIME = 0.5  # by itself
END_TIME = 2.0  # once the client has closed its half


class State(Enum):
    EMPTYING = auto()
    DISCONNECTING = auto()
    CLOSED = auto()


class ClosingOwner(Protocol):
    """Has the connection that is to be closed."""

    attempt: Attempt

    def leave(self) -> CurrentConnection | Connect | None:
        """Give up the attempt, plan no other, and return what has the connection to end: the current one, or one that
        the broker may have accepted unnoticed.
        """


class Closing(Nobody):
    """The end of a client's connection. It listens to one that the broker has not accepted.

    Args:
        runtime: drives it.
        owner: has the connection.
        timeout: seconds that the outbox gets.
        done: called when everything is closed.
    """

    def __init__(self, runtime: Runtime, owner: ClosingOwner, timeout: float, done: Callable[[], None]) -> None:
        self._owner = owner
        self._done = done
        self._state = State.EMPTYING
        self._left: CurrentConnection | Connect | None = None
        self._deadline = Deadline(runtime)
        self._deadline.set(timeout, self.disconnect)

    @property
    def disconnecting(self) -> bool:
        """Whether the connection is to end by now."""
        return self._state is not State.EMPTYING

    def disconnect(self) -> None:
        """Send DISCONNECT, if that was not done: the outbox is empty, or its time is over."""
        self._owner.attempt.conclude()  # the broker listens to the new connection by now
        if self._state is not State.EMPTYING:
            return
        self._state = State.DISCONNECTING
        self._deadline.cancel()
        self._left = left = self._owner.leave()
        if left is None:
            self.finish()
        else:
            if isinstance(left, Connect):
                left.connection.owner = self
            # The broker closes: if the client did, with something unread, TCP could drop DISCONNECT and fire the will.
            self._deadline.set(OWN_CLOSE_TIME, self._end_writing)
            left.connection.end()

    def _end_writing(self) -> None:
        assert self._left is not None
        self._deadline.set(END_TIME, self.finish)
        self._left.connection.end_writing()

    def connection_closed(self, link: NetworkConnection[Outgoing], loss: Loss) -> None:  # noqa: ARG002
        self.finish()

    def finish(self) -> None:
        """The broker has closed the connection, or did not in time."""
        assert self._state is State.DISCONNECTING
        self._state = State.CLOSED
        self._deadline.cancel()
        if self._left is not None:
            self._left.retire()
        self._done()
