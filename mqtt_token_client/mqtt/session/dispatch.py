"""Messages from the broker to the application's handlers."""

from __future__ import annotations

from collections.abc import Callable

from ... import events
from ...logs import get_logger
from ..codec.message import Message
from .subscriptions import Handler, Subscriptions

log = get_logger("mqtt_token_client.session")

_REPORTED_TOPICS = 1024  # more are not reported, so that they take no more memory


class Dispatcher:
    """Calls the handlers of one client. Runs on the network thread.

    Args:
        subscriptions: know the handlers of each topic.
        on_message: gets the messages that have no handler; None without one.
        emit: gets events.
    """

    def __init__(
        self, subscriptions: Subscriptions, on_message: Handler | None, emit: Callable[[events.Event], None]
    ) -> None:
        self._subscriptions = subscriptions
        self._default = () if on_message is None else (on_message,)
        self._emit = emit
        self._reported: set[int] = set()  # hashes of topics without a handler, as a topic may have 64 KiB

    def dispatch(self, message: Message) -> tuple[Handler, ...]:
        """Call every handler of a message, and return them. What a handler raises is logged and reported
        as :class:`HandlerFailed`; a topic without a handler is reported once as :class:`MessageUnhandled`.
        """
        handlers = self._subscriptions.handlers(message.topic) or self._default
        if not handlers:
            self._report_unhandled(message.topic)
            return ()
        for handler in handlers:
            try:
                handler(message)
            except BaseException as error:  # sys.exit() in a handler as well
                log.exception("a handler of %s raised an exception; the network thread goes on", message.topic)
                self._report_failed(message.topic, error)
        return handlers

    def _report_unhandled(self, topic: str) -> None:
        if hash(topic) not in self._reported and len(self._reported) < _REPORTED_TOPICS:
            self._reported.add(hash(topic))
            self._emit(events.MessageUnhandled(topic))

    def _report_failed(self, topic: str, error: BaseException) -> None:
        if not isinstance(error, Exception):
            error = RuntimeError(f"it raised {type(error).__name__}")
        self._emit(events.HandlerFailed(f"the handler of {topic}", error))
