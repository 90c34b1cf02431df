"""Which messages are new: what a resumed session sends again is not."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.session.received import ReceivedIds


def message(packet_id: int, payload: bytes = b"21.5", *, topic: str = "t", qos: int = 1, dup: bool = False) -> Message:
    return Message(topic, payload, qos, False, dup, {}, packet_id)


class TestQos0:
    def test_each_message_is_new(self) -> None:
        inbox = ReceivedIds()
        assert all(inbox.is_new(message(0, qos=0)) for _ in range(3))


class TestQos1:
    def test_each_first_message_is_new(self) -> None:
        inbox = ReceivedIds()
        assert all(inbox.is_new(message(number)) for number in range(1, 100))

    def test_one_sent_again_after_it_was_acknowledged_is_not_new(self) -> None:
        inbox = ReceivedIds()
        inbox.is_new(message(7))
        assert not inbox.is_new(message(7, dup=True))
        assert not inbox.is_new(message(7, dup=True))

    def test_one_sent_again_that_never_arrived_is_new(self) -> None:
        inbox = ReceivedIds()
        inbox.is_new(message(7))
        assert inbox.is_new(message(8, dup=True))
        assert not inbox.is_new(message(8, dup=True))

    @pytest.mark.parametrize("other", [{"payload": b"21.6"}, {"topic": "u"}])
    def test_another_message_with_that_identifier_is_new_also_with_dup(self, other: dict[str, Any]) -> None:
        inbox = ReceivedIds()
        inbox.is_new(message(7))
        assert inbox.is_new(message(7, dup=True, **other))
        assert not inbox.is_new(message(7, dup=True, **other))

    def test_without_dup_the_same_words_are_another_message(self) -> None:
        inbox = ReceivedIds()
        inbox.is_new(message(7))
        assert inbox.is_new(message(7))

    def test_a_broker_that_takes_identifiers_again_at_once_may_mean_another_message(self) -> None:
        """With DUP, the same identifier and the same words, it could be the one after the one that arrived."""
        inbox = ReceivedIds()
        inbox.is_new(message(1))
        inbox.is_new(message(1))
        assert inbox.is_new(message(1, dup=True))
        inbox.is_new(message(2))
        assert inbox.is_new(message(2, dup=True))

    def test_an_identifier_that_returns_after_all_the_others_is_not_at_once(self) -> None:
        inbox = ReceivedIds()
        for packet_id in (*range(1, 1026), 1):
            inbox.is_new(message(packet_id))
        assert not inbox.is_new(message(1, dup=True))

    def test_the_last_1024_are_remembered_and_no_more(self) -> None:
        inbox = ReceivedIds()
        for packet_id in range(1, 5001):
            inbox.is_new(message(packet_id))
        assert len(inbox._acknowledged) == 1024
        assert not inbox.is_new(message(5000 - 1023, dup=True))
        assert inbox.is_new(message(5000 - 1024, dup=True))

    def test_one_that_was_replaced_counts_as_recent(self) -> None:
        inbox = ReceivedIds()
        for packet_id in range(1, 1025):
            inbox.is_new(message(packet_id))
        inbox.is_new(message(1, b"another", dup=True))
        inbox.is_new(message(2000))
        assert not inbox.is_new(message(1, b"another", dup=True))
        assert inbox.is_new(message(2, dup=True))

    def test_identifiers_that_begin_again_in_a_session_in_doubt_are_those_of_a_new_session(self) -> None:
        inbox = ReceivedIds()
        for packet_id in (1, 2):
            inbox.is_new(message(packet_id))
        inbox.session_in_doubt()
        assert inbox.is_new(message(1, b"new"))
        assert not inbox.is_new(message(1, b"new", dup=True)), "the broker does not use identifiers again at once"
        assert inbox.is_new(message(2, dup=True)), "what an earlier session sent has nothing to do with it"

    def test_a_session_in_doubt_that_goes_on_still_knows_what_was_acknowledged(self) -> None:
        inbox = ReceivedIds()
        inbox.is_new(message(1))
        inbox.session_in_doubt()
        assert not inbox.is_new(message(1, dup=True))

    def test_after_a_lost_session_nothing_is_in_doubt(self) -> None:
        inbox = ReceivedIds()
        inbox.session_in_doubt()
        inbox.session_lost()
        for _ in range(2):
            inbox.is_new(message(1))
        assert inbox.is_new(message(1, dup=True)), "identifiers return at once"

    def test_a_lost_session_forgets_them_and_the_habits_of_the_broker(self) -> None:
        inbox = ReceivedIds()
        for _ in range(2):
            inbox.is_new(message(7))
        inbox.session_lost()
        assert inbox.is_new(message(7, dup=True))
        assert not inbox.is_new(message(7, dup=True))


class TestQos2:
    def test_one_that_an_earlier_process_received_is_new_only_without_dup(self) -> None:
        """What is sent again has DUP; without it, the broker has begun a new session that nobody has learned of."""
        assert not ReceivedIds([7]).is_new(message(7, qos=2, dup=True))
        assert ReceivedIds([7]).is_new(message(7, qos=2))

    @pytest.mark.parametrize("dup", [False, True])
    def test_a_message_is_new_once_until_it_is_released(self, dup: bool) -> None:
        inbox = ReceivedIds()
        assert inbox.is_new(message(7, qos=2))
        assert not inbox.is_new(message(7, qos=2, dup=dup))
        assert not inbox.is_new(message(7, b"other words", qos=2, dup=dup))
        inbox.released(7)
        assert inbox.is_new(message(7, qos=2, dup=dup))

    def test_identifiers_are_apart(self) -> None:
        inbox = ReceivedIds()
        inbox.is_new(message(7, qos=2))
        assert inbox.is_new(message(8, qos=2))
        inbox.released(8)
        assert not inbox.is_new(message(7, qos=2))

    def test_an_unknown_identifier_may_be_released(self) -> None:
        ReceivedIds().released(7)

    def test_a_lost_session_releases_all(self) -> None:
        inbox = ReceivedIds()
        inbox.is_new(message(7, qos=2))
        inbox.session_lost()
        assert inbox.is_new(message(7, qos=2))


class TestLeftOverAtQos2:
    """An identifier that an earlier connection left: the broker may have dropped its message, as Mosquitto drops one
    that has expired, and then it never sends PUBREL.
    """

    def left_over(self) -> ReceivedIds:
        inbox = ReceivedIds()
        inbox.is_new(message(7, qos=2))
        inbox.connection_lost()
        return inbox

    def test_it_may_be_used_for_another_message(self) -> None:
        inbox = self.left_over()
        assert inbox.is_new(message(7, b"other words", qos=2))
        assert not inbox.is_new(message(7, b"more words", qos=2)), "this one has to be released"

    def test_also_after_several_connections(self) -> None:
        inbox = self.left_over()
        inbox.connection_lost()
        assert inbox.is_new(message(7, topic="u", qos=2))

    @pytest.mark.parametrize(("words", "dup"), [(b"21.5", False), (b"21.5", True), (b"other words", True)])
    def test_the_same_words_or_dup_mean_that_the_message_is_sent_again(self, words: bytes, dup: bool) -> None:
        inbox = self.left_over()
        assert not inbox.is_new(message(7, words, qos=2, dup=dup))
        assert not inbox.is_new(message(7, b"more words", qos=2)), "it was received on this connection too"

    def test_it_can_still_be_released(self) -> None:
        inbox = self.left_over()
        assert inbox.released(7)
        assert inbox.is_new(message(7, qos=2)), "whatever it says"
        assert not inbox.is_new(message(7, b"more words", qos=2))

    def test_a_session_in_doubt_stays_so_over_a_lost_connection(self) -> None:
        inbox = self.left_over()
        inbox.session_in_doubt()
        inbox.connection_lost()
        assert inbox.is_new(message(7, qos=2))

    def test_one_of_an_earlier_process_stays_so_over_a_lost_connection(self) -> None:
        inbox = ReceivedIds([7])
        inbox.connection_lost()
        assert inbox.is_new(message(7, qos=2))


class TestReleasedAtQos2:
    """A broker that has not seen PUBCOMP when the next connection takes over sends the message again, as EMQX does."""

    def released(self, *payloads: bytes) -> ReceivedIds:
        inbox = ReceivedIds()
        for packet_id, payload in enumerate(payloads, 1):
            assert inbox.is_new(message(packet_id, payload, qos=2))
            inbox.released(packet_id)
        return inbox

    def test_it_is_not_handed_over_again(self) -> None:
        inbox = self.released(b"a", b"b")
        inbox.connection_lost()
        assert not inbox.is_new(message(1, b"a", qos=2, dup=True))
        assert not inbox.is_new(message(2, b"b", qos=2, dup=True))

    def test_once_only(self) -> None:
        inbox = self.released(b"a")
        inbox.connection_lost()
        assert not inbox.is_new(message(1, b"a", qos=2, dup=True))
        inbox.released(1)
        assert inbox.is_new(message(1, b"a", qos=2))

    def test_nor_with_another_content_or_without_dup_or_on_the_same_connection(self) -> None:
        inbox = self.released(b"a", b"b", b"c")
        assert inbox.is_new(message(3, b"c", qos=2, dup=True))
        inbox.connection_lost()
        assert inbox.is_new(message(1, b"x", qos=2, dup=True))
        assert inbox.is_new(message(2, b"b", qos=2))

    def test_nor_on_the_connection_after_the_next(self) -> None:
        inbox = self.released(b"a")
        inbox.connection_lost()
        inbox.connection_lost()
        assert inbox.is_new(message(1, b"a", qos=2, dup=True))

    def test_nor_from_a_broker_that_uses_identifiers_again_at_once(self) -> None:
        inbox = self.released(b"a")
        assert inbox.is_new(message(1, b"a", qos=2))
        inbox.released(1)
        inbox.connection_lost()
        assert inbox.is_new(message(1, b"a", qos=2, dup=True))

    def test_nor_in_a_new_session(self) -> None:
        inbox = self.released(b"a")
        inbox.connection_lost()
        inbox.session_lost()
        assert inbox.is_new(message(1, b"a", qos=2, dup=True))

    def test_only_the_last_ones_are_remembered(self) -> None:
        inbox = self.released(*(b"%d" % number for number in range(1500)))
        assert len(inbox._released) == 1024
