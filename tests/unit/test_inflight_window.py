"""The window in flight follows the line: it is neither what holds a long one up nor what fills a slow one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mqtt_token_client.mqtt.session.flow import InflightWindow

Acknowledge = Callable[[InflightWindow, float], None]


@pytest.fixture
def acknowledge(monkeypatch: pytest.MonkeyPatch) -> Acknowledge:
    """Has a message sent that had to wait for the window, and acknowledged after some seconds."""
    now = 0.0
    monkeypatch.setattr("mqtt_token_client.mqtt.session.flow.monotonic", lambda: now)

    def acknowledge(window: InflightWindow, seconds: float) -> None:
        nonlocal now
        window.sent(7)
        window.full()
        now += seconds
        assert window.timed == 7
        window.answered()
        assert window.timed == 0

    return acknowledge


def test_it_doubles_while_it_is_full_and_the_line_is_not(acknowledge: Acknowledge) -> None:
    window = InflightWindow(10_000)
    for _ in range(6):
        acknowledge(window, 0.1)
    assert window.size == 6400


def test_it_doubles_once_for_each_time_that_it_was_full(acknowledge: Acknowledge) -> None:
    window = InflightWindow(10_000)
    acknowledge(window, 0.1)
    for _ in range(3):
        window.sent(7)
        window.answered()
    assert window.size == 200


def test_it_stays_while_nothing_waits_for_it(acknowledge: Acknowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    window = InflightWindow(10_000)
    monkeypatch.setattr(InflightWindow, "full", lambda _: None)
    for _ in range(6):
        acknowledge(window, 0.1)
    assert window.size == 100


def test_it_stays_where_acknowledgements_begin_to_wait_for_each_other(acknowledge: Acknowledge) -> None:
    window = InflightWindow(10_000)
    acknowledge(window, 0.1)
    for _ in range(6):
        acknowledge(window, 0.25)
    assert window.size == 200


def test_it_shrinks_where_they_take_far_longer_but_not_to_nothing(acknowledge: Acknowledge) -> None:
    window = InflightWindow(10_000)
    acknowledge(window, 0.1)
    acknowledge(window, 0.6)
    assert window.size == 100
    for _ in range(3):
        acknowledge(window, 2.0)
    assert window.size == 20


def test_it_measures_a_new_connection_anew(acknowledge: Acknowledge) -> None:
    window = InflightWindow(10_000)
    acknowledge(window, 0.01)
    window.sent(7)
    window.connection_lost()
    assert window.timed == 0
    acknowledge(window, 0.6)
    assert window.size == 400


@pytest.mark.parametrize("most", [1, 5, 150])
def test_it_is_never_more_than_the_application_allows(acknowledge: Acknowledge, most: int) -> None:
    window = InflightWindow(most)
    for seconds in (0.1, 0.1, 5.0, 5.0, 0.1):
        assert window.size <= most
        acknowledge(window, seconds)
    assert 1 <= window.size <= most


def test_it_grows_again_on_a_line_that_has_become_longer(acknowledge: Acknowledge) -> None:
    window = InflightWindow(10_000)
    acknowledge(window, 0.03)
    sizes = []
    for _ in range(12):
        acknowledge(window, 0.4)
        sizes.append(window.size)
    assert sizes[:4] == [100, 50, 25, 20]
    assert sizes[-1] == 2560


def test_it_times_another_message_when_the_timed_one_comes_to_nothing() -> None:
    window = InflightWindow(100)
    window.sent(7)
    window.forget(8)
    assert window.timed == 7
    window.forget(7)
    assert window.timed == 0


class TestQuota:
    """A broker rejects messages, or ends the connection, as too many are in flight."""

    @pytest.fixture
    def window(self, acknowledge: Acknowledge) -> InflightWindow:
        window = InflightWindow(100)
        acknowledge(window, 0.1)
        return window

    def test_halves_what_was_in_flight(self, window: InflightWindow) -> None:
        window.quota_exceeded(30)
        assert window.size == 15

    def test_does_not_halve_twice_for_one_burst(self, window: InflightWindow, acknowledge: Acknowledge) -> None:
        for _ in range(10):
            window.quota_exceeded(30)
        assert window.size == 15
        acknowledge(window, 1.0)
        window.quota_exceeded(15)
        assert window.size == 7

    def test_leaves_one_at_least(self, window: InflightWindow) -> None:
        window.quota_exceeded(1)
        assert window.size == 1

    def test_is_remembered_on_the_next_connection(self, window: InflightWindow, acknowledge: Acknowledge) -> None:
        window.quota_exceeded(30)
        window.connection_lost()
        for _ in range(20):
            acknowledge(window, 0.1)
        assert window.size == 15

    def test_grows_by_an_eighth_in_a_minute_and_more_slowly_after_another(
        self, window: InflightWindow, acknowledge: Acknowledge
    ) -> None:
        window.quota_exceeded(32)
        acknowledge(window, 0.1)
        acknowledge(window, 59.0)
        assert window.size <= 16
        for _ in range(4):
            acknowledge(window, 1.0)
        assert window.size == 18
        window.quota_exceeded(18)
        assert window.size == 9
        for _ in range(119):
            acknowledge(window, 1.0)
        assert window.size == 9
        for _ in range(2):
            acknowledge(window, 1.0)
        assert window.size == 10

    def test_does_not_grow_beyond_what_the_application_allows(
        self, window: InflightWindow, acknowledge: Acknowledge
    ) -> None:
        window.quota_exceeded(180)
        for _ in range(1000):
            acknowledge(window, 10.0)
        assert window.size == 100


def test_a_pause_is_over_when_its_time_is_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("mqtt_token_client.mqtt.session.flow.monotonic", lambda: now)
    window = InflightWindow(100)
    seconds = window.pause()
    assert 0.5 <= seconds <= 1.0
    now = 1000.0 + seconds - 0.01
    assert (window.resume(), window.size) == (False, 0)
    now = 1000.0 + seconds
    assert (window.resume(), window.size) == (True, 1)


def test_pauses_in_a_row_are_each_twice_as_long_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("mqtt_token_client.mqtt.session.flow.monotonic", lambda: now)
    monkeypatch.setattr("mqtt_token_client.mqtt.session.flow.uniform", lambda _low, high: high)
    window, pauses = InflightWindow(100), list[float]()
    for _ in range(8):
        pauses.append(window.pause())
        now += pauses[-1]
        assert window.resume()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_it_doubles_only_while_acknowledgements_come_faster_than_twice_the_first(acknowledge: Acknowledge) -> None:
    """And 10 ms beside that."""
    window = InflightWindow(10_000)
    acknowledge(window, 0.5)
    acknowledge(window, 2 * 0.5 + 0.01)
    assert window.size == 200
    acknowledge(window, 2 * 0.5 + 0.0099)
    assert window.size == 400
