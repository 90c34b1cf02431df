"""What each code of each acknowledgement leads to: PUBACK, PUBREC and PUBCOMP of MQTT 5, over a real connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mqtt_token_client.events import DeliveryRefused
from mqtt_token_client.mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.session.outcomes import Outcome, outcome
from tests.unit.session_client import Client


@pytest.fixture
def client(loop: NetworkThread) -> Iterator[Client]:
    client = Client(loop)
    yield client
    client.close()


D, R, X, U, L = Outcome

# MQTT 5 sections 3.4.2.1 (PUBACK), 3.5.2.1 and 4.3.3 (PUBREC), 3.7.2.1 (PUBCOMP); MQTT has no 0xEE.
TABLE = {
    #                                     PUBACK  PUBREC          PUBCOMP
    #                                             once  again
    0x80: ("Unspecified error", X, X, X, D),
    0x83: ("Implementation specific error", X, X, X, D),
    0x87: ("Not authorized", X, X, X, D),
    0x90: ("Topic Name invalid", X, X, X, D),
    0x91: ("Packet Identifier in use", U, U, R, D),
    0x92: ("Packet Identifier not found", X, X, X, D),
    0x93: ("Receive Maximum exceeded, which is none of these packets'", L, L, L, D),
    0x96: ("Message rate too high, which is not either", L, L, L, D),
    0x97: ("Quota exceeded", L, L, L, D),
    0x99: ("Payload format invalid", X, X, X, D),
    0xEE: ("none of MQTT's", X, X, X, D),
}


@pytest.mark.parametrize("code", TABLE)
def test_each_code_has_its_outcome(code: int) -> None:
    _, *expected = TABLE[code]
    found = [
        outcome(PUBACK, code, repeated=False),
        outcome(PUBREC, code, repeated=False),
        outcome(PUBREC, code, repeated=True),
        outcome(PUBCOMP, code, repeated=False),
    ]
    assert found == expected


def publish(packet_id: int, *, qos: int = 2, dup: bool = False) -> str:
    return f"{0x30 | 8 * dup | 2 * qos:02x} 06 00 01 61 00 {packet_id:02x} 00"


class TestIdentifierInUse:
    def test_for_a_message_that_is_sent_again_means_that_it_arrived(self, client: Client) -> None:
        """EMQX answers so, and keeps the identifier for five minutes until PUBREL comes."""
        message = client.publish("a", qos=2)
        client.sees(publish(1))
        client.reconnect()
        client.send()
        client.sees(publish(1, dup=True))
        client.answer("50 03 00 01 91")
        client.sees("62 02 00 01")
        client.answer("70 02 00 01")
        assert message.done
        assert message.error is None
        assert client.reported == []

    def test_for_one_sent_for_the_first_time_gives_it_another_and_finishes_the_exchange_that_has_it(
        self, client: Client
    ) -> None:
        message = client.publish("a", qos=2)
        client.sees(publish(1))
        client.answer("50 03 00 01 91")
        client.send()
        client.sees("62 02 00 01" + publish(2))
        client.answer("70 02 00 01 50 02 00 02")
        client.sees("62 02 00 02")
        client.answer("70 02 00 02")
        assert message.done
        assert message.error is None

    def test_at_qos_1_gives_it_another(self, client: Client) -> None:
        message = client.publish("a")
        client.sees(publish(1, qos=1))
        client.answer("40 03 00 01 91")
        client.send()
        client.sees(publish(2, qos=1))
        client.answer("40 02 00 02")
        assert message.done
        assert message.error is None

    def test_keeps_the_order_of_what_has_not_been_sent(self, client: Client) -> None:
        client.receive_maximum = 1
        first = client.publish("a", qos=2)
        client.publish("b", qos=2)
        client.answer("50 03 00 01 91")
        client.send()
        client.sees(publish(1) + "62 02 00 01" + publish(2))
        assert first.packet_id == 2

    def test_of_a_message_that_was_not_sent_on_this_connection_is_ignored(self, client: Client) -> None:
        for _ in range(2):
            client.publish("a")
        client.read(16)
        client.reconnect()
        client.receive_maximum = 1
        client.send()
        client.answer("40 03 00 02 91")
        client.answer("40 02 00 01")
        client.send()
        client.sees(publish(1, qos=1, dup=True) + publish(2, qos=1, dup=True))

    def test_for_everything_fails_the_message_in_the_end(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.session.outbox._MAX_COLLISIONS", 3)
        message = client.publish("a", qos=2)
        for packet_id in range(1, 5):
            assert not message.done
            client.answer(f"50 03 00 {packet_id:02x} 91")
            client.send()
        assert message.done
        assert client.reported == [DeliveryRefused("a", 0x91)]

    def test_of_one_message_each_fails_none(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.session.outbox._MAX_COLLISIONS", 1)
        for packet_id in (1, 3):
            message = client.publish("a")
            client.answer(f"40 03 00 {packet_id:02x} 91")
            client.send()
            assert not message.done
            client.answer(f"40 02 00 {packet_id + 1:02x}")
            assert message.error is None


class TestIdentifiersAtTheBroker:
    """An identifier whose exchange the broker may not have finished is not taken for another message."""

    def test_of_an_exchange_that_pubrel_was_sent_for_is_free_after_pubcomp(self, client: Client) -> None:
        client.publish("a", qos=2)
        assert client.session._outbox.window.timed == 1
        client.answer("50 03 00 01 91")
        assert client.session._outbox.window.timed == 2
        ids = client.session._outbox.ids
        assert 1 in ids._in_use
        client.answer("70 02 00 01")
        assert 1 not in ids._in_use

    @pytest.mark.parametrize("session_present", [True, False])
    def test_of_messages_that_were_abandoned_when_the_client_was_closed(
        self, client: Client, session_present: bool
    ) -> None:
        client.publish("a", qos=2)
        client.publish("b", qos=1)
        client.session.close()
        ids = client.session._outbox.ids
        assert ids._in_use == {1}
        client.reconnect(session_present=session_present)
        assert ids._in_use == ({1} if session_present else set())


class TestQuota:
    @pytest.mark.parametrize(("kind", "qos"), [("40", 1), ("50", 2)])
    def test_in_an_answer_halves_the_window(self, client: Client, kind: str, qos: int) -> None:
        messages = [client.publish("a", qos=qos) for _ in range(40)]
        client.answer(f"{kind} 03 00 01 97")
        assert not messages[0].done
        assert client.session._outbox.window._limit == 20

    @pytest.mark.parametrize("reason", [0x93, 0x96, 0x97])
    def test_that_ends_the_connection_halves_the_window_of_the_next(self, client: Client, reason: int) -> None:
        for _ in range(30):
            client.publish("a", qos=2)
        client.read(30 * 8)
        client.reconnect(reason=reason)
        client.send()
        client.sees("".join(publish(packet_id, dup=True) for packet_id in range(1, 16)))
        client.sees_nothing()

    def test_that_is_not_what_another_reason_means(self, client: Client) -> None:
        for _ in range(30):
            client.publish("a", qos=2)
        client.reconnect(reason=0x8B)
        assert client.session._outbox.window.size == 100
