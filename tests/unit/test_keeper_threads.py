"""TokenKeeper and threads: one request for all of them, in real time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token

from .keeping import BUSY, Clock, Source, keep


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Scene:
    """A keeper whose source, at its ``at``-th request, goes on only when ``waiting`` threads wait for its answer."""

    def __init__(self, waiting: int, outcome: Any, at: int = 1, store: Any = None) -> None:
        self.waiting = threading.Semaphore(0)
        self.asked = threading.Event()
        self.source = Source()

        def answer() -> Any:
            self.asked.set()
            for _ in range(waiting):
                assert self.waiting.acquire(timeout=10)
            result = outcome() if callable(outcome) else outcome
            if isinstance(result, BaseException):
                raise result
            return result

        self.source.next = [None] * (at - 1) + [answer]
        self.keeper, self.events = keep(self.source, store)
        wait_for = self.keeper._flights.wait_for

        def counted(flight: Any) -> None:
            self.waiting.release()
            wait_for(flight)

        self.keeper._flights.wait_for = counted  # type: ignore[method-assign]  # to know who waits


def outcomes(futures: list[Future[Token]]) -> list[object]:
    return [future.exception(10) or future.result() for future in futures]


def test_eight_with_an_ended_token_make_one_request(pool: ThreadPoolExecutor) -> None:
    store = MemoryStore()
    store.save("a source", Token("ended", -1.0))
    scene = Scene(7, Token("fresh", 60.0), store=store)
    assert outcomes([pool.submit(scene.keeper.get) for _ in range(8)]) == [Token("fresh")] * 8
    assert (scene.source.requests, len(scene.events)) == (1, 1)


def test_eight_that_renew_make_one_request(pool: ThreadPoolExecutor) -> None:
    scene = Scene(7, Token("fresh", 60.0), at=2)
    scene.keeper.get()
    assert outcomes([pool.submit(scene.keeper.renew) for _ in range(8)]) == [Token("fresh")] * 8
    assert (scene.source.requests, len(scene.events)) == (2, 2)


def test_eight_share_one_failure(pool: ThreadPoolExecutor) -> None:
    scene = Scene(7, BUSY)
    calls = [scene.keeper.get, scene.keeper.renew] * 4
    assert outcomes([pool.submit(call) for call in calls]) == [BUSY] * 8
    assert (scene.source.requests, len(scene.events)) == (1, 1)


def test_those_that_share_a_failure_do_not_ask_again_when_the_retry_is_due_at_once(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr("random.uniform", lambda low, _high: low)

    def five_seconds_later() -> Exception:
        clock.now += 5
        return BUSY

    scene = Scene(7, five_seconds_later)
    assert outcomes([pool.submit(scene.keeper.get) for _ in range(8)]) == [BUSY] * 8
    assert scene.source.requests == 1


def test_a_valid_token_is_read_without_waiting_for_a_renewal(pool: ThreadPoolExecutor) -> None:
    scene = Scene(1, Token("fresh", 60.0), at=2)
    first = scene.keeper.get()
    renewing = pool.submit(scene.keeper.renew)
    assert scene.asked.wait(10)
    assert scene.keeper.get() is first is scene.keeper.token
    scene.waiting.release()
    assert renewing.result(10) == Token("fresh")


def test_those_that_wait_go_on_when_the_one_that_asks_is_interrupted(pool: ThreadPoolExecutor) -> None:
    scene = Scene(2, KeyboardInterrupt())
    asking = pool.submit(scene.keeper.get)
    assert scene.asked.wait(10)
    others = [pool.submit(scene.keeper.get), pool.submit(scene.keeper.renew)]
    assert isinstance(asking.exception(10), KeyboardInterrupt)
    assert all(future.result(10).expires_in > 50 for future in others)
    assert not any(type(event).__name__ == "RenewalFailed" for event in scene.events)


def test_one_that_waits_with_a_refused_token_does_not_get_that_one(pool: ThreadPoolExecutor) -> None:
    refused = Token("token 1", 60.0)
    scene = Scene(1, refused, at=2)
    scene.keeper.get()
    renewing = pool.submit(scene.keeper.renew)
    assert scene.asked.wait(10)
    assert pool.submit(scene.keeper.get, refused).result(10).value == "token 3"
    assert renewing.result(10) == refused


class SlowStore(MemoryStore):
    """Has a token that it gives only when a thread waits for it in the keeper; it is not shared."""

    lock = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.loading, self.waiting = threading.Event(), threading.Semaphore(0)

    def load(self, key: str) -> Token | None:
        self.loading.set()
        assert self.waiting.acquire(timeout=10)
        return Token("stored", 60.0)


def test_renewing_does_not_settle_for_a_stored_token_that_another_thread_loads(pool: ThreadPoolExecutor) -> None:
    store = SlowStore()
    scene = Scene(0, Token("fresh", 60.0), store=store)
    store.waiting = scene.waiting
    getting = pool.submit(scene.keeper.get)
    assert store.loading.wait(10)
    renewing = pool.submit(scene.keeper.renew)
    assert (getting.result(10), renewing.result(10)) == (Token("stored"), Token("fresh"))


def test_one_that_waits_takes_the_stored_token_where_a_new_one_could_not_be_had(pool: ThreadPoolExecutor) -> None:
    store = SlowStore()
    scene = Scene(0, BUSY, store=store)
    store.waiting = scene.waiting
    renewing = pool.submit(scene.keeper.renew)
    assert store.loading.wait(10)
    assert pool.submit(scene.keeper.get).result(10) == Token("stored")
    assert renewing.exception(10) is BUSY


def test_no_thread_is_left_behind_and_none_dies_of_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, died = Clock(monkeypatch), list[object]()
    monkeypatch.setattr(threading, "excepthook", died.append)
    source = Source()
    source.next = [None, ValueError(), BUSY, None]
    keeper, _ = keep(source)
    for requests in range(1, 5):
        assert keeper.token.expires_in > 0
        wait_until(lambda: source.requests == requests, "the request")  # noqa: B023 - called here only
        wait_until(lambda: all(one.name != "token-renewal" for one in threading.enumerate()), "the end of the thread")
        clock.now = keeper.renewal_due
    assert died == []
