"""The topic filters that the application wants, what the broker has confirmed, and whose handler a message is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paho.mqtt.matcher import MQTTMatcher

from ..codec.message import Message
from ..codec.packets import SUBACK
from ..codec.reason_codes import Action, action_for
from .limits import PACKET_TOO_LARGE, Limits
from .outbox import PacketIds

_REMEMBERED = 1024  # topics
_MOST_FILTERS = 8  # in a packet: AWS IoT takes no more (https://docs.aws.amazon.com/general/latest/gr/iot-core.html)
_BESIDE_FILTERS = 5 + 2 + 1  # bytes: fixed header, packet identifier, properties that are empty
_BESIDE_FILTER = 2 + 1  # bytes: its length and its options

Handler = Callable[[Message], object]


def _without_group(topic_filter: str) -> str:
    """The filter of a shared subscription ($share/group/filter, MQTT 5 section 4.8.2)."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


@dataclass(slots=True)
class _Subscription:
    handler: Handler | None
    options: int  # as SUBSCRIBE has them (MQTT 5 section 3.8.3.1); in MQTT 3.1.1 the QoS
    properties: bytes  # as packed for MQTT 5
    identified: bool  # they have a Subscription Identifier
    confirmed: bool = False
    refused: bool = False  # but not for good: another token or another connection may change that


def _room(limits: Limits, properties: bytes) -> int | None:
    """Bytes for the filters of a packet; None where the broker sets no limit."""
    return None if limits.packet_size is None else limits.packet_size - _BESIDE_FILTERS - len(properties)


def _size(topic_filter: str) -> int:
    return _BESIDE_FILTER + len(topic_filter.encode())


def _objection(topic_filter: str, wanted: _Subscription, limits: Limits) -> int | None:
    room = _room(limits, wanted.properties)
    if room is not None and _size(topic_filter) > room:
        return PACKET_TOO_LARGE
    return limits.filter_violation(topic_filter, identified=wanted.identified)


def _packets(filters: list[str], room: int | None) -> Iterator[list[str]]:
    """Filters in packets that a broker takes."""
    packet: list[str] = []
    size = 0
    for topic_filter in filters:
        size += _size(topic_filter)
        if packet and (len(packet) == _MOST_FILTERS or (room is not None and size > room)):
            yield packet
            packet, size = [], _size(topic_filter)
        packet.append(topic_filter)
    if packet:
        yield packet


class Subscriptions:
    """What is subscribed. All of it runs on the network thread."""

    def __init__(self, packet_ids: PacketIds) -> None:
        self._ids = packet_ids
        self._wanted: dict[str, _Subscription] = {}
        self._unwanted: set[str] = set()  # UNSUBSCRIBE is due or not confirmed
        # SUBSCRIBE, with what it subscribes, and UNSUBSCRIBE, with None, that are not answered; oldest first
        self._asked: dict[int, list[tuple[str, _Subscription | None]]] = {}
        self._matcher = MQTTMatcher()  # from a filter to the handlers of all subscriptions that have it
        self._matched: dict[str, tuple[Handler, ...]] = {}  # by topic: walking through the matcher takes long

    def add(
        self,
        topic_filter: str,
        handler: Handler | None,
        options: int,
        properties: bytes = b"",
        *,
        identified: bool = False,
    ) -> None:
        self._wanted[topic_filter] = _Subscription(handler, options, properties, identified)
        self._unwanted.discard(topic_filter)
        self._index()

    def remove(self, topic_filter: str) -> None:
        """Whether this process has subscribed to it or an earlier one, whose session the broker has kept."""
        self._unwanted.add(topic_filter)
        if self._wanted.pop(topic_filter, None) is not None:
            self._index()

    def beyond(self, limits: Limits) -> list[tuple[str, int]]:
        """The filters that must not be sent to the broker, with the reason; they are forgotten."""
        found = [
            (name, reason)
            for name, wanted in self._wanted.items()
            if not wanted.confirmed and (reason := _objection(name, wanted, limits))
        ]
        for name, _ in found:
            del self._wanted[name]
        if found:
            self._index()
        return found

    def to_subscribe(self, limits: Limits) -> list[tuple[bytes, list[tuple[str, int]]]]:
        """What to send SUBSCRIBE for, as it is not confirmed and not asked for already: the properties of each packet,
        and its filters with their Subscription Options.
        """
        asked = self._asked_last()
        due: dict[bytes, list[str]] = {}
        for name, wanted in self._wanted.items():
            if not wanted.confirmed and not wanted.refused and asked.get(name) is not wanted:
                due.setdefault(wanted.properties, []).append(name)
        return [
            (properties, [(name, self._wanted[name].options) for name in packet])
            for properties, names in due.items()
            for packet in _packets(names, _room(limits, properties))
        ]

    def to_unsubscribe(self, limits: Limits) -> list[list[str]]:
        """The filters to send UNSUBSCRIBE for, a list each packet."""
        asked = self._asked_last()
        due = [name for name in self._unwanted if name not in asked or asked[name] is not None]
        return list(_packets(due, _room(limits, b"")))

    def ask(self, names: list[str]) -> int:
        """The packet identifier of a SUBSCRIBE or UNSUBSCRIBE for these filters."""
        packet_id = self._ids.take()
        self._asked[packet_id] = [(name, self._wanted.get(name)) for name in names]
        return packet_id

    def subscribed(self, packet_id: int, reasons: list[int]) -> Iterator[tuple[str, int]]:
        """SUBACK: the filters that the broker refused, with its reason. Those that will never do are forgotten."""
        for (name, asked), reason in zip(self._answered(packet_id), reasons, strict=False):
            if asked is None or self._wanted.get(name) is not asked:
                continue  # something else is wanted by now
            if reason < 0x80:
                asked.confirmed = True
                continue
            if action_for(SUBACK, reason) is Action.GIVE_UP:
                del self._wanted[name]
                self._index()
            else:
                asked.refused = True
            yield name, reason

    def token_renewed(self) -> None:
        """What was refused may be asked for again."""
        for wanted in self._wanted.values():
            wanted.refused = False

    def unsubscribed(self, packet_id: int) -> None:
        """UNSUBACK: its filters are gone, unless more has been asked about them since."""
        names = {name for name, _ in self._answered(packet_id)}
        self._unwanted -= names - self._asked_last().keys()

    def connection_lost(self) -> None:
        """What was asked and not answered is to be asked again."""
        for packet_id in self._asked:
            self._ids.free(packet_id)
        self._asked.clear()
        self.token_renewed()

    def session_lost(self) -> None:
        """The broker has forgotten every filter."""
        self._unwanted.clear()
        self.session_in_doubt()

    def session_in_doubt(self) -> None:
        """The broker may have forgotten every filter."""
        for wanted in self._wanted.values():
            wanted.confirmed = False

    def handlers(self, topic: str) -> tuple[Handler, ...]:
        """The handlers of every filter that a topic matches."""
        found = self._matched.get(topic)
        if found is None:
            found = tuple(handler for handlers in self._matcher.iter_match(topic) for handler in handlers)
            if len(self._matched) < _REMEMBERED:
                self._matched[topic] = found
        return found

    def _index(self) -> None:
        by_filter: dict[str, list[Handler]] = {}
        for name, wanted in self._wanted.items():
            if wanted.handler is not None:
                by_filter.setdefault(_without_group(name), []).append(wanted.handler)
        self._matcher = MQTTMatcher()
        self._matched.clear()
        for topic_filter, handlers in by_filter.items():
            self._matcher[topic_filter] = handlers

    def _asked_last(self) -> dict[str, _Subscription | None]:
        """What the last request about each filter was, of those that are not answered."""
        return {name: asked for filters in self._asked.values() for name, asked in filters}

    def _answered(self, packet_id: int) -> list[tuple[str, _Subscription | None]]:
        if packet_id in self._asked:  # otherwise it may be a message's
            self._ids.free(packet_id)
        return self._asked.pop(packet_id, [])
