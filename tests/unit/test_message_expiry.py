"""A message that waits in the outbox: its Message Expiry Interval counts from publish() (MQTT 5 section 3.3.2.3.3)."""

from __future__ import annotations

import time

import pytest

from mqtt_token_client import Connected, DeliveryFailed, Disconnected, MessageExpired
from mqtt_token_client.mqtt.codec.properties import pack_properties, replace_expiry
from tests.unit.device import Make
from tests.unit.packets import PUBACK, PUBLISH

EXPIRY = "message_expiry_interval"
ON_THE_WIRE = 0x02  # its identifier


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_that_waited_is_sent_with_the_time_that_is_left(make: Make, qos: int) -> None:
    device = make()
    device.client.publish("t", b"waits", qos=qos, properties={"content_type": "text", EXPIRY: 60})
    time.sleep(20)
    sent = device.start().expect(PUBLISH)
    assert (sent.payload, sent.properties[ON_THE_WIRE], sent.properties[0x03]) == (b"waits", 40, b"text")


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_expired_message_is_not_sent_and_fails_and_those_behind_it_are_sent(make: Make, qos: int) -> None:
    device = make(max_inflight=1)
    expired = device.client.publish("t", b"expires", qos=qos, properties={EXPIRY: 20})
    device.client.publish("t", b"stays", qos=1)
    time.sleep(20)
    assert device.start().expect(PUBLISH).payload == b"stays"
    assert device.event(MessageExpired) == MessageExpired("t")
    with pytest.raises(DeliveryFailed, match=r"^the message on t expired before it could be sent") as caught:
        expired.wait(0)
    assert caught.value.reason is None
    assert device.client.stats.queued == 1


def test_a_message_that_does_not_wait_is_sent_as_it_was_given(make: Make) -> None:
    device = make()
    peer = device.start()
    for seconds in (1, 2**32 - 1):
        device.client.publish("t", properties={EXPIRY: seconds}, payload=b"")
        assert peer.expect(PUBLISH).properties[ON_THE_WIRE] == seconds


def test_one_that_expires_at_once_is_left_to_the_broker(make: Make) -> None:
    device = make()
    device.client.publish("t", b"", properties={EXPIRY: 0})
    time.sleep(20)
    assert device.start().expect(PUBLISH).properties[ON_THE_WIRE] == 0


def test_a_message_that_was_sent_is_sent_again_though_it_has_expired(make: Make) -> None:
    """The broker may have it, and a message of QoS 1 is unacknowledged until PUBACK [MQTT-4.3.2-2]."""
    device = make()
    first = device.start()
    delivery = device.client.publish("t", b"", qos=1, properties={EXPIRY: 20})
    first.expect(PUBLISH)
    time.sleep(30)
    first.close()
    device.event(Disconnected)
    second = device.answer()
    device.event(Connected)
    again = second.expect(PUBLISH)
    assert (again.dup, again.properties[ON_THE_WIRE]) == (True, 1)
    second.acknowledge(PUBACK, again.packet_id)
    delivery.wait(10)
    assert not device.reported(MessageExpired)


@pytest.mark.parametrize("others", [{}, {"content_type": "x" * 200}])
def test_the_interval_is_replaced_and_nothing_else(others: dict[str, object]) -> None:
    packed = pack_properties({EXPIRY: 60, **others})
    assert replace_expiry(packed, 7) == pack_properties({EXPIRY: 7, **others})
