"""What is subscribed: whose handler a message is, what to ask the broker for, and what it has confirmed."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.packets import SUBSCRIBE
from mqtt_token_client.mqtt.codec.properties import pack_properties
from mqtt_token_client.mqtt.session.dispatch import Handler
from mqtt_token_client.mqtt.session.limits import Limits
from mqtt_token_client.mqtt.session.packet_ids import PacketIds
from mqtt_token_client.mqtt.session.subscriptions import Subscriptions


def handler(_message: Message) -> None:
    """For subscriptions whose handler does not matter."""


def subscriptions(*filters: str) -> Subscriptions:
    made = Subscriptions(PacketIds())
    for name in filters:
        made.add(name, handler, 1)
    return made


def due(made: Subscriptions) -> list[tuple[str, int]]:
    """What to send SUBSCRIBE for, where nothing has properties."""
    packets = made.to_subscribe(Limits())
    assert {properties for properties, _ in packets} <= {b""}
    return [one for _, filters in packets for one in filters]


def unwanted(made: Subscriptions) -> list[str]:
    """What to send UNSUBSCRIBE for."""
    return [name for packet in made.to_unsubscribe(Limits()) for name in packet]


def ask(made: Subscriptions) -> tuple[int, int]:
    """Ask for all that is due, as a session does; the identifiers of SUBSCRIBE and UNSUBSCRIBE, 0 for none."""
    wanted, gone = due(made), unwanted(made)
    return (
        made.ask([name for name, _ in wanted]) if wanted else 0,
        made.ask(gone) if gone else 0,
    )


def confirmed(*filters: str) -> Subscriptions:
    """Subscriptions that the broker has confirmed."""
    made = subscriptions(*filters)
    packet_id, _ = ask(made)
    assert list(made.subscribed(packet_id, [1] * len(filters))) == []
    return made


def routed(made: Subscriptions, topic: str) -> tuple[Handler, ...]:
    """The handlers of a message without Subscription Identifiers."""
    found = made.routes.handlers(Message(topic, b"", 0, False, False), ())
    assert found is not None
    return found


class TestMatching:
    """MQTT 5 section 4.7; the examples are its own."""

    @pytest.mark.parametrize(
        ("topic_filter", "topic"),
        [
            ("sport/tennis/player1", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("+/tennis/#", "a/tennis/b/c"),
            ("$SYS/#", "$SYS/broker"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("$share/group/sport/+", "sport/tennis"),
            ("$share/group/#", "a/b"),
            ("$share/group//finance", "/finance"),
            ("$share/group/$SYS/#", "$SYS/broker"),
            ("$shared/group/a", "$shared/group/a"),
            ("é/+", "é/ü"),
        ],
    )
    def test_a_topic_that_matches(self, topic_filter: str, topic: str) -> None:
        assert list(routed(subscriptions(topic_filter), topic)) == [handler]

    @pytest.mark.parametrize(
        ("topic_filter", "topic"),
        [
            ("sport/tennis/player1", "sport/tennis/player2"),
            ("sport/tennis/player1", "sport/tennis/player1/"),
            ("Sport", "sport"),
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("a/#", "ab"),
            ("#", "$SYS/broker"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("$share/group/#", "$SYS/broker"),
            ("$share/group/a", "$share/group/a"),
            ("$share/group/a", "group/a"),
        ],
    )
    def test_a_topic_that_does_not(self, topic_filter: str, topic: str) -> None:
        assert list(routed(subscriptions(topic_filter), topic)) == []

    def test_every_handler_whose_filter_matches_is_found(self) -> None:
        made = Subscriptions(PacketIds())
        filters = ("a/b", "a/+", "#", "$share/g/a/b", "$share/h/a/b", "a/c", "+")
        handlers: dict[str, Handler] = {name: partial(print, name) for name in filters}
        for name, one in handlers.items():
            made.add(name, one, 1)
        found = [name for name, one in handlers.items() if one in routed(made, "a/b")]
        assert found == ["a/b", "a/+", "#", "$share/g/a/b", "$share/h/a/b"]
        assert len(list(routed(made, "a/b"))) == 5

    def test_without_a_subscription_nobody_handles_a_message(self) -> None:
        assert list(routed(Subscriptions(PacketIds()), "a")) == []

    def test_a_subscription_without_a_handler_has_none(self) -> None:
        made = Subscriptions(PacketIds())
        made.add("a", None, 1)
        assert list(routed(made, "a")) == []

    def test_the_last_handler_of_a_filter_counts(self) -> None:
        made = subscriptions("a")
        made.add("a", print, 1)
        assert list(routed(made, "a")) == [print]

    def test_a_handler_may_be_added_beside_the_others_and_counts_once(self) -> None:
        made = subscriptions("a")
        for one in (print, handler, print, None):
            made.add("a", one, 1, beside=True)
        assert routed(made, "a") == (handler, print)
        made.remove("a")
        assert routed(made, "a") == ()

    def test_a_filter_that_was_removed_matches_no_more(self) -> None:
        made = subscriptions("a", "#")
        made.remove("a")
        assert list(routed(made, "a")) == [handler]
        made.remove("#")
        assert list(routed(made, "a")) == []


class TestSubscribing:
    def test_is_due_for_what_is_new_with_its_qos(self) -> None:
        made = Subscriptions(PacketIds())
        made.add("a", handler, 0)
        made.add("b", None, 2)
        assert due(made) == [("a", 0), ("b", 2)]

    def test_is_one_packet_for_all_that_have_the_same_properties(self) -> None:
        made = Subscriptions(PacketIds())
        for name, options, properties in (("a", 1, b"x"), ("b", 2, b""), ("c", 0, b"x"), ("d", 1, b"y")):
            made.add(name, handler, options, properties)
        assert made.to_subscribe(Limits()) == [(b"x", [("a", 1), ("c", 0)]), (b"", [("b", 2)]), (b"y", [("d", 1)])]
        packet_id = made.ask(["a", "c"])
        assert made.to_subscribe(Limits()) == [(b"", [("b", 2)]), (b"y", [("d", 1)])]
        list(made.subscribed(packet_id, [1, 0]))
        made.connection_lost()
        made.connected("", session_present=False)
        assert [properties for properties, _ in made.to_subscribe(Limits())] == [b"x", b"", b"y"]

    def test_takes_eight_filters_a_packet(self) -> None:
        names = [f"a/{number}" for number in range(20)]
        made = subscriptions(*names)
        packets = [[name for name, _ in filters] for _, filters in made.to_subscribe(Limits())]
        assert packets == [names[:8], names[8:16], names[16:]]
        for name in names:
            made.remove(name)
        assert [len(packet) for packet in made.to_unsubscribe(Limits())] == [8, 8, 4]

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_makes_no_packet_larger_than_the_broker_takes(self, protocol: int) -> None:
        names = [letter * 50 for letter in "abcde"]
        made = subscriptions(*names)
        packets = [filters for _, filters in made.to_subscribe(Limits(packet_size=120))]
        assert [len(filters) for filters in packets] == [2, 2, 1]
        engine = Codec(protocol)
        assert max(len(engine.subscribe(1, filters)) for filters in packets) <= 120

    def test_fills_a_packet_up_to_what_the_broker_accepts(self) -> None:
        made = subscriptions("a" * 50, "b" * 50)
        size = 8 + 2 * 53
        assert len(made.to_subscribe(Limits(packet_size=size))) == 1
        assert len(made.to_subscribe(Limits(packet_size=size - 1))) == 2

    def test_a_filter_that_is_too_long_for_the_broker_is_reported_and_forgotten(self) -> None:
        made = subscriptions("a" * 50, "b" * 8, "c" * 9)
        assert made.remove_rejected(Limits(packet_size=19)) == [("a" * 50, 0x95), ("c" * 9, 0x95)]
        assert len(Codec(5).subscribe(1, due(made))) <= 19

    def test_a_filter_that_is_too_long_to_be_subscribed_to_is_not_unsubscribed_from_there_but_elsewhere(self) -> None:
        made = subscriptions()
        for name in ("a" * 50, "b" * 8, "c" * 9):
            made.remove(name)
        limits = Limits(packet_size=19)
        assert made.to_unsubscribe(limits) == [["b" * 8]]
        assert len(Codec(5).unsubscribe(1, ["b" * 8])) <= 19
        assert made.to_unsubscribe(Limits()) == [["a" * 50, "b" * 8, "c" * 9]]

    def test_is_due_again_with_other_properties(self) -> None:
        made = confirmed("a")
        made.add("a", handler, 1, b"x")
        assert made.to_subscribe(Limits()) == [(b"x", [("a", 1)])]

    def test_is_not_due_while_it_is_asked_for(self) -> None:
        made = subscriptions("a")
        ask(made)
        assert due(made) == []
        made.add("b", handler, 1)
        assert due(made) == [("b", 1)]

    def test_is_not_due_once_it_is_confirmed(self) -> None:
        assert due(confirmed("a", "b")) == []

    def test_frees_its_identifier_when_it_is_answered(self) -> None:
        ids = PacketIds()
        made = Subscriptions(ids)
        made.add("a", handler, 1)
        packet_id = made.ask(["a"])
        assert packet_id in ids._in_use
        list(made.subscribed(packet_id, [0]))
        assert not ids._in_use

    @pytest.mark.parametrize("reason", [0x8F, 0x9E, 0xA1, 0xA2])
    def test_a_filter_that_can_never_be_accepted_is_reported_and_forgotten(self, reason: int) -> None:
        made = subscriptions("a", "b")
        packet_id, _ = ask(made)
        assert list(made.subscribed(packet_id, [1, reason])) == [("b", reason)]
        assert [bool(list(routed(made, topic))) for topic in "ab"] == [True, False]
        made.connection_lost()
        assert ask(made) == (0, 0)

    @pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x91, 0x97, 0xEE])
    def test_a_filter_refused_for_now_is_asked_for_with_the_next_token_or_connection(self, reason: int) -> None:
        made = subscriptions("a", "b")
        packet_id, _ = ask(made)
        assert list(made.subscribed(packet_id, [1, reason])) == [("b", reason)]
        made.add("c", handler, 1)
        assert due(made) == [("c", 1)], "and no sooner"
        made.token_renewed()
        assert due(made) == [("b", 1), ("c", 1)]
        packet_id, _ = ask(made)
        assert list(made.subscribed(packet_id, [reason, 1])) == [("b", reason)]
        made.connection_lost()
        assert due(made) == [("b", 1)]
        assert list(routed(made, "b")) == [handler]

    def test_a_granted_qos_that_is_lower_is_not_a_rejection(self) -> None:
        made = Subscriptions(PacketIds())
        made.add("a", handler, 2)
        packet_id, _ = ask(made)
        assert list(made.subscribed(packet_id, [0])) == []
        assert due(made) == []

    def test_an_answer_to_nobody_changes_nothing(self) -> None:
        made = subscriptions("a")
        assert list(made.subscribed(77, [0x80])) == []
        assert list(made.unsubscribed(78, [])) == []
        assert due(made) == [("a", 1)]

    def test_an_answer_to_nobody_frees_no_identifier_of_a_message(self) -> None:
        ids = PacketIds()
        made, of_a_message = Subscriptions(ids), ids.take()
        list(made.subscribed(of_a_message, [0]))
        assert list(made.unsubscribed(of_a_message, [])) == []
        assert of_a_message in ids._in_use

    def test_an_answer_of_the_wrong_kind_confirms_nothing(self) -> None:
        made = confirmed("a")
        made.remove("a")
        _, packet_id = ask(made)
        assert list(made.subscribed(packet_id, [1])) == []
        assert unwanted(made) == ["a"]

    def test_an_answer_that_is_too_short_leaves_the_rest_to_be_asked_again(self) -> None:
        made = subscriptions("a", "b")
        packet_id, _ = ask(made)
        assert list(made.subscribed(packet_id, [1])) == []
        assert due(made) == [("b", 1)]


class TestUnsubscribing:
    def test_is_due_for_what_was_removed_until_it_is_answered(self) -> None:
        made = confirmed("a", "b")
        made.remove("a")
        assert unwanted(made) == ["a"]
        _, packet_id = ask(made)
        assert unwanted(made) == []
        assert list(made.unsubscribed(packet_id, [])) == []
        assert ask(made) == (0, 0)

    def test_is_due_for_what_nobody_here_wanted_since_an_earlier_program_may_have(self) -> None:
        made = confirmed("a")
        made.remove("b")
        assert unwanted(made) == ["b"]
        _, packet_id = ask(made)
        assert list(made.unsubscribed(packet_id, [])) == []
        assert ask(made) == (0, 0)

    def test_what_is_wanted_again_is_not_due(self) -> None:
        made = confirmed("a")
        made.remove("a")
        made.add("a", handler, 1)
        assert unwanted(made) == []
        assert due(made) == [("a", 1)]


class TestARefusalToUnsubscribe:
    """MQTT 5 section 3.11.3."""

    @pytest.mark.parametrize("reason", [0x00, 0x11])
    def test_is_none_if_the_filter_is_gone(self, reason: int) -> None:
        made = confirmed("a")
        made.remove("a")
        _, packet_id = ask(made)
        assert list(made.unsubscribed(packet_id, [reason])) == []
        made.token_renewed()
        assert unwanted(made) == []

    @pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x91])
    def test_for_now_is_reported_and_asked_again_with_the_next_token_or_connection(self, reason: int) -> None:
        made = confirmed("a", "b")
        made.remove("a")
        made.remove("b")
        _, packet_id = ask(made)
        assert list(made.unsubscribed(packet_id, [reason, 0])) == [("a", reason)]
        assert unwanted(made) == []
        for again in (made.token_renewed, made.connection_lost):
            again()
            assert unwanted(made) == ["a"]
            _, packet_id = ask(made)
            assert list(made.unsubscribed(packet_id, [reason])) == [("a", reason)]

    def test_for_good_is_reported_and_not_asked_again(self) -> None:
        made = confirmed("a")
        made.remove("a")
        _, packet_id = ask(made)
        assert list(made.unsubscribed(packet_id, [0x8F])) == [("a", 0x8F)]
        made.token_renewed()
        assert unwanted(made) == []

    def test_of_what_is_wanted_again_is_nobody(self) -> None:
        made = confirmed("a")
        made.remove("a")
        _, packet_id = ask(made)
        made.add("a", handler, 1)
        assert list(made.unsubscribed(packet_id, [0x80])) == []


class TestChangesWhileAnAnswerIsAwaited:
    """The broker takes requests in their order, so the next one goes out at once."""

    def test_a_filter_wanted_again_is_asked_for_after_the_unsubscribe(self) -> None:
        made = confirmed("a")
        made.remove("a")
        _, gone = ask(made)
        made.add("a", handler, 1)
        assert due(made) == [("a", 1)]
        back, _ = ask(made)
        assert list(made.unsubscribed(gone, [])) == []
        assert list(made.subscribed(back, [1])) == []
        assert ask(made) == (0, 0)

    def test_a_filter_unwanted_again_is_given_up_after_the_subscribe(self) -> None:
        made = subscriptions("a")
        first, _ = ask(made)
        made.remove("a")
        assert unwanted(made) == ["a"]
        _, gone = ask(made)
        assert list(made.subscribed(first, [1])) == []
        assert ask(made) == (0, 0)
        assert list(made.unsubscribed(gone, [])) == []
        assert ask(made) == (0, 0)

    def test_another_qos_is_asked_for_after_the_first(self) -> None:
        made = Subscriptions(PacketIds())
        made.add("a", handler, 0)
        first, _ = ask(made)
        made.add("a", handler, 2)
        assert due(made) == [("a", 2)]
        second, _ = ask(made)
        assert list(made.subscribed(first, [0])) == []
        made.connection_lost()
        assert due(made) == [("a", 2)]
        assert second != first

    def test_a_refusal_of_an_earlier_request_forgets_no_later_one(self) -> None:
        made = Subscriptions(PacketIds())
        made.add("a", handler, 0)
        first, _ = ask(made)
        made.add("a", handler, 2)
        second, _ = ask(made)
        assert list(made.subscribed(first, [0x80])) == []
        assert list(routed(made, "a")) == [handler]
        assert list(made.subscribed(second, [0x80])) == [("a", 0x80)]

    def test_a_refusal_of_what_is_not_wanted_any_more_is_nobody(self) -> None:
        made = subscriptions("a")
        packet_id, _ = ask(made)
        made.remove("a")
        assert list(made.subscribed(packet_id, [0x80])) == []

    def test_an_earlier_unsubscribe_does_not_answer_a_later_one(self) -> None:
        made = confirmed("a")
        made.remove("a")
        _, first = ask(made)
        made.add("a", handler, 1)
        back, _ = ask(made)
        made.remove("a")
        _, second = ask(made)
        assert list(made.unsubscribed(first, [])) == []
        list(made.subscribed(back, [1]))
        made.connection_lost()
        assert unwanted(made) == ["a"]
        assert second not in (0, first)


class TestLosses:
    def test_what_was_not_answered_is_asked_again_on_the_next_connection(self) -> None:
        made = confirmed("a", "b")
        made.add("c", handler, 1)
        made.remove("a")
        ask(made)
        made.connection_lost()
        assert due(made) == [("c", 1)]
        assert unwanted(made) == ["a"]

    def test_a_lost_connection_frees_the_identifiers(self) -> None:
        ids = PacketIds()
        made = Subscriptions(ids)
        made.add("a", handler, 1)
        made.ask(["a"])
        made.connection_lost()
        assert not ids._in_use

    def test_an_answer_that_comes_after_the_loss_changes_nothing(self) -> None:
        made = subscriptions("a")
        packet_id, _ = ask(made)
        made.connection_lost()
        assert list(made.subscribed(packet_id, [1])) == []
        assert due(made) == [("a", 1)]

    def test_what_is_confirmed_is_not_asked_again_while_the_session_is_kept(self) -> None:
        made = confirmed("a")
        made.connection_lost()
        assert ask(made) == (0, 0)

    def test_after_a_lost_session_all_that_is_wanted_is_asked_for(self) -> None:
        made = confirmed("a", "b")
        made.remove("a")
        ask(made)
        made.connection_lost()
        made.connected("", session_present=False)
        assert due(made) == [("b", 1)]
        assert unwanted(made) == []
        assert [bool(list(routed(made, topic))) for topic in "ab"] == [False, True]


@pytest.mark.parametrize("size", [64, 128, 300])
@pytest.mark.parametrize("properties", [0, 20])
def test_no_subscribe_exceeds_the_maximum_packet_size_with_the_identifier_that_an_overlap_adds(
    size: int, properties: int
) -> None:
    """[MQTT-3.2.2-15]"""
    written: list[bytes] = []
    connection: Any = SimpleNamespace(engine=Codec(5), write=written.append)
    for length in range(10, size):
        made = Subscriptions(PacketIds())
        made.add("a/#", None, 1)
        packed = pack_properties({"user_property": [("a", "b" * properties)]}, SUBSCRIBE) if properties else b""
        made.add("a/" + "b" * (length - 2), None, 1, packed)
        made.send(connection, Limits(packet_size=size))
    assert size - 5 < max(map(len, written)) <= size
