"""The network thread: what it runs, in which order, and when it sleeps."""

from __future__ import annotations

import itertools
import logging
import queue
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.runtime.thread import NetworkThread, acquire_network_thread, release_network_thread
from tests.unit.network_thread import call, undisturbed

_WORKERS = 32


@pytest.fixture
def results() -> queue.Queue[Any]:
    return queue.Queue()


def next_of(results: queue.Queue[Any]) -> Any:
    return results.get(timeout=10)


class TestCalls:
    def test_run_on_the_network_thread(self, loop: NetworkThread) -> None:
        assert call(loop, threading.current_thread) is loop._thread
        assert call(loop, lambda: loop.on_thread)
        assert not loop.on_thread

    def test_check_that_they_are_on_the_network_thread(self, loop: NetworkThread) -> None:
        call(loop, loop.check_thread)
        with pytest.raises(AssertionError, match="a thread other than the network thread"):
            loop.check_thread()
        other = NetworkThread()
        with pytest.raises(AssertionError, match="a thread other than the network thread"):
            call(other, loop.check_thread)
        other.stop()

    def test_of_many_threads_all_run_in_the_order_of_each(self, loop: NetworkThread) -> None:
        seen: list[tuple[int, int]] = []

        def give(thread: int) -> None:
            for number in range(500):
                loop.call_soon(partial(seen.append, (thread, number)))

        threads = [threading.Thread(target=give, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        call(loop, lambda: None)
        for thread_number in range(8):
            assert [number for thread, number in seen if thread == thread_number] == list(range(500))
        assert len(seen) == 4000

    def test_given_by_a_call_run_after_those_that_wait(self, loop: NetworkThread, results: queue.Queue[str]) -> None:
        def first() -> None:
            loop.call_soon(lambda: results.put("third"))
            results.put("first")

        def both() -> None:
            loop.call_soon(first)
            loop.call_soon(lambda: results.put("second"))

        loop.call_soon(both)
        assert [next_of(results) for _ in range(3)] == ["first", "second", "third"]

    @pytest.mark.parametrize("error", [ValueError("of a callback"), SystemExit("of a callback")])
    def test_that_raise_are_logged_and_the_thread_goes_on(
        self, loop: NetworkThread, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise error

        loop.call_soon(fail)
        assert call(loop, lambda: "alive") == "alive"
        (record,) = (record for record in caplog.records if record.name == "mqtt_token_client.runtime")
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    def test_after_the_end_are_harmless(self) -> None:
        loop = NetworkThread()
        loop.stop()
        loop._thread.join(timeout=10)
        loop.call_soon(lambda: None)


class TestTimers:
    def test_run_in_the_order_of_their_deadlines(self, loop: NetworkThread, results: queue.Queue[str]) -> None:
        def set_timers() -> None:
            now = monotonic()
            loop.call_at(now + 0.03, lambda: results.put("third"))
            loop.call_at(now + 0.01, lambda: results.put("first"))
            loop.call_at(now + 0.02, lambda: results.put("second"))

        loop.call_soon(set_timers)
        assert [next_of(results) for _ in range(3)] == ["first", "second", "third"]

    def test_of_the_same_deadline_run_in_the_order_in_which_they_were_set(
        self, loop: NetworkThread, results: queue.Queue[int]
    ) -> None:
        def set_timers() -> None:
            when = monotonic() + 0.01
            for number in range(5):
                loop.call_at(when, partial(results.put, number))

        loop.call_soon(set_timers)
        assert [next_of(results) for _ in range(5)] == list(range(5))

    def test_never_run_before_their_deadline(self, loop: NetworkThread, results: queue.Queue[float]) -> None:
        def set_timer() -> None:
            due = monotonic() + 0.05
            loop.call_at(due, lambda: results.put(monotonic() - due))

        loop.call_soon(set_timer)
        assert next_of(results) >= 0

    def test_of_the_past_run_at_once(self, loop: NetworkThread, results: queue.Queue[str]) -> None:
        call(loop, lambda: loop.call_at(monotonic() - 1000, lambda: results.put("now")))
        assert next_of(results) == "now"

    def test_that_are_cancelled_do_not_run(self, loop: NetworkThread, results: queue.Queue[str]) -> None:
        def set_timers() -> None:
            due = monotonic() + 0.01
            first = loop.call_at(due, lambda: results.put("cancelled at once"))
            loop.call_at(due, lambda: later.cancel())
            later = loop.call_at(due, lambda: results.put("cancelled by the timer before"))
            loop.call_at(due, lambda: results.put("the end"))
            first.cancel()

        loop.call_soon(set_timers)
        assert next_of(results) == "the end"
        assert results.empty()

    def test_that_are_cancelled_do_not_pile_up_until_they_are_due(
        self, loop: NetworkThread, results: queue.Queue[str]
    ) -> None:
        def set_timers() -> int:
            for _ in range(1000):
                loop.call_later(100_000.0, lambda: None).cancel()
            loop.call_later(0.0, lambda: results.put("the others run"))
            return len(loop._timers)

        assert call(loop, set_timers) <= 200
        assert next_of(results) == "the others run"

    def test_that_raise_do_not_keep_the_others_from_running(
        self, loop: NetworkThread, results: queue.Queue[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        def set_timers() -> None:
            due = monotonic() + 0.01
            loop.call_at(due, lambda: sys.exit("of a timer"))
            loop.call_at(due, lambda: results.put("ran"))

        loop.call_soon(set_timers)
        assert next_of(results) == "ran"
        assert "of a timer" in caplog.text


class TestSockets:
    def test_are_notified_when_they_are_ready_until_they_are_no_longer_watched(
        self, loop: NetworkThread, results: queue.Queue[int]
    ) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:

            def ready(events: int) -> None:
                ours.recv(100)
                results.put(events)

            call(loop, lambda: loop.watch(ours, selectors.EVENT_READ, ready))
            theirs.send(b"a")
            assert next_of(results) == selectors.EVENT_READ
            call(loop, lambda: loop.watch(ours, 0, ready))
            theirs.send(b"b")
            call(loop, lambda: loop.call_later(0.05, lambda: results.put(-1)))
            assert next_of(results) == -1

    def test_can_change_what_they_are_watched_for(self, loop: NetworkThread, results: queue.Queue[str]) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            call(loop, lambda: loop.watch(ours, selectors.EVENT_READ, lambda _: results.put("readable")))

            def writable(_events: int) -> None:
                loop.watch(ours, 0, writable)
                results.put("writable")

            call(loop, lambda: loop.watch(ours, selectors.EVENT_WRITE, writable))
            assert next_of(results) == "writable"
            assert results.empty()

    def test_that_are_closed_or_not_watched_can_be_let_go(self, loop: NetworkThread) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            call(loop, lambda: loop.watch(ours, 0, lambda _: None))
            ours.close()
            call(loop, lambda: loop.watch(ours, 0, lambda _: None))

    @pytest.mark.parametrize("error", [ValueError("of a socket"), SystemExit("of a socket")])
    def test_whose_callback_raises_do_not_end_the_thread(
        self, loop: NetworkThread, results: queue.Queue[str], error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:

            def fail(_events: int) -> None:
                loop.watch(ours, 0, fail)
                results.put("called")
                raise error

            call(loop, lambda: loop.watch(ours, selectors.EVENT_WRITE, fail))
            assert next_of(results) == "called"
            assert call(loop, lambda: "alive") == "alive"
        assert "of a socket" in caplog.text


class TestSleep:
    """The thread leaves its selector for a cause only; what wakes it is counted at the selector."""

    @pytest.fixture
    def wake_ups(self, loop: NetworkThread) -> list[float | None]:
        """The time-out of every sleep that has ended since now."""
        ended: list[float | None] = []
        select = loop._selector.select

        def count(timeout: float | None = None) -> Any:
            try:
                return select(timeout)
            finally:
                ended.append(timeout)

        call(loop, lambda: setattr(loop._selector, "select", count))
        return ended

    def test_an_idle_loop_wakes_for_its_timer_and_nothing_else(
        self, loop: NetworkThread, wake_ups: list[float | None], results: queue.Queue[int]
    ) -> None:
        def set_timer() -> None:
            wake_ups.clear()
            loop.call_later(0.3, lambda: results.put(len(wake_ups)))

        undisturbed(loop, set_timer)
        assert next_of(results) == 1

    def test_a_cancelled_timer_wakes_nobody(
        self, loop: NetworkThread, wake_ups: list[float | None], results: queue.Queue[int]
    ) -> None:
        def set_timers() -> None:
            wake_ups.clear()
            loop.call_later(0.1, lambda: None).cancel()
            loop.call_later(0.2, lambda: results.put(len(wake_ups)))

        undisturbed(loop, set_timers)
        assert next_of(results) == 1

    def test_a_loop_without_timers_sleeps_without_a_time_out(
        self, loop: NetworkThread, wake_ups: list[float | None]
    ) -> None:
        call(loop, wake_ups.clear)
        call(loop, lambda: None)
        assert wake_ups
        assert set(wake_ups) <= {None, 0.0}
        assert None in wake_ups

    def test_a_far_deadline_is_looked_at_again_each_minute_since_the_selector_does_not_count_suspend(
        self, loop: NetworkThread, wake_ups: list[float | None]
    ) -> None:
        call(loop, lambda: loop.call_later(86_400, lambda: None))
        call(loop, lambda: None)
        assert 60.0 in wake_ups
        assert max(timeout or 0 for timeout in wake_ups) == 60.0

    def test_a_batch_of_calls_wakes_it_once(self, loop: NetworkThread, wake_ups: list[float | None]) -> None:
        seen: list[int] = []

        def give() -> None:
            wake_ups.clear()
            for number in range(100):
                loop.call_soon(partial(seen.append, number))

        call(loop, give)
        assert call(loop, lambda: len(seen)) == 100
        assert len(wake_ups) <= 2


class TestRest:
    """A loop whose turns are short, one after the other, rests to find more at a time."""

    @pytest.fixture
    def rests_of(self, loop: NetworkThread, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
        """How long the loop rests while a socket is ready a hundred times, and something is done each time. A turn is
        the seconds of waiting and those of work.
        """

        def count(act: Callable[[], None], *turns: tuple[float, float]) -> list[float]:
            rests: list[float] = []
            clock = itertools.accumulate(itertools.cycle(itertools.chain(*turns)))
            rested: list[float] = [0.0]  # no time passes between a rest and the next wait
            ended = threading.Event()
            ready = itertools.count(1)
            ours, theirs = socket.socketpair()

            def monotonic() -> float:
                rested[0] = next(clock) if len(rested) == 1 else rested.pop()
                return rested[0]

            def sleep(seconds: float) -> None:
                rests.append(seconds)
                rested.append(rested[0])

            def writable(_events: int) -> None:
                act()
                if next(ready) == 100:
                    loop.watch(ours, 0, writable)
                    ended.set()

            with ours, theirs, monkeypatch.context() as patch:
                stepped = SimpleNamespace(monotonic=monotonic, sleep=sleep)
                patch.setattr("mqtt_token_client.mqtt.runtime.thread.time", stepped)
                call(loop, lambda: loop.watch(ours, selectors.EVENT_WRITE, writable))
                assert ended.wait(10)
                call(loop, lambda: None)
            return rests

        return count

    @pytest.mark.parametrize("awaited", [None, False])
    @pytest.mark.parametrize("turn", [(5e-6, 5e-6), (390e-6, 400e-6)])
    def test_comes_after_a_flurry_of_short_turns(
        self,
        loop: NetworkThread,
        rests_of: Callable[..., list[float]],
        turn: tuple[float, float],
        awaited: bool | None,
    ) -> None:
        """Also where something is sent and nobody waits for the answer."""
        rests = rests_of(lambda: None if awaited is None else loop.sends(awaited), turn)
        assert 80 <= len(rests) <= 90
        assert set(rests) == {500e-6}

    def test_never_comes_up_to_1250_turns_a_second(self, rests_of: Callable[..., list[float]]) -> None:
        assert rests_of(lambda: None, (400e-6, 401e-6)) == []

    @pytest.mark.parametrize("work", [5e-6, 500e-6])
    def test_is_shorter_where_something_is_sent_and_more_has_arrived_meanwhile(
        self, loop: NetworkThread, rests_of: Callable[..., list[float]], work: float
    ) -> None:
        rests = rests_of(lambda: loop.sends(awaited=True), (39e-6, work))
        assert 80 <= len(rests) <= 90
        assert rests.count(20e-6) >= len(rests) - 2  # the last turns send nothing

    def test_never_comes_where_something_is_sent_and_nothing_has_arrived_meanwhile(
        self, loop: NetworkThread, rests_of: Callable[..., list[float]]
    ) -> None:
        assert rests_of(lambda: loop.sends(awaited=True), (41e-6, 5e-6)) == []

    @pytest.mark.parametrize("waits", [(10e-6, 150e-6), (150e-6, 10e-6)])
    def test_does_not_come_where_something_is_sent_and_the_answer_awaited(
        self, loop: NetworkThread, rests_of: Callable[..., list[float]], waits: tuple[float, float]
    ) -> None:
        acts: Iterator[Callable[[], None]] = itertools.cycle([lambda: loop.sends(awaited=True), lambda: None])
        assert rests_of(lambda: next(acts)(), *((wait, 5e-6) for wait in waits)) == []


class TestBlockingJobs:
    def test_run_elsewhere_and_their_result_arrives_on_the_network_thread(
        self, loop: NetworkThread, results: queue.Queue[Any]
    ) -> None:
        call(
            loop,
            lambda: loop.run_blocking(lambda: loop.on_thread, lambda *outcome: results.put((*outcome, loop.on_thread))),
        )
        assert next_of(results) == (False, None, True)

    def test_their_error_is_reported(self, loop: NetworkThread, results: queue.Queue[Any]) -> None:
        error = OSError("of a job")

        def fail() -> None:
            raise error

        call(loop, lambda: loop.run_blocking(fail, lambda *outcome: results.put(outcome)))
        assert next_of(results) == (None, error)

    def test_one_that_calls_sys_exit_is_reported_as_an_error_and_frees_its_worker(
        self, loop: NetworkThread, results: queue.Queue[Any]
    ) -> None:
        for _ in range(_WORKERS + 1):
            call(loop, lambda: loop.run_blocking(lambda: sys.exit(0), lambda *outcome: results.put(outcome)))
            result, error = next_of(results)
            assert result is None
            assert isinstance(error, Exception)
            assert "SystemExit" in str(error)

    def test_their_result_arrives_though_the_loop_was_stopped_meanwhile(self, results: queue.Queue[Any]) -> None:
        """Otherwise a socket that a worker has opened would be nobody's."""
        loop, go_on = NetworkThread(), threading.Event()
        call(loop, lambda: loop.run_blocking(go_on.wait, lambda *outcome: results.put(outcome)))
        loop.stop()
        call(loop, lambda: None)
        go_on.set()
        assert next_of(results) == (True, None)
        loop._thread.join(timeout=10)
        assert not loop._thread.is_alive()

    def test_many_run_on_32_workers_that_end_when_nothing_is_left(
        self, loop: NetworkThread, results: queue.Queue[Any]
    ) -> None:
        go_on, started = threading.Event(), threading.Semaphore(0)

        def work() -> threading.Thread:
            started.release()
            go_on.wait(30)
            return threading.current_thread()

        for _ in range(_WORKERS + 8):
            call(loop, lambda: loop.run_blocking(work, lambda thread, _error: results.put(thread)))
        for _ in range(_WORKERS):
            assert started.acquire(timeout=10)
        assert loop._workers._alive == _WORKERS
        assert not started.acquire(blocking=False)
        go_on.set()
        workers = {next_of(results) for _ in range(_WORKERS + 8)}
        assert len(workers) <= _WORKERS
        for worker in workers:
            worker.join(timeout=10)
            assert not worker.is_alive()
        call(loop, lambda: loop.run_blocking(lambda: "again", lambda result, _error: results.put(result)))
        assert next_of(results) == "again"


class TestEnd:
    def test_what_was_given_before_is_run_and_then_the_thread_and_its_files_are_gone(self) -> None:
        loop = NetworkThread()
        seen: list[int] = []
        reader, writer = loop._wake_reader, loop._wake_writer
        for number in range(100):
            loop.call_soon(partial(seen.append, number))
        loop.stop()
        loop._thread.join(timeout=10)
        assert not loop._thread.is_alive()
        assert seen == list(range(100))
        assert loop._selector.get_map() is None
        assert not writer.closed, "a late call_soon() would write into another file"
        del loop
        assert reader.closed
        assert writer.closed

    def test_a_timer_does_not_keep_it_alive(self) -> None:
        loop = NetworkThread()
        call(loop, lambda: loop.call_later(3600, lambda: None))
        loop.stop()
        loop._thread.join(timeout=10)
        assert not loop._thread.is_alive()


class TestSharedLoop:
    @pytest.fixture(autouse=True)
    def _nobody_else_uses_it(self) -> None:
        assert not any(thread.name == "mqtt-token-network" for thread in threading.enumerate())

    def test_is_one_for_all_its_users_and_ends_with_the_last(self) -> None:
        first, second = acquire_network_thread(), acquire_network_thread()
        assert first is second
        release_network_thread()
        assert call(second, lambda: "alive") == "alive"
        release_network_thread()
        second._thread.join(timeout=10)
        assert not second._thread.is_alive()

    def test_is_a_new_one_after_that(self) -> None:
        first = acquire_network_thread()
        release_network_thread()
        second = acquire_network_thread()
        assert second is not first
        assert call(second, lambda: "alive") == "alive"
        release_network_thread()
        for loop in (first, second):
            loop._thread.join(timeout=10)

    def test_is_one_for_users_of_many_threads(self) -> None:
        loops: list[NetworkThread] = []

        def use(then: Callable[[], object]) -> None:
            loops.append(acquire_network_thread())
            then()

        together = threading.Barrier(8, timeout=10)
        threads = [threading.Thread(target=use, args=(together.wait,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, loops))) == 1
        for _ in threads:
            release_network_thread()
        loops[0]._thread.join(timeout=10)
        assert not loops[0]._thread.is_alive()
