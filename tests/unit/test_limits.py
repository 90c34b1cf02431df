"""What the broker accepts, as its CONNACK says in MQTT 5: a message beyond that fails, and is not sent."""

from __future__ import annotations

import pytest

from mqtt_token_client import (
    BrokerRefused,
    ConnectFailed,
    Delivery,
    DeliveryFailed,
    DeliveryRefused,
    Rotated,
    SubscriptionRefused,
)
from tests.unit.device import Make
from tests.unit.packets import (
    CONNECT,
    IDENTIFIERS_AVAILABLE,
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    PUBACK,
    PUBLISH,
    RETAIN_AVAILABLE,
    SHARED_AVAILABLE,
    SUBSCRIBE,
    WILDCARDS_AVAILABLE,
)


def reason_of(delivery: Delivery) -> int | None:
    with pytest.raises(DeliveryFailed) as caught:
        delivery.wait(10)
    return caught.value.reason


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_of_the_maximum_packet_size_goes_and_a_larger_one_fails(make: Make, qos: int) -> None:
    device = make()
    first = device.start(properties={MAXIMUM_PACKET_SIZE: 100})
    overhead = 2 + 2 + 1 + 1 + (2 if qos else 0)  # fixed header, topic "t" with its length, properties, identifier
    largest = bytes(100 - overhead)
    device.client.publish("t", largest, qos=qos)
    assert first.expect(PUBLISH).payload == largest
    assert reason_of(device.client.publish("t", largest + b"1", qos=qos)) == 0x95
    assert device.event(DeliveryRefused).reason == 0x95
    first.expect_nothing()


@pytest.mark.parametrize(("highest", "qos"), [(0, 1), (0, 2), (1, 2)])
def test_a_message_beyond_the_maximum_qos_fails(make: Make, highest: int, qos: int) -> None:
    device = make()
    first = device.start(properties={MAXIMUM_QOS: highest})
    assert reason_of(device.client.publish("t", b"beyond", qos=qos)) == 0x9B
    device.client.publish("t", b"within", qos=highest)
    assert first.expect(PUBLISH).payload == b"within"


def test_a_message_to_be_retained_fails_where_none_are(make: Make) -> None:
    device = make()
    first = device.start(properties={RETAIN_AVAILABLE: 0})
    assert reason_of(device.client.publish("t", b"keep", retain=True, qos=1)) == 0x9A
    device.client.publish("t", b"do not keep")
    assert first.expect(PUBLISH).payload == b"do not keep"


def test_one_that_fails_leaves_its_place_and_its_identifier_to_others(make: Make) -> None:
    device = make(max_inflight=1)
    first = device.start(properties={MAXIMUM_PACKET_SIZE: 50})
    for _ in range(3):
        assert reason_of(device.client.publish("t", bytes(100), qos=1)) == 0x95
    assert device.client.stats.queued == 0
    delivery = device.client.publish("t", b"small", qos=1)
    first.acknowledge(PUBACK, first.expect(PUBLISH).packet_id)
    delivery.wait(10)


def test_the_limits_are_those_of_the_connection_that_carries_the_message(make: Make) -> None:
    device = make()
    first = device.start()
    in_flight = device.client.publish("t", bytes(100), qos=1)
    first.expect(PUBLISH)
    second = device.rotate()
    second.connack(session_present=True, properties={MAXIMUM_PACKET_SIZE: 50})
    device.event(Rotated)
    assert reason_of(in_flight) == 0x95
    device.client.publish("t", b"small")
    assert second.expect(PUBLISH).payload == b"small"


@pytest.mark.parametrize(
    ("available", "topic_filter", "properties", "reason"),
    [
        (WILDCARDS_AVAILABLE, "a/#", None, 0xA2),
        (WILDCARDS_AVAILABLE, "a/+/b", None, 0xA2),
        (SHARED_AVAILABLE, "$share/group/a", None, 0x9E),
        (IDENTIFIERS_AVAILABLE, "a", {"subscription_identifier": 7}, 0xA1),
    ],
)
def test_a_subscription_of_a_kind_that_the_broker_has_not_is_refused_and_not_sent(
    make: Make, available: int, topic_filter: str, properties: dict[str, object] | None, reason: int
) -> None:
    device = make()
    device.client.subscribe(topic_filter, properties=properties)  # for when it is connected
    first = device.start(properties={available: 0})
    assert device.event(SubscriptionRefused) == SubscriptionRefused(topic_filter, reason)
    device.client.subscribe(topic_filter, properties=properties)
    assert device.event(SubscriptionRefused) == SubscriptionRefused(topic_filter, reason)
    device.client.subscribe("plain")
    assert first.expect(SUBSCRIBE).filters == {"plain": 1}


def test_an_unsubscribe_beyond_the_maximum_packet_size_waits_for_a_connection_that_takes_it(make: Make) -> None:
    device = make()
    long = "a" * 100
    first = device.start(properties={MAXIMUM_PACKET_SIZE: 100})
    for topic_filter in (long, "short"):
        device.client.unsubscribe(topic_filter)
    assert list(first.expect_unsubscribe().filters) == ["short"]
    first.expect_nothing()
    second = device.rotate()
    second.connack(session_present=True)
    device.event(Rotated)
    assert list(second.expect_unsubscribe().filters) == [long]


@pytest.mark.parametrize("code", [0x9C, 0x9D])
def test_another_server_that_the_broker_names_is_reported(make: Make, code: int) -> None:
    device = make()
    device.client.connect(timeout=0)
    broker = device.broker.accept()
    broker.expect(CONNECT)
    reference = b"other.example.com:8883"
    properties = bytes((0x1C, 0, len(reference))) + reference
    broker.send(bytes((0x20, 3 + len(properties), 0, code, len(properties))) + properties)
    error = device.event(ConnectFailed).error
    assert isinstance(error, BrokerRefused)
    assert "it names 'other.example.com:8883' instead: give that as broker" in str(error)
