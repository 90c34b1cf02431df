"""The queue of accepted messages: how many there are, and those that have not been sent yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ...errors import ClientClosed, ConfigurationError, MqttTokenError, OutboxFull
from ...forking import reset_after_fork
from .delivery import Outgoing
from .journal import Journal, Recorded


class MessageQueue:
    """Counts messages from their acceptance until they are delivered or have failed, and refuses what is too many.

    ``put``, ``open``, ``wake`` and ``len`` may be called on any thread, also in a signal handler that interrupts
    ``put``; ``wake_or`` on any thread. Everything else runs on the network thread, which does not wait for the lock,
    except in ``alone``: a signal handler that interrupts whoever holds the lock may wait for the network thread.

    Args:
        max_queued: how many messages may be queued, in flight or not.
        journal: records messages, see :class:`~.recorded_queue.RecordedQueue`; None without one.

    Attributes:
        new: the messages that have not been sent yet, in the order of their acceptance.
        message_type: of the messages that it accepts.
    """

    def __init__(self, max_queued: int, journal: Journal | None = None) -> None:
        self.new: deque[Outgoing] = deque()
        self.message_type: type[Outgoing] = Outgoing
        self._wake: Callable[[], None] | None = None  # None while there is no connection
        self._max_queued = max_queued
        self._journal = journal
        self.after_fork()
        self._accepted = self._finished = 0  # `_finished` is written by the network thread only
        self._closed = ""  # why it accepts nothing; empty while it does
        self._on_room: dict[bool, Callable[[], None]] = {}  # by whether it is for QoS 1 and 2; see when_room()
        reset_after_fork(self)

    def __len__(self) -> int:
        return self._accepted - self._finished

    @property
    def last_number(self) -> int:
        """The number of the message that was accepted last."""
        return self._accepted

    def restore(self, recorded: Recorded) -> None:
        """Count the messages that an earlier process accepted. Call it before ``put``."""
        self._accepted = recorded.last_number
        self._finished = self._accepted - recorded.count

    def open(self, wake: Callable[[], None]) -> None:
        """Accept messages, also again after :meth:`close`; call ``wake`` for each."""
        with self._opening:
            self._wake = wake
            self._closed = ""

    def put(self, message: Outgoing, durable: bool = False, replace: bool = False) -> None:
        """Accept a message, which is sent soon.

        Args:
            message: the message.
            durable: have the journal write it without delay, at QoS 0 too.
            replace: drop an unsent message of the same topic that was published with ``replace`` too.

        Raises:
            OutboxFull: ``max_queued`` messages are queued already.
            ClientClosed: the queue is closed.
            ConfigurationError: ``durable`` or ``replace`` without a journal.
        """
        if durable or replace:
            name = "durable" if durable else "replace"
            raise ConfigurationError(
                f"publish: {name}=True needs a journal; give the client journal=open_journal(path)"
            )
        with self._lock:
            why = self._closed
            if why:
                raise ClientClosed(f"publish: {why}")
            if self._accepted - self._finished >= self._max_queued:
                raise OutboxFull(f"publish: {len(self)} messages wait already (max_queued); publish less, or wait")
            # Python runs signal handlers after calls and jumps only: no other message comes between these two lines.
            self._accepted = message.number = self._accepted + 1
            self.new.append(message)
            if self._closed:  # since then, as close() takes no lock
                self._take_back(message)
        wake = self._wake
        if wake is not None:
            wake()

    def _take_back(self, message: Outgoing) -> None:
        """Have a message not accepted, unless close() has found it, which then fails its Delivery.

        Raises:
            ClientClosed: it was not accepted.
        """
        try:
            self.new.remove(message)
        except ValueError:
            return
        self._accepted -= 1  # what came later, in a signal handler, has been taken back before
        raise ClientClosed(f"publish: {self._closed}")

    def _has_room(self, *, recorded: bool) -> bool:  # noqa: ARG002 - RecordedQueue needs it
        """Whether another message may be accepted; ``recorded`` if a journal would have it."""
        return len(self) < self._max_queued

    def when_room(self, callback: Callable[[], None], qos: int = 1) -> None:
        """Call ``callback`` once another message may be accepted, or the queue is closed; in place of an earlier one
        for QoS 0, or for the others. May be called on any thread.
        """
        self._on_room[bool(qos)] = callback
        self._call_on_room()

    def _call_on_room(self) -> None:
        for recorded in tuple(self._on_room):
            if self._closed or self._has_room(recorded=recorded):
                callback = self._on_room.pop(recorded, None)  # another thread may have called it
                if callback is not None:
                    callback()

    def wake(self) -> None:
        """Have the session send soon, if there is a connection."""
        wake = self._wake
        if wake is not None:
            wake()

    def wake_or(self, function: Callable[[], None]) -> None:
        """Wake the session; if it is not open, so that it has no network thread, call a function here instead."""
        if self._wake is None:
            with self._opening:  # open() waits for it
                if self._wake is None:
                    function()
        self.wake()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, or is to be one. While there is, nobody runs a function of wake_or()."""
        return self._wake is not None

    def alone(self, function: Callable[[], None]) -> None:
        """Call a function while no other thread is in put()."""
        with self._lock:
            function()

    def connected(self, *, rotated: bool) -> None:
        """There is a connection again; ``rotated`` if that was planned."""

    def finish(self, message: Outgoing, error: MqttTokenError | None = None) -> None:
        """A message is delivered, or has failed."""
        self._finished += 1
        message.payload = b""  # the application may keep the Delivery for long
        if self._journal is not None and message.disk is not None:
            self._journal.remove(message.number)
        message.finish(error)
        if self._on_room:
            self._call_on_room()

    def finish_all(self, messages: list[Outgoing]) -> None:
        """Messages of QoS 0 are delivered."""
        self._finished += len(messages)
        for message in messages:
            message.payload = b""
            if message.disk is not None and self._journal is not None:
                self._journal.remove(message.number)
            message.finish()
        if self._on_room:
            self._call_on_room()

    def after_fork(self) -> None:
        """In a child the locks are free."""
        self._lock, self._opening = threading.RLock(), threading.RLock()

    def disown(self, messages: list[Outgoing], error: MqttTokenError) -> None:
        """In a child: these messages are the parent's, and so are their callbacks and the journal."""
        self._finished = self._accepted
        self._journal = None
        for message in messages:
            message.disown(error)

    def close(self, why: str) -> list[Outgoing]:
        """Accept no more messages, for the reason ``why``; return those that have not been sent."""
        self._closed = why
        self._wake = None
        self._call_on_room()
        new = []
        with suppress(IndexError):  # a message that put() adds after the last of these is taken back
            while True:
                new.append(self.new.popleft())
        return new


class WrittenMessages:
    """Messages of QoS 0 after the operating system has accepted them. Runs on the network thread.

    Args:
        queue: in which they are finished.
    """

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._kept: list[Outgoing] | None = None  # the broker may not have read them

    def written(self, messages: list[Outgoing]) -> int:
        """Messages were written; return how many are done by that."""
        if self._kept is not None:
            self._kept += messages
            return 0
        self._queue.finish_all(messages)
        return len(messages)

    def keep(self) -> None:
        """From now on, keep messages that were written until :meth:`confirmed`."""
        if self._kept is None:
            self._kept = []

    def confirmed(self) -> int:
        """The broker has read them, or will; return how many are done by that."""
        return self.written(self.unconfirmed())

    def unconfirmed(self) -> list[Outgoing]:
        """Return those that were kept, and keep none from now on."""
        kept, self._kept = self._kept or [], None
        return kept
