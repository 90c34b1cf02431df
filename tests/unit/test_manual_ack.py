"""Manual acknowledgement: the broker has its receipt once the application says so, in the order of arrival."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import Connected, Disconnected, Message, Rotated
from mqtt_token_client.mqtt.session.acks import ManualAcks
from tests.unit.device import Device, Make, both
from tests.unit.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL
from tests.unit.scripted_broker import Peer


@pytest.fixture
def make(make: Make) -> Make:
    return lambda *arguments, **options: make(*arguments, **{"manual_ack": True, **options})


def receive(device: Device, broker: Peer, *identifiers: int, qos: int = 1) -> None:
    before = len(device.messages)
    for identifier in identifiers:
        broker.publish("t", b"%d" % identifier, qos, identifier)
    device.until(lambda: len(device.messages) == before + len(identifiers))


@both
def test_a_message_is_acknowledged_when_the_application_says_so(
    make: Make, pool: ThreadPoolExecutor, protocol: int
) -> None:
    device = make(protocol)
    first = device.start()
    receive(device, first, 7)
    first.expect_nothing()
    pool.submit(device.messages[0].acknowledge)
    assert first.expect(PUBACK).packet_id == 7


def test_a_message_of_qos_2_gets_its_receipt_when_the_application_says_so(make: Make) -> None:
    device = make()
    first = device.start()
    receive(device, first, 7, qos=2)
    first.expect_nothing()
    device.messages[0].acknowledge()
    assert first.expect(PUBREC).packet_id == 7
    first.acknowledge(PUBREL, 7)
    assert first.expect(PUBCOMP).packet_id == 7


def test_receipts_go_out_in_the_order_of_arrival(make: Make) -> None:
    device = make()
    first = device.start()
    receive(device, first, 1, 2, 3)
    for number in (2, 1):
        device.messages[number].acknowledge()
    first.expect_nothing()
    device.messages[0].acknowledge()
    assert [first.expect(PUBACK).packet_id for _ in range(3)] == [1, 2, 3]


def test_a_message_of_qos_0_waits_for_nothing(make: Make) -> None:
    device = make()
    first = device.start()
    first.publish("t", b"0")
    device.until(lambda: len(device.messages) == 1)
    device.messages[0].acknowledge()
    first.expect_nothing()


def test_one_acknowledged_twice_has_one_receipt(make: Make) -> None:
    device = make()
    first = device.start()
    receive(device, first, 1)
    for _ in range(2):
        device.messages[0].acknowledge()
    first.expect(PUBACK)
    first.expect_nothing()


def test_one_that_nobody_handles_is_acknowledged(make: Make) -> None:
    device = make(on_message=None)
    first = device.start()
    first.publish("t", b"to nobody", 1, 7)
    assert first.expect(PUBACK).packet_id == 7


class TestRotation:
    def test_does_not_hand_over_again_what_the_application_still_holds(self, make: Make) -> None:
        device = make()
        first = device.start()
        receive(device, first, 1, 2)
        second = device.rotate()
        second.connack(session_present=True)
        device.event(Rotated)
        for number in (1, 2):
            second.publish("t", b"%d" % number, 1, number, dup=True)
        second.expect_nothing()
        assert len(device.messages) == 2
        device.messages[1].acknowledge()
        second.expect_nothing()
        device.messages[0].acknowledge()
        assert [second.expect(PUBACK).packet_id for _ in range(2)] == [1, 2]
        assert device.client.stats.duplicates == 2

    def test_acknowledges_at_once_what_was_acknowledged_in_between(self, make: Make) -> None:
        device = make()
        first = device.start()
        receive(device, first, 1)
        first.close()
        device.event(Disconnected)
        device.messages[0].acknowledge()
        second = device.answer()
        device.event(Connected)
        second.publish("t", b"1", 1, 1, dup=True)
        assert second.expect(PUBACK).packet_id == 1
        assert len(device.messages) == 1


def test_a_lost_session_forgets_what_was_owed(make: Make) -> None:
    device = make()
    first = device.start()
    receive(device, first, 1)
    first.close()
    second = device.answer(session_present=False)
    device.event(Connected)
    receive(device, second, 1)
    device.messages[0].acknowledge()
    second.expect_nothing()
    device.messages[1].acknowledge()
    assert second.expect(PUBACK).packet_id == 1


@pytest.mark.parametrize("end", [ManualAcks.session_lost, ManualAcks.close], ids=["lost", "closed"])
def test_what_was_held_in_a_session_that_is_over_does_not_count_any_more(end: Callable[[ManualAcks], object]) -> None:
    acks = ManualAcks()
    acks.open(Message("t", b"", 1, False, False, packet_id=1), new=True)
    assert acks.held == 1
    end(acks)
    assert acks.held == 0


def test_without_it_acknowledge_does_nothing(make: Make) -> None:
    device = make(manual_ack=False)
    first = device.start()
    first.publish("t", b"1", 1, 1)
    first.expect(PUBACK)
    device.until(lambda: len(device.messages) == 1)
    device.messages[0].acknowledge()
    first.expect_nothing()
    device.client.publish("t", b"x")
    first.expect(PUBLISH)
