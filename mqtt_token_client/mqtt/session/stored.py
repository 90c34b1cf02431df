"""Whether a published message is on disk, and waiting for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from ...forking import reset_after_fork
from ...logs import get_logger
from ...oneshot import OneShot, check_timeout
from ..runtime.base import current
from .delivery import RecordedMessage

if TYPE_CHECKING:
    from .delivery import Delivery

log = get_logger("mqtt_token_client.outbox")


class _Lock:
    """Held while a Delivery gets its first waiter, and while its message is noted to be on disk."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        self.lock = threading.RLock()


_switching = _Lock()


class Stored:
    """Whether a message outlives this process, or has no more need to: it is on disk, or the broker has acknowledged
    it. True or false when tested; ``await delivery.stored`` waits on an event loop, and raises what :meth:`wait` does.
    """

    __slots__ = ("_delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __bool__(self) -> bool:
        delivery = self._delivery
        return delivery.disk is True or (delivery.done and delivery.error is None)

    def __repr__(self) -> str:
        return f"<stored: {bool(self)}>"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the message is on disk, or acknowledged.

        Args:
            timeout: seconds; None waits forever.

        Raises:
            DeliveryFailed: it failed before it was on disk.
            TimeoutError: it is not on disk yet.
            ConfigurationError: it is not kept on disk.
            RuntimeError: called in a handler; use ``add_done_callback`` there.
        """
        if not self._is_decided:
            signal = self._signal()
            if current.runtime is not None:
                raise RuntimeError("stored.wait() in a handler would stop all clients; use add_done_callback()")
            if not signal.wait(check_timeout(timeout, "stored.wait")):
                raise TimeoutError(f"the message was not on disk within {timeout} s; it is still in progress")
        self._check()

    def __await__(self) -> Generator[Any, None, None]:
        if not self._is_decided:
            yield from self._signal().__await__()
        self._check()

    @property
    def _is_decided(self) -> bool:
        """Whether nothing is left to wait for: a message that was dropped will not be on disk."""
        return bool(self) or self._delivery.done

    def _check(self) -> None:
        if not self and self._delivery.error is not None:
            raise self._delivery.error

    def add_done_callback(self, callback: Callable[[Delivery], object]) -> None:
        """Call ``callback(delivery)`` when the message is on disk, acknowledged, or has failed: on any thread, or at
        once if that has already happened.

        Raises:
            ConfigurationError: it is not kept on disk.
        """
        delivery = self._delivery
        if self._is_decided:
            _call(callback, delivery)
        else:
            self._signal().add_callback(lambda: _call(callback, delivery))

    def _signal(self) -> OneShot:
        delivery = self._delivery
        with _switching.lock:
            signal = delivery.disk
            if not isinstance(delivery, RecordedMessage) or signal is None:
                raise ConfigurationError(
                    "stored: this message is not kept on disk; give the client a journal, and for QoS 0 publish it "
                    "with durable=True"
                )
            if isinstance(signal, bool):
                signal, on_disk = OneShot(), signal
                if on_disk:
                    signal.set()
                else:
                    delivery.disk = signal
        if delivery.done:
            signal.set()
        return signal


def _call(callback: Callable[[Delivery], object], delivery: Delivery) -> None:
    try:
        callback(delivery)
    except BaseException:  # sys.exit() in there must not end the journal's thread
        log.exception("a done callback of Delivery.stored raised")


def note_on_disk(message: RecordedMessage) -> None:
    """A message is on disk. Called by the journal only."""
    with _switching.lock:
        signal, message.disk = message.disk, True
    if isinstance(signal, OneShot):
        signal.set()
