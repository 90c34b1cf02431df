"""Before CONNECT goes out on the second connection, the broker gets to read what the first one carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mqtt_token_client import Connected, Rotated
from tests.unit import packets
from tests.unit.device import Device, devices
from tests.unit.packets import CONNECT, PINGREQ, PUBLISH

Make = Callable[..., Device]
both = pytest.mark.parametrize("protocol", [4, 5])


@pytest.fixture
def make() -> Iterator[Make]:
    with devices() as make:
        yield make


class TestABusyFirstConnection:
    @both
    def test_is_asked_by_pingreq_whether_all_was_read_and_connect_waits_for_the_answer(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.connection._SETTLE_TIME_NEAR", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        second.expect_nothing()
        first.send(packets.PINGRESP_PACKET)
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.event(Rotated)

    @both
    def test_that_does_not_answer_is_not_waited_for_long(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.event(Rotated)

    @both
    def test_that_is_lost_meanwhile_lets_connect_go_out_at_once(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.mqtt.connection._SETTLE_TIME_NEAR", 60.0)
        device = make(protocol)
        first = device.start()
        device.client.publish("t", b"at the last moment")
        first.expect(PUBLISH)
        device.client.rotate()
        second = device.broker.accept()
        first.expect(PINGREQ)
        first.close()
        second.expect(CONNECT)
        second.connack(session_present=True)
        device.until(lambda: len(device.told(Connected)) == 2)


def test_a_quiet_first_connection_is_not_asked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_token_client.mqtt.connection._SETTLE_TIME_NEAR", 60.0)
    monkeypatch.setattr("mqtt_token_client.mqtt.connection._QUIET_TIME", 0.05)
    device = make(5)
    first = device.start()
    first.expect_nothing(0.1)
    second = device.rotate()
    second.connack(session_present=True)
    device.event(Rotated)
