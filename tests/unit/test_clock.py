"""Elapsed time, and the server's time of day."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given, strategies as st

from mqtt_token_client import clock
from mqtt_token_client.clock import ServerClock, monotonic

YEAR = 365 * 86400.0


def test_elapsed_time_counts_suspend_where_the_system_can() -> None:
    wanted = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before, now, after = time.clock_gettime(wanted), monotonic(), time.clock_gettime(wanted)
    assert before <= now <= after


@pytest.mark.parametrize("step", [-YEAR, YEAR])
def test_a_step_of_the_wall_clock_moves_neither_elapsed_time_nor_a_known_server_time(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    server = ServerClock()
    server.learn(formatdate(1_000_000_000, usegmt=True))
    before = monotonic(), server.now()
    monkeypatch.setattr(time, "time", lambda wall=time.time: wall() + step)
    assert 0 <= monotonic() - before[0] < 60
    assert 0 <= server.now() - before[1] < 60


def test_until_a_server_has_spoken_its_time_is_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert not ServerClock().known
    assert ServerClock().now() == 5.0


def test_server_time_goes_on_from_when_the_header_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: 107.0)
    server = ServerClock()
    server.learn("Sun, 09 Sep 2001 01:46:40 GMT", at=100.0)
    assert server.known
    assert server.now() == 1_000_000_007


def test_server_time_is_what_the_last_header_says() -> None:
    server = ServerClock()
    for time_of_day in (1_500_000_000, 1_000_000_000):
        server.learn(formatdate(time_of_day, usegmt=True))
        assert time_of_day <= server.now() < time_of_day + 60


@pytest.mark.parametrize("header", [None, "", "soon", "Mon, 99 Nov 2026 00:00:00 GMT", "5"])
def test_a_header_that_is_missing_or_unreadable_changes_nothing(header: str | None) -> None:
    fresh, known = ServerClock(), ServerClock()
    known.learn(formatdate(1_000_000_000, usegmt=True))
    for server in (fresh, known):
        server.learn(header)
    assert not fresh.known
    assert 1_000_000_000 <= known.now() < 1_000_000_060


def test_a_header_of_a_time_that_cannot_be_right_changes_nothing() -> None:
    fresh, known = ServerClock(1_500_000_000), ServerClock(1_500_000_000)
    known.learn(formatdate(1_500_000_000, usegmt=True))
    for server in (fresh, known):
        server.learn(formatdate(1_499_999_999, usegmt=True))
    assert not fresh.known
    assert 1_500_000_000 <= known.now() < 1_500_000_060


def test_server_time_that_something_else_has_shown_gives_way_to_the_servers_own() -> None:
    server = ServerClock()
    server.learn_from(1_000_000_000, monotonic(), from_server=False)
    assert (server.known, server.from_server) == (True, False)
    server.learn_from(1_500_000_000, monotonic())
    assert server.from_server
    server.learn(formatdate(1_600_000_000, usegmt=True))
    server.learn_from(1_000_000_000, monotonic(), from_server=False)
    assert server.from_server
    assert 1_600_000_000 <= server.now() < 1_600_000_060


@given(
    st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,5} \d{1,3}:\d{1,3}:\d{1,3} [-+A-Z0-9]{0,6}")
)
def test_no_header_raises(header: str) -> None:
    ServerClock().learn(header)


@pytest.mark.parametrize(
    ("age", "counts"),
    [(None, True), ("0", True), ("3", True), ("4", False), ("86400", False), ("9" * 5000, False)]
    + [(invalid, True) for invalid in ("", "soon", "-5", "1e3", "²", "nan")],
)
def test_a_header_counts_only_if_its_answer_was_not_kept_by_a_cache(age: str | None, counts: bool) -> None:
    server = ServerClock()
    server.learn(formatdate(1_000_000_000, usegmt=True), age_header=age)
    assert server.known is counts


@pytest.mark.parametrize("header", ["Sun Sep  9 01:46:40 2001", "Sunday, 09-Sep-01 01:46:40 GMT"])
def test_the_older_forms_of_a_date_are_in_utc_wherever_the_device_is(
    header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert clock.http_date(header) == 1_000_000_000
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.integers(0, 4_000_000_000))
def test_every_http_date_is_understood(time_of_day: int) -> None:
    server = ServerClock()
    server.learn(formatdate(time_of_day, usegmt=True), at=monotonic())
    assert time_of_day <= server.now() < time_of_day + 60
