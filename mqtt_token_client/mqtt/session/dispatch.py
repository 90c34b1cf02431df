"""Messages from the broker to the application's handlers.

A message may match several subscriptions. The broker then sends it once, or once for each of them (MQTT 5 section
3.3.4). Each handler is to get it once: if filters overlap, each of these subscriptions has a Subscription Identifier,
which says for which of them a copy is. Without identifiers (MQTT 3.1.1, and some brokers) copies cannot be told apart.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from paho.mqtt.matcher import MQTTMatcher

from ... import events
from ...logs import get_logger
from ..codec.message import Message, cannot_reply
from ..codec.properties import add_subscription_identifier
from ..codec.topics import without_group
from .delivery import Delivery

if TYPE_CHECKING:
    from .limits import Limits

log = get_logger("mqtt_token_client.session")

_REPORTED_TOPICS = 1024  # more are not reported, so that they take no more memory
_REMEMBERED_TOPICS = 1024
_LONGEST_REMEMBERED = 200  # characters of a topic; another client may send one of 64 KiB
# Of the identifiers that are packed in three bytes: applications rather choose shorter ones.
_FIRST_IDENTIFIER, _IDENTIFIERS = 16_384, 2_097_152 - 16_384

Handler = Callable[[Message], object]


def identifier_of(topic_filter: str) -> int:
    """A Subscription Identifier for a filter: the same in every process, as the broker keeps it with the session."""
    return _FIRST_IDENTIFIER + crc32(topic_filter.encode()) % _IDENTIFIERS


class Subscription:
    """A topic filter that the application wants, and what the broker knows of it.

    Attributes:
        handlers: get the messages; none leaves them to the client's ``on_message``.
        options: the Subscription Options (MQTT 5 section 3.8.3.1); in MQTT 3.1.1 the QoS.
        properties: those of SUBSCRIBE that the application has chosen, packed.
        identifier: the Subscription Identifier; 0 if it has none.
        identified: whether the application has chosen the identifier.
        overlaps: whether another filter of this client matches some of the same topics.
        moving: whether the broker may have it without its identifier.
        confirmed: whether the broker has it.
        refused: until the next token or connection.
    """

    __slots__ = (
        "confirmed",
        "handlers",
        "identified",
        "identifier",
        "moving",
        "options",
        "overlaps",
        "properties",
        "refused",
    )

    def __init__(self, handlers: tuple[Handler, ...], options: int, properties: bytes, identifier: int) -> None:
        self.handlers = handlers
        self.options = options
        self.properties = properties
        self.identifier = identifier
        self.identified = identifier != 0
        self.overlaps = self.moving = self.confirmed = self.refused = False

    def packed(self, limits: Limits) -> bytes:
        """Return the properties of SUBSCRIBE, with the identifier that it was given here if the broker knows any."""
        if not self.identifier or self.identified or not limits.identifiers:
            return self.properties
        return add_subscription_identifier(self.properties, self.identifier)


_Match = tuple[tuple[Handler, ...], tuple[Subscription, ...]]


class Routes:
    """Which handlers get a message. Runs on the network thread."""

    def __init__(self) -> None:
        self._matcher = MQTTMatcher()  # from a filter to all subscriptions that have it
        self._matched: dict[str, _Match] = {}  # by topic: walking through the matcher takes long
        self._ours: frozenset[int] = frozenset()  # the identifiers that the application has not chosen

    def rebuild(self, wanted: Mapping[str, Subscription]) -> None:
        """The subscriptions have changed; these are all of them, by filter."""
        by_filter: dict[str, list[Subscription]] = {}
        for name, subscription in wanted.items():
            by_filter.setdefault(without_group(name), []).append(subscription)
        self._matcher = MQTTMatcher()
        self._matched.clear()
        for topic_filter, subscriptions in by_filter.items():
            self._matcher[topic_filter] = subscriptions
        chosen = {one.identifier for one in wanted.values() if one.identified}
        self._ours = frozenset(one.identifier for one in wanted.values()) - chosen

    def handlers(self, message: Message, default: tuple[Handler, ...]) -> tuple[Handler, ...] | None:
        """Return who gets a message: the handlers of every filter that it is sent for, or else ``default``. None if it
        is a copy for nobody: other subscriptions have handlers, and the broker sends them copies of their own.
        """
        match = self._matched.get(message.topic) or self._match(message.topic)
        if message.properties and "subscription_identifier" in message.properties:
            return self._selected(match, message, default)
        return match[0] or default

    def _match(self, topic: str) -> _Match:
        found = tuple(one for subscriptions in self._matcher.iter_match(topic) for one in subscriptions)
        match = _handlers_of(found), found
        if len(self._matched) < _REMEMBERED_TOPICS and len(topic) <= _LONGEST_REMEMBERED:
            self._matched[topic] = match
        return match

    def _selected(self, match: _Match, message: Message, default: tuple[Handler, ...]) -> tuple[Handler, ...] | None:
        handlers, subscriptions = match
        identifiers: list[int] = message.properties.pop("subscription_identifier")
        if chosen := [one for one in identifiers if one not in self._ours]:
            message.properties["subscription_identifier"] = chosen
        selected = [one for one in subscriptions if one.identifier in identifiers]
        if not selected or any(one.moving or not one.identifier for one in subscriptions):
            return handlers or default
        if found := _handlers_of(selected):
            return found
        if any(one.handlers and one.confirmed for one in subscriptions):
            return None
        return default


def _handlers_of(subscriptions: Iterable[Subscription]) -> tuple[Handler, ...]:
    found: list[Handler] = []
    for subscription in subscriptions:
        found += [handler for handler in subscription.handlers if handler not in found]
    return tuple(found)


class Dispatcher:
    """Calls the handlers of one client. Runs on the network thread.

    Args:
        routes: know the handlers of each message.
        on_message: gets the messages that have no handler; None without one.
        emit: gets events.
        reply_by: publishes the responses to messages, see :meth:`Message.reply`.
    """

    def __init__(
        self,
        routes: Routes,
        on_message: Handler | None,
        emit: Callable[[events.Event], None],
        reply_by: Callable[..., Delivery] = cannot_reply,
    ) -> None:
        self._reply_by = reply_by
        self._routes = routes
        self._default = () if on_message is None else (on_message,)
        self._emit = emit
        self._reported: set[int] = set()  # hashes of topics without a handler, as a topic may have 64 KiB

    def dispatch(self, message: Message) -> tuple[Handler, ...]:
        """Call every handler of a message, and return them. What a handler raises is logged and reported
        as :class:`HandlerFailed`; a topic without a handler is reported once as :class:`MessageUnhandled`.
        """
        handlers = self._routes.handlers(message, self._default)
        if not handlers:
            if handlers is not None:
                self._report_unhandled(message.topic)
            return ()
        if message.properties and "response_topic" in message.properties:
            message.reply_by = self._reply_by
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
