"""Reports: what the asyncio interface itself has to report."""

from __future__ import annotations

from collections.abc import Callable

from .. import events
from ..logs import get_logger
from ..mqtt.codec.message import Message

log = get_logger("mqtt_token_client.session")

_REPORTED_TOPICS = 1024  # more are not reported, so that they take no more memory


class Reports:
    """Makes events of what happens to messages on the event loop.

    Args:
        emit: gets the events.
    """

    def __init__(self, emit: Callable[[events.Event], None]) -> None:
        self._emit = emit
        self._unhandled: set[str] = set()

    def handler_failed(self, message: Message, error: BaseException) -> None:
        """A handler raised."""
        log.error("a handler of %s raised an exception; the event loop goes on", message.topic, exc_info=error)
        if not isinstance(error, Exception):
            error = RuntimeError(f"it raised {type(error).__name__}")
        self._emit(events.HandlerFailed(f"the handler of {message.topic}", error))

    def dropped(self, topic_filter: str, count: int) -> None:
        """Messages were dropped."""
        self._emit(events.MessagesDropped(topic_filter, count))

    def unhandled(self, topic: str) -> None:
        """A message had no consumer. Reported once for each topic."""
        if topic not in self._unhandled and len(self._unhandled) < _REPORTED_TOPICS:
            self._unhandled.add(topic)
            self._emit(events.MessageUnhandled(topic))
