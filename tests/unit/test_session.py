"""A session over a real link: what it sends, what it answers, and what it keeps over a loss."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mqtt_token_client import events
from mqtt_token_client.errors import DeliveryFailed
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.session.delivery import Delivery, Outgoing
from mqtt_token_client.mqtt.session.limits import Limits
from mqtt_token_client.mqtt.session.subscriptions import Subscriptions
from mqtt_token_client.mqtt.transport import HIGH_WATER
from tests.unit.network_thread import call
from tests.unit.session_client import Client


def variable_byte_integer(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


def publish_with_properties(properties: bytes) -> bytes:
    body = bytes.fromhex("0001 74 0102") + variable_byte_integer(len(properties)) + properties
    return b"2" + variable_byte_integer(len(body)) + body


@pytest.fixture
def client(loop: NetworkThread) -> Iterator[Client]:
    client = Client(loop)
    yield client
    client.close()


class TestSending:
    def test_a_message_of_qos_0_is_delivered_when_it_is_written(self, client: Client) -> None:
        message = client.publish("t", qos=0)
        client.sees("30 04 0001 74 00")
        call(client.loop, lambda: None)
        assert message.done
        assert client.stats.delivered == 1

    def test_a_message_of_qos_1_is_delivered_when_it_is_acknowledged(self, client: Client) -> None:
        message = client.publish("t")
        client.sees("32 06 0001 74 0001 00")
        assert (message.done, client.stats.delivered) == (False, 0)
        client.answer("40 02 0001")
        assert (message.done, client.stats.delivered) == (True, 1)

    def test_a_message_of_qos_2_is_delivered_when_it_is_complete(self, client: Client) -> None:
        message = client.publish("t", qos=2)
        client.sees("34 06 0001 74 0001 00")
        client.answer("50 02 0001")
        client.sees("62 02 0001")
        assert not message.done
        client.answer("70 02 0001")
        assert (message.done, client.stats.delivered) == (True, 1)

    @pytest.mark.parametrize(("qos", "kind"), [(1, "40"), (2, "50")])
    @pytest.mark.parametrize("reason", [0x80, 0x87])
    def test_a_rejected_message_fails_and_is_reported(self, client: Client, qos: int, kind: str, reason: int) -> None:
        message = client.publish("pump/17", qos=qos)
        client.answer(f"{kind} 03 0001 {reason:x}")
        assert isinstance(message.error, DeliveryFailed)
        assert client.reported == [events.DeliveryRefused("pump/17", reason)]
        assert client.stats.delivered == 0
        assert len(client.session.queue) == 0

    def test_a_refused_message_of_qos_2_is_not_released(self, client: Client) -> None:
        client.publish("t", qos=2)
        client.sees("34 06 0001 74 0001 00")
        client.answer("50 03 0001 97")
        client.sees_nothing()

    def test_the_window_opens_with_each_acknowledgement(self, client: Client) -> None:
        client.receive_maximum = 2
        for _ in range(3):
            client.publish("t")
        client.sees("32 06 0001 74 0001 00  32 06 0001 74 0002 00")
        client.answer("40 02 0002")
        client.sees("32 06 0001 74 0003 00")

    def test_an_acknowledgement_for_nobody_changes_nothing(self, client: Client) -> None:
        client.answer("40 02 0007")
        client.answer("70 02 0007")
        client.sees_nothing()
        assert client.stats.delivered == 0

    def test_a_receipt_for_nobody_is_released(self, client: Client) -> None:
        """The broker may hold what an earlier session of this client sent; PUBREL is what frees it."""
        client.answer("50 02 0007")
        client.sees("62 03 0007 92")

    def test_a_flood_waits_in_the_outbox_and_follows_in_order(self, client: Client) -> None:
        """No more than a little piles up in the link."""
        for number in range(3000):
            client.session.queue.put(Outgoing(encode_topic(f"{number:04}"), bytes(1000), 0, False, b""))
        client.send()
        assert not client.link.takes_more()
        assert len(client.session.queue) > 1000
        size = 3 + 2 + 4 + 1 + 1000
        data = client.read(3000 * size)
        assert [int(data[start + 5 : start + 9]) for start in range(0, len(data), size)] == list(range(3000))
        call(client.loop, lambda: None)
        assert client.stats.delivered == 3000

    @pytest.mark.parametrize("qos", [0, 1])
    def test_no_message_is_taken_from_the_outbox_beyond_what_the_link_accepts(self, client: Client, qos: int) -> None:
        client.session._outbox.window.size = 1000
        for _ in range(300):
            client.session.queue.put(Outgoing(encode_topic("t"), bytes(HIGH_WATER // 4), qos, False, b""))
        written: list[int] = []
        client.link.flush = lambda **_: written.append(len(client.link.unsent))  # type: ignore[method-assign]
        client.send()
        assert len(written) == 1
        assert HIGH_WATER <= written[0] < 1.5 * HIGH_WATER

    def test_the_answer_to_one_of_hundreds_in_flight_is_awaited_by_nobody(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that the network thread rests for longer, and finds many answers at once."""
        client.session._outbox.window.size = 1000
        awaited: list[bool] = []
        monkeypatch.setattr(client.loop, "sends", awaited.append)
        for count in (199, 1, 1):
            for _ in range(count):
                client.session.queue.put(Outgoing(encode_topic("t"), b"", 1, False, b""))
            client.send()
        assert awaited == [True, False, False]

    def test_nothing_is_taken_from_the_outbox_for_a_link_that_is_ending(self, client: Client) -> None:
        call(client.loop, client.link.end)
        message = client.publish("t", qos=0)
        assert client.session.close() == 1
        assert isinstance(message.error, DeliveryFailed)


class TestReceiving:
    def test_a_message_of_qos_0_is_delivered(self, client: Client) -> None:
        client.answer("30 05 0001 74 00 21")
        assert client.delivered == [Message("t", b"!", 0, False, False, {}, 0)]
        assert client.stats.received == 1
        client.sees_nothing()

    def test_a_message_of_qos_1_is_delivered_and_acknowledged(self, client: Client) -> None:
        client.answer("32 07 0001 74 0102 00 21")
        client.sees("40 02 0102")
        assert len(client.delivered) == 1

    def test_one_sent_again_after_its_acknowledgement_is_acknowledged_and_not_delivered(self, client: Client) -> None:
        client.answer("32 07 0001 74 0102 00 21")
        client.reconnect()
        client.answer("3a 07 0001 74 0102 00 21")
        client.sees("40 02 0102")
        assert len(client.delivered) == 1
        assert (client.stats.received, client.stats.duplicates) == (1, 1)

    def test_a_message_of_qos_2_is_delivered_once_until_it_is_released(self, client: Client) -> None:
        client.answer("34 07 0001 74 0102 00 21")
        client.sees("50 02 0102")
        client.reconnect()
        client.answer("3c 07 0001 74 0102 00 21")
        client.sees("50 02 0102")
        client.answer("62 02 0102")
        client.sees("70 02 0102")
        assert (client.stats.received, client.stats.duplicates) == (1, 1)
        client.answer("34 07 0001 74 0102 00 21")
        assert client.stats.received == 2

    def test_another_message_of_qos_2_has_the_identifier_of_one_that_the_broker_dropped(self, client: Client) -> None:
        client.answer("34 07 0001 74 0102 00 21")
        client.sees("50 02 0102")
        client.reconnect()
        client.answer("34 07 0001 74 0102 00 22")
        client.sees("50 02 0102")
        assert [message.payload for message in client.delivered] == [b"!", b'"']

    def test_a_release_of_nobody_is_completed(self, client: Client) -> None:
        client.answer("62 02 0007")
        client.sees("70 03 0007 92")

    def test_many_are_acknowledged_in_the_order_in_which_they_came(self, client: Client) -> None:
        """[MQTT-4.6.0-2]"""
        client.answer("32 07 0001 74 0003 00 21  32 07 0001 74 0001 00 21  34 07 0001 74 0002 00 21")
        client.sees("40 02 0003  40 02 0001  50 02 0002")

    @pytest.mark.parametrize(
        ("packet", "rejection", "answer"),
        [
            ("32 05 0000 0102 00", "e0 01 82", "40 03 0102 83"),
            ("34 05 0000 0102 00", "e0 01 82", "50 03 0102 83"),
            ("32 09 0001 74 0102 03 23 0001", "e0 01 94", "40 03 0102 83"),
        ],
    )
    def test_a_malformed_message_ends_the_connection_and_is_answered_reported_and_dropped_when_it_comes_again(
        self, client: Client, packet: str, rejection: str, answer: str
    ) -> None:
        client.answer(packet)
        client.sees(rejection)
        assert client.broker.recv(1) == b""
        assert client.reported == []
        client.reconnect()
        client.answer(packet)
        client.sees(answer)
        (event,) = client.reported
        assert isinstance(event, events.MessageRejected)
        assert event.violation
        assert client.delivered == []

    def test_a_message_with_too_many_properties_is_answered_as_one_over_the_quota(self, client: Client) -> None:
        packet = publish_with_properties(bytes.fromhex("26 0000 0000") * 5000)
        client.answer(packet.hex())
        client.sees("40 03 0102 97")
        assert client.reported == [events.MessageRejected("t", 0x97, len(packet))]

    def test_an_answer_to_a_ping_asks_for_nothing(self, client: Client) -> None:
        client.answer("d0 00")
        client.sees_nothing()


class TestSubscribing:
    def test_looks_through_the_subscriptions_once_a_change_and_not_for_each_message(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[Subscriptions] = []
        to_subscribe = Subscriptions.to_subscribe

        def look(made: Subscriptions, limits: Limits) -> list[tuple[bytes, list[tuple[str, int]]]]:
            looked.append(made)
            return to_subscribe(made, limits)

        monkeypatch.setattr(Subscriptions, "to_subscribe", look)
        client.subscribe("a")
        for _ in range(3):
            client.publish("t")
        assert len(looked) == 1

    def test_asks_for_all_that_is_new_in_one_packet(self, client: Client) -> None:
        client.subscribe("a", "b")
        client.sees("82 0b 0001 00 0001 61 01 0001 62 01")
        client.answer("90 05 0001 00 01 01")
        client.subscribe()
        client.sees_nothing()

    def test_tells_what_the_broker_refused(self, client: Client) -> None:
        client.subscribe("a", "b", handler=print)
        client.answer("90 05 0001 00 01 8f")
        assert client.reported == [events.SubscriptionRefused("b", 0x8F)]
        client.answer("30 04 0001 62 00  30 04 0001 61 00")
        assert [message.topic for message in client.delivered] == ["b"]

    def test_gives_up_what_is_not_wanted(self, client: Client) -> None:
        client.subscribe("a")
        client.sees("82 07 0001 00 0001 61 01")
        client.answer("90 04 0001 00 01")
        client.unsubscribe("a")
        client.sees("a2 06 0002 00 0001 61")
        client.answer("b0 04 0002 00 00")
        client.reconnect()
        client.subscribe()
        client.sees_nothing()

    def test_takes_a_change_of_mind_to_the_broker_at_once(self, client: Client) -> None:
        client.subscribe("a")
        client.unsubscribe("a")
        client.subscribe("a")
        client.sees("82 07 0001 00 0001 61 01  a2 06 0002 00 0001 61  82 07 0003 00 0001 61 01")

    def test_tells_a_change_before_what_is_published_after_it(self, client: Client) -> None:
        session = client.session
        session.change(lambda wanted: wanted.add("a", None, 1))
        client.publish("t", qos=0)
        client.sees("82 07 0001 00 0001 61 01  30 04 0001 74 00")
        session.change(lambda wanted: wanted.remove("a"))
        client.send()
        client.sees("a2 06 0002 00 0001 61")

    def test_tells_a_change_made_while_it_sends_before_what_is_published_after_it(self, client: Client) -> None:
        session = client.session
        first, second = (Outgoing(encode_topic(topic), b"", 0, False, b"") for topic in ("t", "u"))

        def react(_delivery: Delivery) -> None:
            session.change(lambda wanted: wanted.add("a", None, 1))
            session.queue.put(second)

        first.add_done_callback(react)
        session.queue.put(first)
        client.send()
        client.sees("30 04 0001 74 00  82 07 0001 00 0001 61 01  30 04 0001 75 00")

    def test_makes_changes_in_their_order(self, client: Client) -> None:
        session = client.session
        session.change(lambda wanted: wanted.remove("a"))
        session.change(lambda wanted: wanted.add("a", None, 1))
        client.send()
        client.sees("82 07 0001 00 0001 61 01")

    def test_shares_its_identifiers_with_the_messages(self, client: Client) -> None:
        client.publish("t")
        client.subscribe("a")
        client.publish("t")
        client.sees("32 06 0001 74 0001 00  82 07 0002 00 0001 61 01  32 06 0001 74 0003 00")

    def test_waits_while_all_identifiers_are_in_use(self, client: Client) -> None:
        client.publish("t")
        client.sees("32 06 0001 74 0001 00")
        while client.session.subscriptions._ids.take():
            """All are in use."""
        client.subscribe("a")
        client.unsubscribe("b")
        client.sees_nothing()
        client.answer("40 02 0001")
        client.sees("82 07 0001 00 0001 61 01")
        client.answer("90 04 0001 00 01")
        client.sees("a2 06 0001 00 0001 62")

    def test_asks_again_for_what_was_not_answered(self, client: Client) -> None:
        client.subscribe("a")
        client.reconnect()
        client.subscribe()
        client.sees("82 07 0002 00 0001 61 01")

    def test_asks_for_all_again_after_a_lost_session(self, client: Client) -> None:
        client.subscribe("a", "b")
        client.answer("90 05 0001 00 01 01")
        client.reconnect(session_present=False)
        client.subscribe()
        client.sees("82 0b 0002 00 0001 61 01 0001 62 01")


class TestAfterALoss:
    def test_what_was_not_acknowledged_is_sent_again_with_dup_before_anything_new(self, client: Client) -> None:
        for topic in "abc":
            client.publish(topic)
        client.answer("40 02 0002")
        client.reconnect()
        client.publish("d")
        client.sees("3a 06 0001 61 0001 00  3a 06 0001 63 0003 00  32 06 0001 64 0004 00")

    def test_what_was_received_by_the_broker_is_released_and_not_sent_again(self, client: Client) -> None:
        client.publish("a", qos=2)
        client.publish("b", qos=2)
        client.answer("50 02 0001")
        client.reconnect()
        client.send()
        client.sees("62 02 0001  3c 06 0001 62 0002 00")

    def test_after_a_lost_session_all_is_sent_anew_without_dup(self, client: Client) -> None:
        client.publish("a", qos=2)
        client.publish("b")
        client.answer("50 02 0001")
        client.reconnect(session_present=False)
        client.send()
        client.sees("34 06 0001 61 0001 00  32 06 0001 62 0002 00")

    def test_a_message_of_qos_0_that_did_not_go_out_whole_is_sent_on_the_next_connection(self, client: Client) -> None:
        """Without DUP, which is 0 at QoS 0 [MQTT-3.3.1-2]."""
        first = client.publish("a", qos=0, payload=bytes(4_000_000))
        client.publish("b", qos=0)
        assert client.stats.delivered == 0
        client.reconnect()
        client.send()
        data = client.read(4_000_009 + 6)
        assert data.startswith(bytes.fromhex("30 8492f401 0001 61 00"))
        assert data.endswith(bytes.fromhex("30 04 0001 62 00"))
        call(client.loop, lambda: None)
        assert first.done
        assert client.stats.delivered == 2

    @pytest.mark.parametrize("packet", ["3a 07 0001 74 0102 00 21", "3c 07 0001 74 0102 00 21"])
    def test_after_a_lost_session_what_comes_in_is_new(self, client: Client, packet: str) -> None:
        client.answer(packet)
        client.reconnect(session_present=False)
        client.answer(packet)
        assert (client.stats.received, client.stats.duplicates) == (2, 0)

    def test_nothing_goes_out_on_a_closed_link(self, client: Client) -> None:
        call(client.loop, client.link.close)
        message = client.publish("a")
        assert message.packet_id == 0
        assert client.stats.inflight == 0


class TestReasonStrings:
    """They are in the event that they explain: MQTT 5 sections 3.4.2.2.2, 3.5.2.2.2, 3.9.2.1.2 and 3.11.2.1.2."""

    @pytest.mark.parametrize(("qos", "kind"), [(1, "40"), (2, "50")])
    def test_of_a_rejected_message(self, client: Client, qos: int, kind: str) -> None:
        message = client.publish("pump/17", qos=qos)
        client.answer(f"{kind} 0b 0001 80 07 1f 0004 66756c6c")
        assert client.reported == [events.DeliveryRefused("pump/17", 0x80, reason_string="full")]
        assert str(message.error) == "the broker rejected a message on pump/17: Unspecified error (0x80): full"

    def test_of_a_refused_subscription(self, client: Client) -> None:
        client.subscribe("a")
        client.answer("90 0b 0001 07 1f 0004 66756c6c 97")
        assert client.reported == [events.SubscriptionRefused("a", 0x97, reason_string="full")]

    def test_of_a_refusal_to_unsubscribe(self, client: Client) -> None:
        client.unsubscribe("a")
        client.answer("b0 0b 0001 07 1f 0004 66756c6c 80")
        assert client.reported == [events.UnsubscriptionRefused("a", 0x80, reason_string="full")]

    def test_are_printable_and_cut(self, client: Client) -> None:
        client.subscribe("a")
        text = b"full\n\x1b[2Jof " + b"x" * 300
        properties = b"\x1f" + len(text).to_bytes(2) + text
        body = b"\0\1" + variable_byte_integer(len(properties)) + properties + b"\x97"
        client.answer((b"\x90" + variable_byte_integer(len(body)) + body).hex())
        (event,) = client.reported
        assert isinstance(event, events.SubscriptionRefused)
        assert event.reason_string.startswith("full [2Jof xxx")
        assert len(event.reason_string) == 200


class TestMqtt311:
    @pytest.fixture
    def client(self, loop: NetworkThread) -> Iterator[Client]:
        client = Client(loop, protocol=4)
        yield client
        client.close()

    def test_speaks_its_packets(self, client: Client) -> None:
        message = client.publish("t")
        client.subscribe("a")
        client.sees("32 05 0001 74 0001  82 06 0002 0001 61 01")
        client.answer("40 02 0001  90 03 0002 80  32 06 0001 74 0102 21")
        client.sees("40 02 0102")
        assert message.done
        assert client.reported == [events.SubscriptionRefused("a", 0x80)]

    @pytest.mark.parametrize(("packet", "answer"), [("32 04 0000 0102", "40 02"), ("34 04 0000 0102", "50 02")])
    def test_a_malformed_message_that_comes_again_is_acknowledged_for_lack_of_reason_codes(
        self, client: Client, packet: str, answer: str
    ) -> None:
        client.answer(packet)
        assert client.broker.recv(1) == b""
        client.reconnect()
        client.answer(packet)
        client.sees(f"{answer} 0102")
        assert [type(event) for event in client.reported] == [events.MessageRejected]

    def test_sends_20_of_qos_2_at_once_since_the_broker_cannot_tell(self, client: Client) -> None:
        for _ in range(25):
            client.publish("t", qos=2)
        assert client.stats.inflight == 20
