# ruff: noqa: F811 - fixtures are arguments
"""The fixtures that pytest offers to a user's tests, used as a user does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client import (
    ClientCredentials,
    Connected,
    ConnectFailed,
    Disconnected,
    Event,
    Rotated,
    TokenClient,
    TokenRenewed,
)
from mqtt_token_client.clock import monotonic
from mqtt_token_client.profiles.enhanced import EventGrid
from mqtt_token_client.testing import AuthorizationServer, Broker
from mqtt_token_client.testing.device_clock import DeviceClock
from mqtt_token_client.testing.plugin import broker, clock, idp, token_source  # noqa: F401 - as fixtures

PATIENCE = 10


class Device:
    """A client, and what it reports."""

    def __init__(self, broker: Broker, source: ClientCredentials, **options: Any) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.client = TokenClient(broker.url, source, client_id="pump-17", on_event=self.events.put, **options)

    def wait_for(self, kind: type[Event]) -> Any:
        while not isinstance(event := self.events.get(timeout=PATIENCE), kind):
            pass
        return event


@pytest.fixture(params=[4, 5])
def device(broker: Broker, token_source: ClientCredentials, request: pytest.FixtureRequest) -> Iterator[Device]:
    device = Device(broker, token_source, protocol=request.param)
    with device.client:
        device.wait_for(Connected)
        yield device


def test_what_a_client_publishes_is_among_the_messages(device: Device, broker: Broker) -> None:
    device.client.publish("pump/17/state", "on", qos=1)
    device.client.publish("pump/17/other", "1")
    state = broker.messages("pump/+/state", count=1)
    assert [(one.topic, one.payload, one.qos, one.client_id) for one in state] == [
        ("pump/17/state", b"on", 1, "pump-17")
    ]
    assert len(broker.messages(count=2)) == 2
    with pytest.raises(TimeoutError, match=r"0 of 1 messages on valve/# in 0\.01 s"):
        broker.messages("valve/#", count=1, timeout=0.01)


def test_a_message_of_the_test_reaches_the_client(device: Device, broker: Broker) -> None:
    commands: SimpleQueue[bytes] = SimpleQueue()
    device.client.subscribe("pump/17/command", lambda message: commands.put(message.payload))
    device.client.publish("pump/17/ready", qos=1, payload=None).wait(PATIENCE)  # goes out after the subscription
    broker.publish("pump/17/command", "stop", qos=1)
    assert commands.get(timeout=PATIENCE) == b"stop"


def test_a_dropped_connection_comes_back(device: Device, broker: Broker) -> None:
    assert broker.client_ids == {"pump-17"}
    broker.drop()
    device.wait_for(Disconnected)
    device.wait_for(Connected)


def test_a_closed_connection_comes_back_with_the_reason_in_mqtt_5(device: Device, broker: Broker) -> None:
    broker.disconnect(0x8B, "pump-17")
    assert device.wait_for(Disconnected).reason in (None, 0x8B)


def test_a_rejected_connect_is_tried_again(device: Device, broker: Broker) -> None:
    broker.reject(0x88, times=1)
    broker.drop("pump-17")
    device.wait_for(ConnectFailed)
    device.wait_for(Connected)


def test_the_server_is_out_of_order_as_often_as_the_test_says(
    broker: Broker, idp: AuthorizationServer, token_source: ClientCredentials
) -> None:
    idp.fail(503, times=2)
    device = Device(broker, token_source)
    with device.client:
        assert device.wait_for(ConnectFailed).error.status == 503
        device.wait_for(Connected)


def test_a_token_that_is_revoked_is_replaced(device: Device, broker: Broker, idp: AuthorizationServer) -> None:
    idp.expire_now()
    broker.check_tokens()
    device.wait_for(Disconnected)
    device.wait_for(TokenRenewed)
    device.wait_for(Connected)


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_jump_over_the_expiry_renews_the_token(
    clock: DeviceClock, broker: Broker, token_source: ClientCredentials, protocol: int
) -> None:
    device = Device(broker, token_source, protocol=protocol)
    with device.client:
        device.wait_for(Connected)
        clock.jump(hours=3)
        device.wait_for(TokenRenewed)
        assert device.client.token_expires_in == pytest.approx(60, abs=PATIENCE)


def test_messages_on_the_broker_expire_while_the_device_is_suspended(
    clock: DeviceClock, broker: Broker, token_source: ClientCredentials
) -> None:
    commands: SimpleQueue[bytes] = SimpleQueue()
    device = Device(broker, token_source)
    with device.client as client:
        client.subscribe("pump/17/command", lambda _message: None)
        client.publish("pump/17/ready", qos=1, payload=None).wait(PATIENCE)  # goes out after the subscription
    wait_until(lambda: not broker.client_ids, "the end of the connection")
    broker.publish("pump/17/command", "late", qos=1, properties={"message_expiry_interval": 3600})
    broker.publish("pump/17/command", "in time", qos=1, properties={"message_expiry_interval": 36_000})
    clock.jump(hours=3)
    device = Device(broker, token_source)
    device.client.subscribe("pump/17/command", lambda message: commands.put(message.payload))
    with device.client:
        assert commands.get(timeout=PATIENCE) == b"in time"


def test_the_time_does_not_go_back_while_a_client_works(broker: Broker, token_source: ClientCredentials) -> None:
    device = Device(broker, token_source)
    with device.client:
        device.wait_for(Connected)
        with DeviceClock() as clock:
            clock.jump(hours=3)
            during = monotonic()
        assert monotonic() >= during
    wait_until(lambda: not any(one.name.startswith("mqtt-token-") for one in threading.enumerate()), "the end of it")
    with DeviceClock():
        assert monotonic() >= during
    assert monotonic() < during


def test_a_wrong_wall_clock_changes_nothing(
    clock: DeviceClock, broker: Broker, token_source: ClientCredentials
) -> None:
    clock.set_wrong(hours=-24 * 365 * 50)
    with TokenClient(broker.url, token_source, client_id="pump-17") as client:
        assert client.token_expires_in == pytest.approx(60, abs=PATIENCE)


def test_a_new_token_is_presented_on_the_same_connection(broker: Broker, token_source: ClientCredentials) -> None:
    device = Device(broker, token_source, profile=EventGrid())
    with device.client as client:
        client.rotate()
        deadline = time.monotonic() + PATIENCE
        while not client.stats.rotations and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert (client.stats.rotations, client.stats.connects) == (1, 1)


def test_a_connection_is_judged_by_the_token_that_was_presented_last(
    broker: Broker, idp: AuthorizationServer, token_source: ClientCredentials
) -> None:
    device = Device(broker, token_source, profile=EventGrid())
    with device.client as client:
        idp.expire_now()  # revokes the token of CONNECT
        client.rotate()
        device.wait_for(Rotated)
        broker.check_tokens()
        client.publish("t", "x", qos=1).wait(PATIENCE)
        assert client.stats.connects == 1

        idp.expire_now()
        broker.check_tokens()
        device.wait_for(Disconnected)


def test_pytest_loads_the_fixtures_and_nothing_of_the_servers_until_they_are_used() -> None:
    heavy = "[name for name in ('flask', 'authlib', 'jwt', 'paho') if name in sys.modules]"
    program = f"import sys, mqtt_token_client.testing.plugin; print({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
