"""Turns: clients that share a token move onto a new one after another, at most 20 at once, all before it expires."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from mqtt_token_client import clock
from mqtt_token_client.tokens.turns import MOST_AT_ONCE, Turn, Turns

from .stepped_loop import replaced
from .test_renewal_timer import Counting, pass_until


class Herd:
    """Clients that take turns, on one or two runtimes."""

    def __init__(self, *runtimes: Counting) -> None:
        self.runtimes = runtimes
        self.turns = Turns()
        self.taken: list[Turn] = []
        self.began: dict[int, float] = {}  # when, by the order in which they took theirs
        self.on_begin: Callable[[int], None] = lambda _number: None

    def take(self, count: int, *, valid_for: float = 100.0, urgent: bool = False, clients: int | None = None) -> None:
        for _ in range(count):
            number, runtime = len(self.taken), self.runtimes[len(self.taken) % len(self.runtimes)]

            def begin(number: int = number, runtime: Counting = runtime) -> None:
                runtime.check_thread()
                self.began[number] = runtime.now
                self.on_begin(number)

            def take(runtime: Counting = runtime, begin: Callable[[], None] = begin) -> None:
                options = {"clients": clients or count, "valid_for": valid_for, "urgent": urgent}
                self.taken.append(self.turns.take(runtime, begin, **options))  # type: ignore[arg-type]

            runtime.call_soon(take)
            runtime.turn()

    def end(self, number: int) -> None:
        runtime = self.runtimes[number % len(self.runtimes)]
        runtime.call_soon(self.taken[number].end)
        self.run()

    def end_when_begun(self, after: float) -> None:
        """From now on a turn takes so many seconds."""

        def on_begin(number: int) -> None:
            runtime = self.runtimes[number % len(self.runtimes)]
            runtime.call_later(after, lambda: self.taken[number].end())

        self.on_begin = on_begin

    def run(self) -> None:
        for runtime in self.runtimes * 3:
            runtime.turn()

    def pass_time(self, seconds: float) -> None:
        until = self.runtimes[0].now + seconds
        while (due := min(filter(None, (one.next_timer() for one in self.runtimes)), default=until)) < until:
            pass_until(due, *self.runtimes)
            self.run()
        pass_until(until, *self.runtimes)

    @property
    def under_way(self) -> int:
        return self.turns._under_way


@pytest.fixture
def herd() -> Iterator[Herd]:
    first, second = Counting(), Counting()
    herd = Herd(first, second)
    with replaced("monotonic", clock.monotonic, lambda: max(first.now, second.now)):
        yield herd
    for runtime in first, second:
        runtime.closed = False
        runtime.stop()
        runtime.turn()


def test_two_hundred_begin_evenly_over_half_of_the_time_that_is_left(herd: Herd) -> None:
    herd.end_when_begun(0.5)
    herd.take(200, valid_for=100.0)
    herd.pass_time(100.0)
    times = sorted(herd.began.values())
    assert len(times) == 200
    assert times[0] == 1000.0
    assert times[-1] == pytest.approx(1049.75)
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 0.3
    assert herd.under_way == 0


def test_no_more_than_twenty_are_under_way_at_once_and_none_is_late(herd: Herd) -> None:
    highest = 0
    herd.end_when_begun(6.0)
    take_time = herd.on_begin

    def on_begin(number: int) -> None:
        nonlocal highest
        highest = max(highest, herd.under_way)
        take_time(number)

    herd.on_begin = on_begin
    herd.take(200, valid_for=100.0)
    herd.pass_time(100.0)
    assert highest == MOST_AT_ONCE
    assert len(herd.began) == 200
    assert max(herd.began.values()) + 6.0 < 1100.0


def test_whoever_waited_for_four_fifths_of_the_time_waits_for_nobody_any_more(herd: Herd) -> None:
    herd.take(30, valid_for=100.0)
    herd.pass_time(79.0)
    assert len(herd.began) == MOST_AT_ONCE
    herd.pass_time(2.0)
    assert len(herd.began) == 30


def test_the_end_of_one_is_the_beginning_of_the_next_in_order(herd: Herd) -> None:
    herd.take(25, valid_for=100.0)
    herd.pass_time(60.0)
    for number in range(5):
        assert sorted(herd.began) == list(range(MOST_AT_ONCE + number))
        herd.end(number)
    assert len(herd.began) == 25
    herd.end(0)  # a second time
    assert herd.under_way == MOST_AT_ONCE


def test_an_urgent_one_begins_at_once_along_with_the_others(herd: Herd) -> None:
    herd.take(10, valid_for=100.0)
    herd.take(1, valid_for=100.0, urgent=True)
    assert herd.began == {0: 1000.0, 10: 1000.0}


def test_one_that_lost_its_connection_begins_at_once(herd: Herd) -> None:
    herd.take(30, valid_for=100.0)
    herd.runtimes[1].call_soon(herd.taken[7].hurry)
    herd.run()
    assert herd.began[7] == 1000.0
    herd.pass_time(60.0)  # some wait for others to end
    assert 29 not in herd.began
    herd.runtimes[1].call_soon(herd.taken[29].hurry)
    herd.run()
    assert herd.began[29] == 1060.0
    herd.runtimes[1].call_soon(herd.taken[29].hurry)
    assert herd.under_way == len(herd.began)
    herd.pass_time(100.0)
    assert herd.began[29] == 1060.0


@pytest.mark.parametrize("waited", [0.0, 60.0])
def test_one_that_does_not_want_any_more_does_not_begin_and_holds_up_nobody(herd: Herd, waited: float) -> None:
    herd.take(25, valid_for=100.0)
    herd.pass_time(waited)
    herd.end(24)
    herd.end(23)
    herd.pass_time(60.0 - waited)
    for number in range(MOST_AT_ONCE):
        herd.end(number)
    herd.pass_time(100.0)
    assert sorted(herd.began) == list(range(23))
    assert herd.under_way == 3


def test_one_that_ends_while_it_is_let_in_lets_in_the_next(herd: Herd) -> None:
    herd.take(22, valid_for=100.0)
    herd.pass_time(60.0)
    herd.runtimes[0].call_soon(herd.taken[0].end)
    herd.runtimes[0].call_soon(herd.taken[20].end)  # before it hears that it may begin
    herd.run()
    assert sorted(herd.began) == [*range(MOST_AT_ONCE), 21]
    assert herd.under_way == MOST_AT_ONCE


def test_the_time_of_one_round_does_not_delay_the_next(herd: Herd) -> None:
    herd.end_when_begun(0.1)
    herd.take(10, valid_for=100.0)
    herd.pass_time(100.0)
    herd.take(10, valid_for=20.0)
    herd.pass_time(20.0)
    times = [herd.began[number] for number in range(10, 20)]
    assert times == pytest.approx([1100.0 + number for number in range(10)])


def test_turns_that_are_taken_again_are_not_put_off_beyond_the_round(herd: Herd) -> None:
    herd.end_when_begun(0.1)
    herd.take(10, valid_for=100.0)
    herd.take(10, valid_for=100.0)
    herd.pass_time(50.0)
    assert len(herd.began) == 20


@pytest.mark.parametrize("valid_for", [100.0, 600.0])
def test_one_on_an_older_token_begins_before_that_expires_in_a_round_of_those_on_a_newer_one(
    herd: Herd, valid_for: float
) -> None:
    herd.end_when_begun(0.1)
    herd.take(18, valid_for=3600.0, clients=20)
    herd.take(1, valid_for=valid_for, clients=20)
    herd.take(1, valid_for=3600.0, clients=20)
    herd.pass_time(1800.0)
    assert herd.began[18] == pytest.approx(1000.0 + 0.8 * valid_for)
    assert herd.began[19] == pytest.approx(1000.0 + 19 * 90.0), "the others are spread as before"


def test_one_on_an_older_token_waits_for_nobody_if_twenty_are_under_way(herd: Herd) -> None:
    herd.take(MOST_AT_ONCE, valid_for=0.0)
    herd.take(5, valid_for=3600.0, clients=50)
    herd.take(1, valid_for=100.0, clients=50)
    herd.pass_time(100.0)
    assert herd.began[MOST_AT_ONCE + 5] <= 1080.0


@pytest.mark.parametrize("valid_for", [0.0, -5.0])
def test_with_an_expired_token_nobody_waits(herd: Herd, valid_for: float) -> None:
    herd.take(30, valid_for=valid_for)
    assert len(herd.began) == 30


def test_with_a_token_that_never_expires_they_are_spread_over_half_an_hour(herd: Herd) -> None:
    herd.end_when_begun(0.1)
    herd.take(18, valid_for=float("inf"))
    herd.pass_time(1790.0)
    assert sorted(herd.began.values()) == pytest.approx([1000.0 + 100.0 * number for number in range(18)])


def test_a_closed_event_loop_does_not_hold_up_the_others(herd: Herd) -> None:
    first, second = herd.runtimes
    herd.take(22, valid_for=100.0)
    herd.pass_time(60.0)
    first.closed = True
    second.call_soon(herd.taken[1].end)
    herd.run()
    assert 20 not in herd.began
    assert 21 in herd.began
