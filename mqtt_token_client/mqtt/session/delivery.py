"""A published message, and what becomes of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum, auto

from ...errors import MqttTokenError
from ..runtime.base import current

log = logging.getLogger("mqtt_token_client.outbox")

_waiting_lock = threading.Lock()


class Delivery:
    """What becomes of a published message: acknowledged by the broker, or failed.

    A message of QoS 0 counts as delivered once the operating system has taken it; the broker acknowledges none.

    Attributes:
        done: whether it is delivered or has failed.
        error: why it failed; None while it is under way, and once it is delivered.
    """

    __slots__ = ("_callbacks", "_event", "done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: MqttTokenError | None = None
        # Made by whoever waits; who finishes looks for them after `done` is set, so that nobody is missed.
        self._event: threading.Event | None = None
        self._callbacks: list[Callable[[Delivery], object]] | None = None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the message is delivered.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            DeliveryFailed: the broker refused it, or the client was closed before it was acknowledged.
            TimeoutError: it is still under way.
            RuntimeError: called in a handler, which would wait for itself; use ``add_done_callback`` there.
        """
        if not self.done:
            if current.runtime is not None:
                raise RuntimeError("Delivery.wait() in a handler would wait for itself; use add_done_callback() there")
            if not self._finished().wait(timeout):
                raise TimeoutError(f"the message was not acknowledged within {timeout} s; it is still under way")
        if self.error is not None:
            raise self.error

    def add_done_callback(self, callback: Callable[[Delivery], object]) -> None:
        """Have ``callback(delivery)`` called when it is delivered or has failed: on the network thread, or at once if
        that has happened already.
        """
        with _waiting_lock:
            self._callbacks = [*(self._callbacks or ()), callback]
        if self.done:
            self._tell()

    def _finished(self) -> threading.Event:
        with _waiting_lock:
            if self._event is None:
                self._event = threading.Event()
        if self.done:
            self._event.set()
        return self._event

    def finish(self, error: MqttTokenError | None = None) -> None:
        """Mark as delivered, or as failed. For the outbox only."""
        self.error = error
        self.done = True
        if self._event is not None:
            self._event.set()
        if self._callbacks is not None:
            self._tell()

    def _tell(self) -> None:
        with _waiting_lock:
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback(self)
            except BaseException:  # sys.exit() there must not keep the others from being called
                log.exception("a done callback of a Delivery raised")


class Stage(Enum):
    """How far a message has come."""

    NEW = auto()
    SENT = auto()  # PUBLISH went out: PUBACK or PUBREC is awaited
    RELEASED = auto()  # PUBREL went out: PUBCOMP is awaited


_NEW, _SENT, _RELEASED = Stage  # a member of an Enum takes long to look up


class Outgoing(Delivery):
    """A message on its way out. It is its own Delivery: one object for each message."""

    __slots__ = ("number", "packet_id", "payload", "properties", "qos", "retain", "stage", "topic")

    def __init__(self, topic: bytes, payload: bytes, qos: int, retain: bool, properties: bytes) -> None:
        self.done = False
        self.error = None
        self._event = self._callbacks = None
        self.topic = topic  # its length before it, as it goes out
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties  # as packed for MQTT 5
        self.number = 0  # its place in the order in which messages were given
        self.packet_id = 0
        self.stage = _NEW

    @property
    def topic_name(self) -> str:
        return self.topic[2:].decode()

    def __repr__(self) -> str:
        state = "under way" if not self.done else "delivered" if self.error is None else "failed"
        return f"<Delivery to {self.topic_name!r}, qos={self.qos}: {state}>"
