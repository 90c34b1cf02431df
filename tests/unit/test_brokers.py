"""Which of several brokers is dialed next."""

from __future__ import annotations

import pytest

from mqtt_token_client.mqtt.transport import address as address_module
from mqtt_token_client.mqtt.transport.address import Address, Brokers

A, B, C = (Address(f"{name}.example", 8883, True) for name in "abc")


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(address_module, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.usefixtures("clock")
def test_the_first_is_dialed_first_and_a_single_one_always() -> None:
    assert Brokers([A, B]).current == A
    single = Brokers([A])
    single.failed(permanent=False)
    assert single.current == A


def test_each_that_fails_makes_way_for_the_next_and_then_for_the_one_that_failed_longest_ago(clock: Clock) -> None:
    brokers = Brokers([A, B, C])
    dialed = []
    for _ in range(7):
        dialed.append(brokers.current)
        clock.now += 5
        brokers.failed(permanent=False)
    assert dialed == [A, B, C, A, B, C, A]


def test_one_that_failed_is_avoided_for_a_while_and_then_preferred_again_by_its_place(clock: Clock) -> None:
    brokers = Brokers([A, B, C])
    brokers.failed(permanent=False)
    clock.now += 59
    brokers.failed(permanent=False)
    assert brokers.current == C
    clock.now += 2  # the failure of the first was 61 seconds ago, that of the second 2
    brokers.failed(permanent=False)
    assert brokers.current == A


def test_one_that_works_stays_though_a_better_one_may_work_again(clock: Clock) -> None:
    brokers = Brokers([A, B])
    brokers.failed(permanent=False)
    clock.now += 100_000
    assert brokers.current == B


def test_failures_of_long_ago_do_not_count(clock: Clock) -> None:
    brokers = Brokers([A, B, C])
    for _ in range(4):  # the first fails again, later than the others
        clock.now += 5
        brokers.failed(permanent=False)
    clock.now += 1000
    assert brokers.current == B
    brokers.failed(permanent=False)
    assert brokers.current == A


def test_one_that_asked_for_time_has_its_turn_after_that_and_later_than_the_others(clock: Clock) -> None:
    brokers = Brokers([A, B])
    brokers.put_off(300.0)
    assert brokers.wait == 300.0
    brokers.failed(permanent=False)
    assert (brokers.current, brokers.wait) == (B, 0.0)
    clock.now += 100
    brokers.failed(permanent=False)
    assert (brokers.current, brokers.wait) == (B, 0.0)
    clock.now += 190
    brokers.failed(permanent=False)
    assert (brokers.current, brokers.wait) == (A, 10.0)


@pytest.mark.usefixtures("clock")
def test_one_that_accepts_the_client_needs_no_more_time() -> None:
    brokers = Brokers([A])
    brokers.put_off(300.0)
    brokers.accepted()
    assert brokers.wait == 0.0
