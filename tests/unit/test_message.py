"""The message as applications get it."""

from __future__ import annotations

import pickle
from copy import copy

import pytest

from mqtt_token_client import ConfigurationError
from mqtt_token_client.mqtt.codec.message import Message
from tests.unit import packets
from tests.unit.device import Make
from tests.unit.packets import PUBACK, PUBLISH, PUBREC
from tests.unit.scripted_broker import Peer


def test_a_message_has_no_properties_by_default_and_shares_none() -> None:
    first, second = (Message("a", b"", 0, False, False) for _ in range(2))
    first.properties["mine"] = 1
    assert second.properties == {}


def test_a_message_is_shown_with_all_its_fields() -> None:
    shown = repr(Message("a", b"1", 2, True, False, {"mine": 1}))
    assert shown == ("Message(topic='a', payload=b'1', qos=2, retain=True, duplicate=False, properties={'mine': 1})")


class TestReply:
    """The response to a request: MQTT 5 section 4.10."""

    def request(self, peer: Peer, properties: str, qos: int = 1) -> None:
        packed = bytes.fromhex(properties)
        body = packets.publish(True, "request", b"", qos, 7)[2:-1] + bytes((len(packed),)) + packed
        peer.send(packets._packet(0x30 | qos << 1, body))

    @pytest.mark.parametrize("qos", [1, 2])
    def test_goes_to_the_response_topic_with_the_correlation_data_and_the_qos_of_the_request(
        self, make: Make, qos: int
    ) -> None:
        device = make()
        device.client.subscribe("request", lambda message: message.reply("42"))
        peer = device.start()
        peer.expect_subscribe()
        self.request(peer, "08 0003 612f62  09 0002 ff00", qos)
        peer.expect(PUBACK if qos == 1 else PUBREC)
        response = peer.expect(PUBLISH)
        assert (response.topic, response.payload, response.qos) == ("a/b", b"42", qos)
        assert response.properties == {0x09: b"\xff\0"}

    def test_may_have_a_qos_and_properties_of_its_own(self, make: Make) -> None:
        device = make()
        peer = device.start()
        self.request(peer, "08 0003 612f62  09 0001 31")
        peer.expect(PUBACK)
        (message,) = device.messages
        delivery = message.reply(b"", qos=0, retain=True, properties={"content_type": "t"})
        response = peer.expect(PUBLISH)
        assert (response.qos, response.retain, response.properties) == (0, True, {0x09: b"1", 0x03: b"t"})
        device.until(lambda: delivery.done)

    def test_by_a_message_of_a_client_with_manual_acknowledgement_and_by_a_copy(self, make: Make) -> None:
        device = make(manual_ack=True)
        peer = device.start()
        self.request(peer, "08 0003 612f62")
        device.until(lambda: bool(device.messages))
        copy(device.messages[0]).reply("copy")
        assert peer.expect(PUBLISH).payload == b"copy"

    def test_needs_a_response_topic(self, make: Make) -> None:
        device = make()
        peer = device.start()
        peer.publish("request", b"?", 1, 7)
        peer.expect(PUBACK)
        with pytest.raises(ConfigurationError, match=r"^reply: the message has no response_topic"):
            device.messages[0].reply("42")

    def test_to_a_message_that_no_client_has_received_is_an_error(self) -> None:
        message = Message("t", b"", 0, False, False, {"response_topic": "a"})
        for one in (message, pickle.loads(pickle.dumps(message))):
            with pytest.raises(RuntimeError, match="in the process that received it"):
                one.reply("42")
