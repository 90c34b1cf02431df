"""Phase: how far a client has come.

IDLE        connect() was not called, or disconnect() is done
CONNECTING  there was no connection since then
FAILED      the first attempts failed, and only a person can fix the cause; they go on, rarely
UP          a connection is up
DOWN        the connection was lost, and attempts to connect are made
CLOSING     disconnect() was called, and is not done yet
INHERITED   this process was forked from the one that the client works in
"""

from __future__ import annotations

from enum import Enum, auto

from . import events


class Phase(Enum):
    """One of those above."""

    IDLE = auto()
    CONNECTING = auto()
    FAILED = auto()
    UP = auto()
    DOWN = auto()
    CLOSING = auto()
    INHERITED = auto()


def ends_connect(event: events.Event, phase: Phase) -> bool:
    """Whether an event reports the failure at which a ``connect()`` that waits gives up."""
    if isinstance(event, events.RenewalFailed):
        return phase is Phase.CONNECTING and event.error.permanent and not event.expires_in
    return phase is Phase.FAILED and isinstance(event, events.ConnectFailed | events.TokenRefused)
