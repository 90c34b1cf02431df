"""What the embedded broker sends to a client, and what it does not keep for it."""

from __future__ import annotations

import time

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.testing import Broker, sessions
from tests.unit.embedded import PUBACK, PUBLISH, Connect, Connection, packet, text
from tests.unit.packets import MAXIMUM_PACKET_SIZE, RECEIVE_MAXIMUM, SESSION_EXPIRY_INTERVAL, Packet, parse

EXPIRY = "message_expiry_interval"
EXPIRY_ON_THE_WIRE = 0x02  # its identifier
KEPT = {SESSION_EXPIRY_INTERVAL: 0xFFFF_FFFF}


class StoppedClock:
    """The clock that the expiry of messages is read from, which the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def clock_gettime(self, _clock_id: int) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    monkeypatch.setattr("mqtt_token_client.clock.time", clock)
    return clock


def expect_message(connection: Connection) -> Packet:
    """The next packet to a client of MQTT 5, which is PUBLISH."""
    received = connection.expect(PUBLISH)
    return parse(PUBLISH << 4 | received.flags, received.body, five=True)


def leave(connection: Connection) -> None:
    """Send DISCONNECT; the session stays."""
    connection.send(b"\xe0\x00")
    assert connection.ended()


# QoS 0


def test_what_is_sent_with_qos_0_does_not_wait_for_a_client_that_is_away(broker: Broker, connect: Connect) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t", qos=1)
    connection.subscribe("at most once", qos=0)
    leave(connection)
    broker.publish("t", b"lost", qos=0)
    broker.publish("at most once", b"lost too", qos=1)
    broker.publish("t", b"kept", qos=1)

    connection = connect()
    assert connection.accepted()
    assert connection.expect(PUBLISH).payload == b"kept"
    broker.publish("t", b"sent at once", qos=0)
    assert connection.expect(PUBLISH).payload == b"sent at once"


def test_a_message_of_qos_0_waits_for_the_end_of_a_take_over(
    broker: Broker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_GRACE", 60)  # the broker waits until the first connection acknowledges
    first = connect()
    first.accepted()
    first.subscribe("t")
    first.publish(1, b"to myself")
    first.expect(PUBACK)
    identifier = first.expect(PUBLISH).identifier
    second = connect()
    wait_until(lambda: any(one.connect and not one.session for one in list(broker._sessions.connections)), "CONNECT")
    broker.publish("t", b"meanwhile", qos=0)
    first.acknowledge(identifier)
    assert second.accepted()
    assert second.expect(PUBLISH).payload == b"meanwhile"


# Message Expiry Interval


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("properties", [None, KEPT])  # of CONNECT: MQTT 3.1.1 and 5
def test_a_message_that_has_expired_is_not_sent_and_those_behind_it_are(
    broker: Broker, connect: Connect, clock: StoppedClock, properties: dict[int, int] | None, qos: int
) -> None:
    connection = connect(properties=properties)
    connection.accepted()
    connection.subscribe("t", qos)
    leave(connection)
    broker.publish("t", b"expires", qos, properties={EXPIRY: 60})
    broker.publish("t", b"stays", qos)
    clock.now += 60

    connection = connect(properties=properties)
    assert connection.accepted()
    assert connection.expect(PUBLISH).body.endswith(b"stays")


def test_a_message_that_waited_is_sent_with_the_rest_of_its_interval(
    broker: Broker, connect: Connect, clock: StoppedClock
) -> None:
    connection = connect(properties=KEPT)
    connection.accepted()
    connection.subscribe("t")
    leave(connection)
    broker.publish("t", b"waits", 1, properties={"content_type": "text", EXPIRY: 60})
    clock.now += 59.9

    connection = connect(properties=KEPT)
    assert connection.accepted()
    message = expect_message(connection)
    assert (message.payload, message.properties) == (b"waits", {0x03: b"text", EXPIRY_ON_THE_WIRE: 1})


def test_a_retained_message_expires_too(broker: Broker, connect: Connect, clock: StoppedClock) -> None:
    broker.publish("t/1", b"expires", retain=True, properties={EXPIRY: 60})
    broker.publish("t/2", b"waits", retain=True, properties={EXPIRY: 100})
    clock.now += 60
    connection = connect(properties=KEPT)
    connection.accepted()
    connection.send(packet(0x82, b"\0\1\0" + text(b"t/#") + b"\1"))
    message = expect_message(connection)
    assert (message.topic, message.properties, message.retain) == ("t/2", {EXPIRY_ON_THE_WIRE: 40}, True)


@pytest.mark.parametrize("interval", [0, 1, 2**32 - 1])
def test_a_message_that_does_not_wait_is_sent_with_the_interval_that_it_was_published_with(
    broker: Broker, connect: Connect, clock: StoppedClock, interval: int
) -> None:
    connection = connect(properties=KEPT)
    connection.accepted()
    connection.subscribe("t")
    clock.now += 0.7
    broker.publish("t", b"", properties={EXPIRY: interval})
    assert expect_message(connection).properties == {EXPIRY_ON_THE_WIRE: interval}


def test_a_message_that_was_sent_is_sent_again_though_it_has_expired(
    broker: Broker, connect: Connect, clock: StoppedClock
) -> None:
    """It is unacknowledged until PUBACK [MQTT-4.3.2-2]."""
    connection = connect(properties=KEPT)
    connection.accepted()
    connection.subscribe("t")
    broker.publish("t", b"", 1, properties={EXPIRY: 60})
    assert not expect_message(connection).dup
    leave(connection)
    clock.now += 600

    connection = connect(properties=KEPT)
    assert connection.accepted()
    again = expect_message(connection)
    assert (again.dup, again.properties) == (True, {EXPIRY_ON_THE_WIRE: 0})


def test_a_clock_that_goes_back_makes_no_interval_longer(broker: Broker, connect: Connect, clock: StoppedClock) -> None:
    broker.publish("t", b"kept", retain=True, properties={EXPIRY: 60})
    clock.now -= 3600
    connection = connect(properties=KEPT)
    connection.accepted()
    connection.send(packet(0x82, b"\0\1\0" + text(b"t") + b"\1"))
    assert expect_message(connection).properties == {EXPIRY_ON_THE_WIRE: 60}


def test_a_property_that_mqtt_does_not_allow_is_a_configuration_error(broker: Broker) -> None:
    with pytest.raises(ConfigurationError, match=EXPIRY):
        broker.publish("t", b"", properties={EXPIRY: "60"})


# Maximum Packet Size


@pytest.mark.parametrize(("qos", "others"), [(0, 6), (1, 8), (2, 8)])
def test_a_message_above_the_clients_maximum_packet_size_is_not_sent_and_does_not_count_as_sent(
    broker: Broker, connect: Connect, qos: int, others: int
) -> None:
    """Beside its payload, a message has ``others`` bytes."""
    connection = connect(properties={MAXIMUM_PACKET_SIZE: 100, RECEIVE_MAXIMUM: 1})
    connection.accepted()
    connection.subscribe("t", qos=2)
    broker.publish("t", b"x" * (101 - others), qos)
    broker.publish("t", b"x" * (100 - others), qos)
    assert len(expect_message(connection).payload) == 100 - others
    connection.ping()


def test_a_message_above_the_maximum_packet_size_reaches_the_clients_that_accept_it(
    broker: Broker, connect: Connect
) -> None:
    for client_id, properties in (("small", {MAXIMUM_PACKET_SIZE: 100}), ("large", {}), ("older", None)):
        connection = connect(client_id, properties=properties)
        connection.accepted()
        connection.subscribe("t")
        broker.publish("t", b"x" * 100, 1)
        if client_id != "small":
            assert connection.expect(PUBLISH).body.endswith(b"x" * 100)
        connection.ping()


def test_a_message_that_is_too_large_to_be_sent_again_counts_as_delivered(broker: Broker, connect: Connect) -> None:
    connection = connect(properties=KEPT)
    connection.accepted()
    connection.subscribe("t")
    broker.publish("t", b"x" * 100, 1)
    broker.publish("t", b"small", 1)
    assert [len(expect_message(connection).payload) for _ in range(2)] == [100, 5]
    leave(connection)
    for properties in ({**KEPT, MAXIMUM_PACKET_SIZE: 100}, KEPT):
        connection = connect(properties=properties)
        assert connection.accepted()
        again = expect_message(connection)
        assert (again.payload, again.dup) == (b"small", True)
        connection.ping()
        leave(connection)
