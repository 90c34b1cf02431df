"""A published message, and its delivery."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from ...errors import DeliveryFailed, MqttTokenError, ProtocolError
from ...forking import reset_after_fork, works_in_one_process
from ...logs import get_logger
from ...oneshot import OneShot, check_timeout, take_first, wait_for
from ..codec.packets import NAMES, PUBACK, PUBREC
from ..codec.reason_codes import Action, action_for, reason_name
from ..runtime.base import current

if TYPE_CHECKING:
    from .journal import Journal
    from .stored import Stored

log = get_logger("mqtt_token_client.outbox")

_NUMBERS = (float, int)


class _WaitingLock:
    """Held while callbacks are added to a Delivery and taken back; a signal handler may do that too."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()
        self.held: set[Delivery] = set()  # those with callbacks, which nobody else may hold


_waiting = _WaitingLock()


class Delivery:
    """The delivery of a published message: in progress, acknowledged by the broker, or failed.

    ``await delivery`` waits for it on an event loop, and raises what :meth:`wait` raises; the message stays in the
    outbox when that is cancelled.

    A message of QoS 0 counts as delivered once the operating system has accepted it: the broker acknowledges none.

    Attributes:
        done: whether the message is delivered or has failed.
        error: why it failed; None while it is in progress, and once it is delivered.
    """

    __slots__ = ("_callbacks", "done", "error")

    __reduce__ = works_in_one_process

    # None: no journal has it; then whether it is on disk, or the signal for that. See `stored`. A slot of those that a
    # journal may have only, as many messages may wait.
    disk: bool | OneShot | None = None

    def __init__(self) -> None:
        self.done = False
        self.error: MqttTokenError | None = None
        # finish() looks for them after it has set `done`, so that it misses nobody.
        self._callbacks: list[Callable[[Delivery], object]] | None = None

    @property
    def stored(self) -> Stored:
        """Whether the message outlives this process: ``if delivery.stored``, ``delivery.stored.wait()``."""
        from .stored import Stored  # few applications ask

        return Stored(self)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the message is delivered.

        Args:
            timeout: seconds; None waits forever.

        Raises:
            DeliveryFailed: the broker rejected it, or the client was closed before it was acknowledged.
            TimeoutError: it is still in progress.
            RuntimeError: called in a handler, or in a signal handler that interrupts ``publish()`` of a client with a
                journal, which would wait for itself; use ``add_done_callback`` there.
            ConfigurationError: ``timeout`` is not a valid number of seconds.
        """
        # Most are done by then where a program waits for each of many: that takes half as long without a call.
        if not (self.done and (timeout is None or (timeout.__class__ in _NUMBERS and timeout >= 0))):
            self._wait(timeout)
        if self.error is not None:
            raise self.error

    def __await__(self) -> Generator[Any, None, None]:
        if not self.done:
            from ...loop_bridge import wait_on_loop

            yield from wait_on_loop(self.add_done_callback, self._forget)
        if self.error is not None:
            raise self.error

    def add_done_callback(self, callback: Callable[[Delivery], object]) -> None:
        """Call ``callback(delivery)`` when the message is delivered or has failed: on the network thread, or at once on
        this one if that has already happened.
        """
        with _waiting.lock:
            # Python runs signal handlers after calls and jumps only: none comes between these two lines.
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(callback)
            if self.disk is not None:  # of a journal's message, which may not be in memory until it is sent
                _waiting.held.add(self)
        if self.done:
            self._call_back()

    def _wait(self, timeout: float | None) -> None:
        seconds = check_timeout(timeout, "Delivery.wait")
        if current.in_handler and not self.done:
            raise RuntimeError("Delivery.wait() in a handler would wait for itself; use add_done_callback() there")
        if not wait_for(self.add_done_callback, self._forget, seconds):
            raise TimeoutError(f"the message was not acknowledged within {timeout} s; it is still in progress")

    def _forget(self, callback: Callable[[Delivery], object]) -> None:
        """Do not call it any more: those who wait again and again would leave one each."""
        with _waiting.lock:
            with suppress(ValueError):  # it is being called
                (self._callbacks or []).remove(callback)
            if not self._callbacks:
                _waiting.held.discard(self)

    def finish(self, error: MqttTokenError | None = None) -> None:
        """Mark as delivered, or as failed. Called by the outbox only."""
        self.error = error
        self.done = True
        if self._callbacks:
            self._call_back()

    def disown(self, error: MqttTokenError) -> None:
        """In a child: it is the parent that delivers. No callback is called."""
        self.error, self.done = error, True
        self._callbacks = None

    def _call_back(self) -> None:
        # Without the lock: a signal handler that interrupts the one who holds it may wait for this.
        while self._callbacks and (callback := take_first(self._callbacks)) is not None:
            try:
                callback(self)
            except BaseException:  # sys.exit() there must not keep the others from being called
                log.exception("a done callback of a Delivery raised")
        _waiting.held.discard(self)


class Stage(Enum):
    """How far a message has come; :mod:`outbox` says what each one means."""

    NEW = auto()
    SENT = auto()
    RELEASED = auto()


_NEW = Stage.NEW  # looking up a member of an Enum takes long


class Outgoing(Delivery):
    """A message on its way out. It is its own Delivery: one object for each message."""

    __slots__ = (
        "duplicate",
        "number",
        "packet_id",
        "payload",
        "properties",
        "qos",
        "retain",
        "stage",
        "topic",
    )

    expires_at: float | None = None  # a slot of those that expire only, as many messages may wait

    def __init__(self, topic: bytes, payload: bytes, qos: int, retain: bool, properties: bytes) -> None:
        self.done = False
        self.error = None
        self._callbacks = None
        self.topic = topic  # after its length, as PUBLISH has it
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties  # as packed for MQTT 5
        self.number = 0  # its place in the order of acceptance
        self.packet_id = 0
        self.stage = _NEW
        self.duplicate = False  # whether PUBLISH was sent on an earlier connection to the same session

    @property
    def topic_name(self) -> str:
        return self.topic[2:].decode()

    def start_anew(self, journal: Journal | None) -> None:
        """The broker does not have the message: it is to be sent as a new one."""
        self.packet_id, self.stage, self.duplicate = 0, Stage.NEW, False
        if journal is not None:
            journal.mark(self.number, 0, Stage.NEW)

    @property
    def repeated(self) -> bool:
        """Whether PUBLISH was sent on an earlier connection, or PUBREC was received."""
        return self.duplicate or self.stage is Stage.RELEASED

    def expiring(self, properties: bytes, expires_at: float) -> Outgoing:
        """Return the message with an expiry, which is at the beginning of its properties."""
        message = ExpiringMessage(self.topic, self.payload, self.qos, self.retain, properties)
        message.expires_at = expires_at
        return message

    def copy(self) -> Outgoing:
        """Return the same message with a Delivery of its own, as another process would have it."""
        if self.expires_at is not None:
            message = self.expiring(self.properties, self.expires_at)
        else:
            message = type(self)(self.topic, self.payload, self.qos, self.retain, self.properties)
        message.number, message.packet_id, message.stage = self.number, self.packet_id, self.stage
        return message

    def __repr__(self) -> str:
        state = "in progress" if not self.done else "delivered" if self.error is None else "failed"
        return f"<Delivery to {self.topic_name!r}, qos={self.qos}: {state}>"


class ExpiringMessage(Outgoing):
    """A message whose properties begin with a Message Expiry Interval; ``expires_at`` is on the monotonic clock."""

    __slots__ = ("expires_at",)


class RecordedMessage(Outgoing):
    """A message of a client with a journal.

    Attributes:
        replaces: whether it replaces unsent messages of its topic, and may be replaced.
        spilled: whether its payload is on disk only, once it is there.
    """

    __slots__ = ("__weakref__", "disk", "replaces", "spilled")

    def __init__(self, topic: bytes, payload: bytes, qos: int, retain: bool, properties: bytes) -> None:
        super().__init__(topic, payload, qos, retain, properties)
        self.disk = None
        self.replaces = self.spilled = False

    def finish(self, error: MqttTokenError | None = None) -> None:
        super().finish(error)
        if isinstance(self.disk, OneShot):
            self.disk.set()

    def expiring(self, properties: bytes, expires_at: float) -> Outgoing:
        message = RecordedExpiringMessage(self.topic, self.payload, self.qos, self.retain, properties)
        message.expires_at = expires_at
        return message

    def copy(self) -> RecordedMessage:
        message = super().copy()
        assert isinstance(message, RecordedMessage)
        message.replaces, message.disk = self.replaces, self.disk is True
        return message


class RecordedExpiringMessage(RecordedMessage):
    """An :class:`ExpiringMessage` of a client with a journal."""

    __slots__ = ("expires_at",)


class Answers:
    """Checks that PUBACK answers a message of QoS 1, and PUBREC and then PUBCOMP one of QoS 2 (MQTT 5 section 4.3)."""

    wrong_for: Outgoing | None = None  # at stage SENT; the answer ended the connection

    def check(self, message: Outgoing, kind: int) -> None:
        """Raise a ProtocolError if this packet does not answer the message."""
        if kind == PUBACK:
            expected = message.qos == 1
        else:
            expected = message.qos == 2 and (kind == PUBREC or message.stage is Stage.RELEASED)
        if not expected:
            self.wrong_for = message if message.stage is Stage.SENT else None
            raise ProtocolError(f"the broker sent {NAMES[kind]} out of place, for a message of QoS {message.qos}")


def rejection(message: Outgoing, packet: int, reason: int, text: str = "") -> DeliveryFailed:
    """Return the error of a message that the broker rejected by this kind of packet, and the Reason String ``text``."""
    cause = f"{reason_name(reason)} (0x{reason:02x})" + (f": {text}" if text else "")
    shown = f"the broker rejected a message on {message.topic_name}: {cause}"
    return DeliveryFailed(shown, reason=reason, permanent=action_for(packet, reason) is not Action.RETRY)
