"""The journal: where a session is recorded, so that it survives the process (MQTT 5 sections 4.1, 4.3 and 4.4).

Every method only notes what happened and returns at once; writing to disk is the business of another thread. A packet
that must not go out before something is on disk waits for it by a sequence number: :meth:`Journal.sync` returns the
number of everything reported so far, and the packet goes out once :attr:`Journal.durable` has reached it.

    reported                                      must be on disk before            if it is lost in a power cut
    append: publish() accepted a message          the application relies on it      the message is lost
    mark: identifier taken, QoS 1                 -                                 a duplicate
    mark: identifier taken, QoS 2                 PUBLISH                           the broker may drop the message
    mark: PUBREC received                         PUBREL                            the message is delivered twice
    mark: denied, to be sent as a new message     -                                 a duplicate
    remove: acknowledged, or failed               -                                 a duplicate
    received: a message of QoS 2 was handed over  PUBREC                            it is handed over twice
    released: PUBREL received                     PUBCOMP                           a new message counts as a duplicate
    session_lost: the broker has no session       SUBSCRIBE, PUBLISH                a new message counts as a duplicate
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...clock import TimesOfDay
from ...events import Event
from ...value import Value
from .delivery import Delivery, RecordedMessage, Stage

CallSoon = Callable[[Callable[[], None]], None]


class Recorded(Value):
    """What a journal has of a session.

    Attributes:
        messages: the oldest of those not removed, all that were sent among them; with ``number``, ``packet_id`` and
            ``stage`` as last reported; those at RELEASED in the order in which that was reported [MQTT-4.6.0-4].
        received: packet identifiers of QoS 2 that were received and not released.
        last_number: the highest number of a message so far.
        count: how many messages are recorded.
    """

    messages: Sequence[RecordedMessage] = ()
    received: frozenset[int] = frozenset()
    last_number: int = 0
    count: int = 0


class Bounds(Value):
    """How much a journal accepts.

    Attributes:
        max_queued: messages.
        max_bytes: bytes of the file.
        when_full: ``"reject"`` has publish() raise OutboxFull, ``"drop_oldest"`` drops the oldest unsent message, and
            ``"drop_newest"`` the one that is being published.
        drain_rate: messages a second of those that waited while there was no connection; None for no limit.
    """

    max_queued: int = 1_000_000
    max_bytes: int = 256_000_000
    when_full: str = "reject"
    drain_rate: float | None = None


class Journal(Protocol):
    """The record of one client's session. It belongs to one client identifier; whoever opens it checks that.

    ``load``, ``append``, ``remove``, ``size`` and ``durable`` may be used on any thread, everything else on the network
    thread. No method but ``load`` blocks, and none raises: a journal that cannot write reports that in its own way, and
    goes on.
    """

    bounds: Bounds
    on_delivery: Callable[[Delivery], object] | None  # gets each Delivery of an earlier process, when it is done

    @property
    def size(self) -> int:
        """How many bytes the messages take: on disk, and in memory too while the disk fails."""

    @property
    def durable(self) -> int:
        """The sequence number up to which everything is on disk. Never decreases."""

    def load(self, notify: Callable[[], None], lost: Callable[[], None]) -> Recorded:
        """Return what is recorded.

        Args:
            notify: called later, on any thread, when :attr:`durable` has grown.
            lost: called later, on any thread, when what is recorded is lost: then everything is to be reported again.
        """

    def append(self, message: RecordedMessage, *, urgent: bool = False) -> None:
        """publish() accepted a message; its ``number`` is larger than any before. ``expires_at`` is on the clock of
        this boot. If it is ``urgent``, it is written without delay.
        """

    def mark(self, number: int, packet_id: int, stage: Stage) -> None:
        """A message is about to have this identifier (0 for none) and stage. An unknown number is ignored."""

    def remove(self, number: int) -> None:
        """A message is done: acknowledged, or failed."""

    def received(self, packet_id: int) -> None:
        """A message of QoS 2 with this identifier was handed over."""

    def released(self, packet_id: int) -> None:
        """The broker released this identifier: its next message is a new one."""

    def session_lost(self) -> None:
        """The broker has no session: every message is at stage NEW and keeps its identifier; nothing is received."""

    def note_time(self) -> bool:
        """Note the time of day, if a clock that can be trusted says it, so that the time while the power was off counts
        for messages that expire. Return whether a clock has said it for the first time, so that what this changes
        should be on disk before the next message is sent.
        """

    def sync(self) -> int:
        """Write everything reported so far without delay; return the sequence number that :attr:`durable` then has."""

    def read(self, after: int, limit: int, then: Callable[[Sequence[RecordedMessage], bool], None]) -> None:
        """Read the oldest messages whose number is above ``after``, up to ``limit``: of all that were reported so far,
        without those that were removed. ``then`` gets them, on any thread, and whether these are all.
        """

    def flush(self, then: Callable[[], None]) -> None:
        """Write everything reported so far without delay, and call ``then``, on any thread, when that is on disk or has
        failed.
        """


class Reporting(Protocol):
    """A part of a session that a journal records."""

    def report_again(self) -> None:
        """Report everything to a journal that has lost what it had. Called on the network thread."""


class UnopenedJournal(Journal, Protocol):
    """A journal as an application gives it to a client."""

    def open(self, client_id: str, emit: Callable[[Event], None], times_of_day: Callable[[], TimesOfDay]) -> None:
        """Open it for a client, before any other call.

        Args:
            client_id: the MQTT client identifier, whose session it records.
            emit: gets events, on any thread.
            times_of_day: returns what the clocks say that can be trusted.

        Raises:
            JournalLocked: another process, or another client, uses it.
            ConfigurationError: it cannot be used by this client.
        """
