"""Filters that overlap: each handler gets a message once, however many copies are sent (MQTT 5 section 3.3.4)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st
from paho.mqtt.matcher import MQTTMatcher

from mqtt_token_client import Message
from mqtt_token_client.mqtt.codec.topics import overlap
from tests.unit import packets
from tests.unit.device import Device, Make, both
from tests.unit.packets import IDENTIFIERS_AVAILABLE, PUBACK, SUBSCRIPTION_IDENTIFIER
from tests.unit.scripted_broker import Peer


class Handler:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.got.append(message)


class Subscribed:
    """A device with handlers on filters that overlap, and the identifiers that its broker has seen."""

    def __init__(self, make: Make, *filters: str, protocol: int = 5, available: bool = True) -> None:
        self.device: Device = make(protocol)
        self.handlers = {name: Handler() for name in filters}
        for name, handler in self.handlers.items():
            self.device.client.subscribe(name, handler)
        self.peer = self.device.start(properties=None if available else {IDENTIFIERS_AVAILABLE: 0})
        self.identifiers: dict[str, int] = {}
        self.packet_ids = itertools.count(100)
        self.confirm(len(filters))

    def confirm(self, count: int) -> None:
        """Answer SUBSCRIBE for so many filters."""
        while count:
            packet = self.peer.expect_subscribe()
            count -= len(packet.filters)
            for name in packet.filters:
                self.identifiers[name] = packet.properties.get(SUBSCRIPTION_IDENTIFIER, 0)

    def send(self, topic: str, *identifiers: int, peer: Peer | None = None) -> None:
        """Send a message of QoS 1, and wait until it is acknowledged."""
        packet_id, peer = next(self.packet_ids), peer or self.peer
        properties = b"".join(b"\x0b" + vbi(one) for one in identifiers)
        body = packets.publish(True, topic, b"", 1, packet_id)[2:-1] + vbi(len(properties)) + properties
        peer.send(packets._packet(0x32, body))
        assert peer.expect(PUBACK).packet_id == packet_id

    @property
    def counts(self) -> list[int]:
        """How many messages each handler has got."""
        return [len(handler.got) for handler in self.handlers.values()]


def vbi(value: int) -> bytes:
    """A Variable Byte Integer."""
    return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80,)) + vbi(value >> 7)


class TestIdentifiers:
    def test_are_given_to_the_filters_that_overlap_and_to_no_others(self, make: Make) -> None:
        subscribed = Subscribed(make, "a/#", "a/b", "other/+")
        assert subscribed.identifiers["other/+"] == 0
        assert len({*subscribed.identifiers.values()}) == 3

    def test_are_the_same_in_every_process(self, make: Make) -> None:
        first = Subscribed(make, "a/#", "a/b").identifiers
        second = Subscribed(make, "a/b", "a/+", "a/#").identifiers
        assert first == {name: second[name] for name in first}

    def test_are_not_used_where_the_broker_does_not_support_them(self, make: Make) -> None:
        subscribed = Subscribed(make, "a/#", "a/b", available=False)
        assert subscribed.identifiers == {"a/#": 0, "a/b": 0}
        subscribed.send("a/b")
        assert subscribed.counts == [1, 1]

    def test_do_not_exist_in_mqtt_3_1_1(self, make: Make) -> None:
        subscribed = Subscribed(make, "a/#", "a/b", protocol=4)
        assert subscribed.identifiers == {"a/#": 0, "a/b": 0}

    def test_of_the_application_are_kept(self, make: Make) -> None:
        device = make()
        handler, other = Handler(), Handler()
        device.client.subscribe("a/b", handler, properties={"subscription_identifier": 7})
        device.client.subscribe("a/#", other)
        peer = device.start()
        found = {}
        for _ in range(2):
            packet = peer.expect_subscribe()
            found[next(iter(packet.filters))] = packet.properties[SUBSCRIPTION_IDENTIFIER]
        assert found["a/b"] == 7
        packet_id = 1
        body = packets.publish(True, "a/b", b"", 1, packet_id)[2:-1]
        properties = b"\x0b\x07\x0b" + vbi(found["a/#"])
        peer.send(packets._packet(0x32, body + vbi(len(properties)) + properties))
        peer.expect(PUBACK)
        assert [message.properties for message in handler.got] == [{"subscription_identifier": [7]}]
        assert len(other.got) == 1

    def test_are_not_shown_to_the_application_that_did_not_choose_them(self, make: Make) -> None:
        subscribed = Subscribed(make, "a/#", "a/b")
        subscribed.send("a/b", *subscribed.identifiers.values())
        assert [message.properties for message in subscribed.handlers["a/b"].got] == [{}]


class TestEachHandlerGetsAMessageOnce:
    def test_if_the_broker_sends_one_with_all_identifiers(self, make: Make) -> None:
        subscribed = Subscribed(make, "a/#", "a/b", "+/b", "#")
        subscribed.send("a/b", *subscribed.identifiers.values())
        assert subscribed.counts == [1, 1, 1, 1]

    def test_if_the_broker_sends_a_copy_for_each_subscription(self, make: Make) -> None:
        subscribed = Subscribed(make, "a/#", "a/b", "+/b", "#")
        for identifier in subscribed.identifiers.values():
            subscribed.send("a/b", identifier)
        assert subscribed.counts == [1, 1, 1, 1]

    def test_if_a_shared_subscription_is_among_them(self, make: Make) -> None:
        subscribed = Subscribed(make, "$share/group/a/#", "a/b")
        for identifier in subscribed.identifiers.values():
            subscribed.send("a/b", identifier)
        assert subscribed.counts == [1, 1]

    def test_and_on_message_none_that_a_handler_gets(self, make: Make) -> None:
        device = make()
        handler = Handler()
        device.client.subscribe("a/#")
        device.client.subscribe("a/b", handler)
        peer = device.start()
        identifiers = [peer.expect_subscribe().properties[SUBSCRIPTION_IDENTIFIER] for _ in range(2)]
        copies = [("a/b", identifiers[0]), ("a/b", identifiers[1]), ("a/c", identifiers[0])]
        for number, (topic, identifier) in enumerate(copies, 1):
            properties = b"\x0b" + vbi(identifier)
            body = packets.publish(True, topic, b"", 1, number)[2:-1] + vbi(len(properties)) + properties
            peer.send(packets._packet(0x32, body))
            peer.expect(PUBACK)
        assert [message.topic for message in handler.got] == ["a/b"]
        assert [message.topic for message in device.messages] == ["a/c"]

    def test_with_the_identifier_of_an_earlier_process_goes_to_all(self, make: Make) -> None:
        """The session may hold messages for a filter that nobody here subscribes to."""
        subscribed = Subscribed(make, "a/#", "a/b")
        subscribed.send("a/b", 5)
        assert subscribed.counts == [1, 1]


class TestTwoHandlersOfOneFilter:
    @both
    def test_both_get_each_message(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        handlers = Handler(), Handler()
        for handler in handlers:
            device.client.subscribe("a/b", handler)
        peer = device.start()
        peer.expect_subscribe()
        peer.publish("a/b", b"", 1, 7)
        assert peer.expect(PUBACK).packet_id == 7
        assert [len(handler.got) for handler in handlers] == [1, 1]

    def test_none_gets_messages_after_unsubscribe(self, make: Make) -> None:
        device = make()
        handlers = Handler(), Handler()
        for handler in handlers:
            device.client.subscribe("a/b", handler)
        peer = device.start()
        peer.expect_subscribe()
        device.client.unsubscribe("a/b")
        peer.expect_unsubscribe()
        peer.publish("a/b", b"", 1, 7)
        assert peer.expect(PUBACK).packet_id == 7
        assert [len(handler.got) for handler in handlers] == [0, 0]


class TestAFilterThatBecomesOverlapped:
    def test_is_subscribed_to_again_and_its_retained_messages_are_not_sent_again(self, make: Make) -> None:
        subscribed = Subscribed(make, "a/#")
        assert subscribed.identifiers == {"a/#": 0}
        subscribed.handlers["a/b"] = Handler()
        subscribed.device.client.subscribe("a/b", subscribed.handlers["a/b"])
        found = {}
        for _ in range(2):
            packet = subscribed.peer.expect_subscribe(1)
            ((name, options),) = packet.filters.items()
            found[name] = options
            subscribed.identifiers[name] = packet.properties[SUBSCRIPTION_IDENTIFIER]
        assert found == {"a/#": 0x11, "a/b": 0x01}  # Retain Handling 1: only if the subscription does not exist
        for identifier in subscribed.identifiers.values():
            subscribed.send("a/b", identifier)
        assert subscribed.counts == [1, 1]

    def test_misses_nothing_while_the_broker_has_it_without_its_identifier(self, make: Make) -> None:
        """A broker that sends one copy names the other identifier only."""
        subscribed = Subscribed(make, "a/#")
        subscribed.handlers["a/b"] = Handler()
        subscribed.device.client.subscribe("a/b", subscribed.handlers["a/b"])
        asked = [subscribed.peer.expect(packets.SUBSCRIBE) for _ in range(2)]
        (of_b,) = [packet for packet in asked if "a/b" in packet.filters]
        subscribed.send("a/b", of_b.properties[SUBSCRIPTION_IDENTIFIER])
        assert subscribed.counts == [1, 1]


_LEVELS = st.lists(st.sampled_from(["a", "b", "+", ""]), min_size=1, max_size=3)
_FILTERS = st.builds(lambda levels, end: "/".join(levels + end), _LEVELS, st.sampled_from([[], ["#"]]))
_TOPICS = ["/".join(levels) for size in (1, 2, 3, 4) for levels in itertools.product(["a", "b", ""], repeat=size)]


def matches(topic_filter: str, topic: str) -> bool:
    matcher = MQTTMatcher()
    matcher[topic_filter] = True
    return any(matcher.iter_match(topic))


@given(_FILTERS, _FILTERS)
def test_filters_overlap_exactly_if_a_topic_matches_both(one: str, other: str) -> None:
    common = any(matches(one, topic) and matches(other, topic) for topic in _TOPICS)
    assert overlap(one, other) == overlap(other, one) == common


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("#", "$SYS/a", False), ("+/a", "$SYS/a", False), ("$SYS/#", "$SYS/a", True), ("#", "+", True)],
)
def test_a_wildcard_at_the_beginning_does_not_overlap_topics_of_the_server(
    one: str, other: str, expected: bool
) -> None:
    """Section 4.7.2."""
    assert overlap(one, other) is overlap(other, one) is expected
