"""Stepped time, which the tests of devices rely on."""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client.clock import monotonic
from tests.unit.stepped_time import SteppedTime, stepping

HOUR = 3600.0


@pytest.fixture
def stepped() -> Iterator[SteppedTime]:
    before = time.monotonic()
    with stepping() as stepped:
        yield stepped
    assert time.monotonic() - before < 60, "it took real time"


def test_each_wait_of_the_test_takes_its_time_on_every_clock(stepped: SteppedTime) -> None:
    before = monotonic()
    time.sleep(HOUR)
    assert not threading.Event().wait(HOUR)
    assert not threading.Semaphore(0).acquire(timeout=HOUR)
    with pytest.raises(queue.Empty):
        queue.Queue[int]().get(timeout=HOUR)
    assert monotonic() - before == pytest.approx(4 * HOUR)
    assert time.monotonic() == monotonic()


def test_timers_of_the_runtime_come_in_their_order_and_at_their_time(stepped: SteppedTime) -> None:
    before, came = monotonic(), list[float]()
    for seconds in (2 * HOUR, HOUR, 3 * HOUR):
        stepped.runtime.call_later(seconds, lambda: came.append(monotonic() - before))
    stepped.pass_time(2.5 * HOUR)
    assert came == pytest.approx([HOUR, 2 * HOUR])


def test_time_stands_still_while_another_thread_works(stepped: SteppedTime, pool: ThreadPoolExecutor) -> None:
    def work() -> float:
        select.select([], [], [], 0.05)  # in real time
        return monotonic()

    before = monotonic()
    working = pool.submit(work)
    assert working.result(HOUR) == monotonic() == before


def test_a_wait_of_another_thread_ends_at_its_deadline_or_when_it_is_notified(
    stepped: SteppedTime, pool: ThreadPoolExecutor
) -> None:
    before, happened = monotonic(), threading.Event()

    def wait(seconds: float) -> tuple[bool, float]:
        return happened.wait(seconds), monotonic() - before

    short, long = pool.submit(wait, HOUR), pool.submit(wait, 3 * HOUR)
    stepped.runtime.call_later(2 * HOUR, happened.set)
    assert short.result(10 * HOUR) == pytest.approx((False, HOUR))
    assert long.result(10 * HOUR) == pytest.approx((True, 2 * HOUR))


def test_a_blocking_job_of_the_runtime_may_wait_for_the_test(stepped: SteppedTime) -> None:
    leave, results = threading.Event(), list[tuple[bool | None, Exception | None]]()
    stepped.runtime.run_blocking(lambda: leave.wait(HOUR), lambda *outcome: results.append(outcome))
    stepped.settle()
    assert not results
    leave.set()
    stepped.settle()
    assert results == [(True, None)]


def test_a_wait_that_nothing_can_end_fails(stepped: SteppedTime) -> None:
    with pytest.raises(AssertionError, match="nothing will ever happen"):
        threading.Event().wait()


def test_what_is_sent_over_loopback_is_there_at_once() -> None:
    """That is what lets time pass when no socket is readable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(100):
            with socket.create_connection(listener.getsockname()) as one, listener.accept()[0] as other:
                other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                other.send(b"1")
                assert one.recv(1, socket.MSG_DONTWAIT) == b"1"
                other.send(b"2")
                assert one.recv(1, socket.MSG_DONTWAIT) == b"2"
                other.close()
                assert one.recv(1, socket.MSG_DONTWAIT) == b""
