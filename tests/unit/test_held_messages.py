"""Messages that the asyncio interface holds: each is acknowledged once all of its handlers have processed it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.session import received
from mqtt_token_client.mqtt.session.acks import ManualAcks
from tests.unit.network_thread import call
from tests.unit.session_client import Client


@pytest.fixture
def client(loop: NetworkThread) -> Iterator[Client]:
    client = Client(loop, manual_acks=ManualAcks(by_handlers=True))
    client.session.open(loop.call_soon, lambda: None)
    yield client
    client.close()


def process(client: Client, *messages: Message) -> None:
    client.session.acknowledge([message.pending_ack for message in messages])
    call(client.loop, lambda: None)


class TestAMessageWithTwoHandlers:
    @pytest.mark.parametrize(
        ("publish", "acknowledgement"),
        [("32 06 0001 74 0007 00", "40 02 0007"), ("34 06 0001 74 0007 00", "50 02 0007")],
    )
    def test_is_acknowledged_when_both_have_processed_it(
        self, client: Client, publish: str, acknowledgement: str
    ) -> None:
        first, second = list[Message](), list[Message]()
        client.subscribe("t", handler=first.append)
        client.read(1)
        client.subscribe("#", handler=second.append)
        client.read(1)
        client.answer(publish)
        process(client, *first)
        client.sees_nothing()
        process(client, *second)
        client.sees(acknowledgement)

    def test_is_not_acknowledged_by_what_the_application_calls(self, client: Client) -> None:
        client.answer("32 06 0001 74 0007 00")
        client.delivered[0].acknowledge()
        client.sees_nothing()
        process(client, client.delivered[0])
        client.sees("40 02 0007")


def test_acknowledgements_of_several_messages_go_out_in_the_order_of_arrival(client: Client) -> None:
    for packet_id in (1, 2, 3):
        client.answer(f"32 06 0001 74 000{packet_id} 00")
    one, two, three = client.delivered
    process(client, three, two)
    client.sees_nothing()
    process(client, one)
    client.sees("40 02 0001 40 02 0002 40 02 0003")


def test_a_message_held_when_the_client_was_closed_is_handed_over_again_on_its_next_connection(client: Client) -> None:
    client.answer("32 06 0001 74 0001 00")
    client.answer("34 06 0001 74 0002 00")
    call(client.loop, client.session.close)
    process(client, *client.delivered)  # too late
    client.session.open(client.loop.call_soon, lambda: None)
    client.reconnect()
    client.answer("3a 06 0001 74 0001 00")
    client.answer("3c 06 0001 74 0002 00")
    assert [message.packet_id for message in client.delivered] == [1, 2, 1, 2]
    process(client, *client.delivered[2:])
    client.sees("40 02 0001 50 02 0002")


def test_messages_that_are_held_are_recognised_over_a_rotation_however_many_they_are(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "_REMEMBERED", 2)
    for packet_id in range(1, 6):
        client.answer(f"32 06 0001 74 000{packet_id} 00")
    client.reconnect()
    for packet_id in range(1, 6):
        client.answer(f"3a 06 0001 74 000{packet_id} 00")
    assert [message.packet_id for message in client.delivered] == [1, 2, 3, 4, 5]
    process(client, *client.delivered)
    client.sees("40 02 0001 40 02 0002 40 02 0003 40 02 0004 40 02 0005")


def test_messages_that_a_slow_one_before_them_holds_back_are_recognised_over_a_rotation(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their acknowledgements wait for its own, so the broker sends all of them again."""
    monkeypatch.setattr(received, "_REMEMBERED", 2)
    for packet_id in range(1, 8):
        client.answer(f"32 06 0001 74 000{packet_id} 00")
        process(client, *client.delivered[1:][-1:])
    client.sees_nothing()
    client.reconnect()
    for packet_id in range(1, 8):
        client.answer(f"3a 06 0001 74 000{packet_id} 00")
    assert [message.packet_id for message in client.delivered] == [1, 2, 3, 4, 5, 6, 7]
    process(client, client.delivered[0])
    client.sees("40 02 0001 40 02 0002 40 02 0003 40 02 0004 40 02 0005 40 02 0006 40 02 0007")


def test_messages_that_are_held_are_recognised_after_newer_ones_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "_REMEMBERED", 2)
    for packet_id in range(1, 6):
        client.answer(f"32 06 0001 74 000{packet_id} 00")
    client.reconnect()
    for packet_id in range(6, 9):
        client.answer(f"32 06 0001 74 000{packet_id} 00")
    for packet_id in range(1, 6):
        client.answer(f"3a 06 0001 74 000{packet_id} 00")
    assert [message.packet_id for message in client.delivered] == [1, 2, 3, 4, 5, 6, 7, 8]
