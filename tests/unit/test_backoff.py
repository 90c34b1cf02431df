"""The delays between failed attempts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from mqtt_token_client.backoff import Backoff
from mqtt_token_client.errors import ConfigurationError


@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(1, 1000))
def test_no_delay_passes_its_bound_or_the_maximum(failures: int, initial: float, times: float) -> None:
    backoff = Backoff(initial, initial * times)
    assert 0 <= backoff.delay(failures) <= min(backoff.maximum, initial * 2.0 ** min(failures - 1, 60))


def test_bound_doubles_with_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _low, high: high)
    assert [Backoff(1, 20).delay(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 20, 20]


def test_delays_fill_the_whole_of_their_bound() -> None:
    delays = [Backoff(8, 8).delay(1) for _ in range(500)]
    assert min(delays) < 1
    assert max(delays) > 7


def test_what_only_a_person_can_fix_is_tried_about_as_seldom_as_possible() -> None:
    delays = [Backoff(1, 100).slow_delay() for _ in range(500)]
    assert 50 <= min(delays) < 60
    assert 90 < max(delays) <= 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial": 0},
        {"initial": -1},
        {"initial": 10, "maximum": 5},
        {"initial": float("nan")},
        {"maximum": float("nan")},
        {"stable_after": -1},
    ],
    ids=str,
)
def test_numbers_that_make_no_sequence_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="backoff"):
        Backoff(**wrong)
