"""AckBatch: hands the acknowledgements of processed messages to the network thread, several at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..mqtt.codec.message import Message
from .own_loop import OwnLoop

_MOST = 64  # messages, if the loop does not come to it earlier


class AckBatch:
    """The messages that were processed and are not acknowledged yet. Runs on the event loop.

    Args:
        own_loop: of the client.
        acknowledge: sends the acknowledgements.
    """

    def __init__(self, own_loop: OwnLoop, acknowledge: Callable[[list[Any]], None]) -> None:
        self._own_loop = own_loop
        self._acknowledge = acknowledge
        self._batch: list[Any] = []
        own_loop.when_replaced(self._flush)

    def add(self, message: Message) -> None:
        """A message was processed. It is acknowledged when the loop runs next."""
        if message.pending_ack is None:  # of QoS 0, or the application acknowledges it
            return
        self._batch.append(message.pending_ack)
        if len(self._batch) == 1:
            self._own_loop.bind().call_soon(self._flush)
        elif len(self._batch) == _MOST:
            self._flush()

    def drop(self, message: Message) -> None:
        """Nobody will process a message. It is acknowledged, as the broker would send it again and again."""
        self.add(message)
        message.acknowledge()

    def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._acknowledge(batch)
