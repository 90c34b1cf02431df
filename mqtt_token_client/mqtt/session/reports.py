"""What a session reports to those who have it."""

from __future__ import annotations

from enum import Enum, auto

from ...value import Value


class Blame(Enum):
    """Whether a packet made the broker end the connection."""

    NOTHING = auto()
    SUSPECTED = auto()  # one may have done so
    FOUND = auto()  # one did, and is given up


class SessionStats(Value):
    """Numbers of a session: messages, and connections. They are reported, and nothing depends on them."""

    queued: int
    inflight: int
    delivered: int
    received: int
    duplicates: int
    connects: int
    rotations: int


class Stats(SessionStats):
    """What a client has done so far.

    ``queued`` messages wait, ``inflight`` of them sent and not acknowledged. ``duplicates`` of the messages received
    had been handed over before and were not handed over again.
    """

    renewals: int
