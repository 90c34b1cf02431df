"""What the embedded broker sends to a client, and what it does not keep for it."""

from __future__ import annotations

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.testing import Broker, sessions
from tests.unit.embedded import PUBACK, PUBLISH, Connect, Connection


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
