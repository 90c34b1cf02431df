"""RenewalTimer: however many clients share a keeper, there is one timer and one job a renewal (rule 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mqtt_token_client import clock
from mqtt_token_client.errors import MqttTokenError
from mqtt_token_client.events import RenewalFailed
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.credentials import CredentialsProvider
from mqtt_token_client.tokens.keeper import TokenKeeper

from .keeping import BUSY, Source, keep
from .stepped_loop import SteppedThread, replaced
from .test_credentials_provider import Password


class Counting(SteppedThread):
    """A runtime that counts the jobs and knows its timers.

    Attributes:
        jobs: how many blocking jobs it was given.
        closed: whether it is an event loop that was closed.
        full: whether no thread can be started.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jobs = 0
        self.closed = self.full = False

    def run_blocking(self, job: Callable[[], Any], then: Callable[[Any, Exception | None], None]) -> None:
        self.jobs += 1
        if self.full:
            self.call_soon(lambda: then(None, MqttTokenError("no thread could be started")))
        else:
            super().run_blocking(job, then)

    def call_soon(self, callback: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        super().call_soon(callback)

    @property
    def timers(self) -> list[float]:
        """When each timer that is set is due."""
        return [when for when, _, timer in self._timers if timer.callback is not None]


class Clients:
    """Clients in miniature, on one runtime, that share a keeper."""

    def __init__(self, keeper: TokenKeeper, runtime: Counting, count: int) -> None:
        self.runtime = runtime
        self.tokens: list[Token] = []
        self.providers = [CredentialsProvider(keeper, Password(), f"client {n}") for n in range(count)]
        for provider in self.providers:
            provider.start(runtime, self.tokens.append, lambda _event: None)

    def want(self, *, wanted: bool = True) -> None:
        for provider in self.providers:
            self.runtime.call_soon(lambda provider=provider: provider.renew_ahead(wanted=wanted))  # type: ignore[misc]
        self.runtime.turn()

    def stop(self) -> None:
        for provider in self.providers:
            self.runtime.call_soon(provider.stop)
        self.runtime.turn()


@pytest.fixture
def runtimes() -> Iterator[tuple[Counting, Counting]]:
    first, second = Counting(), Counting()
    with replaced("monotonic", clock.monotonic, lambda: max(first.now, second.now)):
        assert Token("any", 60.0).since == 1000.0
        yield first, second
    for runtime in first, second:
        runtime.closed = False
        runtime.stop()
        runtime.turn()


def pass_until(when: float, *runtimes: Counting) -> None:
    for runtime in runtimes:
        runtime.now = when
    for runtime in runtimes * 2:  # what one does may concern the other
        runtime.turn()


def test_two_hundred_clients_have_one_timer_one_job_and_one_request_a_renewal(
    runtimes: tuple[Counting, Counting],
) -> None:
    source, runtime = Source(), runtimes[0]
    keeper, _ = keep(source)
    keeper.get()
    clients = Clients(keeper, runtime, 200)
    clients.want()
    for renewal in (1, 2, 3):
        assert runtime.timers == [keeper.renewal_due]
        pass_until(keeper.renewal_due - 0.1, *runtimes)
        assert (source.requests, runtime.jobs) == (renewal, renewal - 1)
        pass_until(keeper.renewal_due, *runtimes)
        assert (source.requests, runtime.jobs) == (renewal + 1, renewal)
    assert len(clients.tokens) == 3 * 200
    clients.stop()
    assert runtime.timers == []


def test_a_retry_has_one_timer_too(runtimes: tuple[Counting, Counting]) -> None:
    source, runtime = Source(), runtimes[0]
    keeper, _ = keep(source)
    keeper.get()
    source.next = [BUSY] * 3
    clients = Clients(keeper, runtime, 20)
    clients.want()
    for job in (1, 2, 3, 4):
        assert runtime.timers == [keeper.renewal_due]
        pass_until(keeper.renewal_due, *runtimes)
        assert runtime.jobs == job
    assert keeper.current == Token("token 5")
    clients.stop()


def test_the_timer_moves_to_another_runtime_when_the_client_that_has_it_leaves(
    runtimes: tuple[Counting, Counting],
) -> None:
    source = Source()
    keeper, _ = keep(source)
    keeper.get()
    here, there = (Clients(keeper, runtime, 2) for runtime in runtimes)
    here.want()
    there.want()
    assert [len(runtime.timers) for runtime in runtimes] == [1, 0]
    here.stop()
    pass_until(1000.0, *runtimes)
    assert [runtime.timers for runtime in runtimes] == [[], [keeper.renewal_due]]
    pass_until(keeper.renewal_due, *runtimes)
    assert (source.requests, runtimes[0].jobs, runtimes[1].jobs) == (2, 0, 1)
    there.stop()
    assert [runtime.timers for runtime in runtimes] == [[], []]


def test_in_a_child_the_timer_is_on_the_childs_runtime(runtimes: tuple[Counting, Counting]) -> None:
    keeper, _ = keep(Source())
    keeper.get()
    of_parent, of_child = (Clients(keeper, runtime, 1) for runtime in runtimes)
    of_parent.want()
    keeper.after_fork()
    of_child.want()
    assert runtimes[1].timers == [keeper.renewal_due]
    of_parent.stop()
    of_child.stop()


def test_a_client_that_leaves_without_having_the_timer_changes_nothing(runtimes: tuple[Counting, Counting]) -> None:
    keeper, _ = keep(Source())
    keeper.get()
    here, there = (Clients(keeper, runtime, 1) for runtime in runtimes)
    here.want()
    there.want()
    there.want(wanted=False)
    pass_until(1000.0, *runtimes)
    assert [runtime.timers for runtime in runtimes] == [[keeper.renewal_due], []]
    here.stop()
    there.stop()


def test_the_timer_leaves_a_runtime_that_was_closed_under_its_client_at_the_next_event(
    runtimes: tuple[Counting, Counting], caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    keeper, _ = keep(source)
    keeper.get()
    here, there = (Clients(keeper, runtime, 2) for runtime in runtimes)
    here.want()
    there.want()
    runtimes[0].closed = True
    keeper.renew()  # as another client does that reconnects
    runtimes[1].turn()
    assert runtimes[1].timers == [keeper.renewal_due]
    assert there.tokens == [Token("token 2")] * 2
    pass_until(keeper.renewal_due, runtimes[1])
    assert (source.requests, runtimes[1].jobs) == (3, 1)
    assert len([record for record in caplog.records if record.exc_info]) == 2  # one for each client that is gone
    there.stop()


def test_there_is_no_timer_while_nobody_wants_one_or_nothing_expires(runtimes: tuple[Counting, Counting]) -> None:
    source, runtime = Source(None), runtimes[0]
    keeper, _ = keep(source)
    keeper.get()
    clients = Clients(keeper, runtime, 2)
    clients.want()
    assert runtime.timers == []
    source.life = 60.0
    keeper.renew()
    runtime.turn()
    assert runtime.timers == [keeper.renewal_due]
    clients.want(wanted=False)
    assert runtime.timers == []
    pass_until(keeper.renewal_due + 1, runtime)
    assert source.requests == 2
    clients.stop()


def test_a_closed_keeper_sets_no_timer_again(runtimes: tuple[Counting, Counting]) -> None:
    source, runtime = Source(), runtimes[0]
    keeper, _ = keep(source)
    keeper.get()
    clients = Clients(keeper, runtime, 1)
    clients.want()
    due = keeper.renewal_due
    keeper.close()
    pass_until(due, runtime)
    assert (source.requests, runtime.timers) == (1, [])
    clients.stop()


def test_a_look_while_another_thread_renews_is_repeated_a_second_later_at_the_earliest(
    runtimes: tuple[Counting, Counting],
) -> None:
    source, runtime = Source(), runtimes[0]
    keeper, _ = keep(source)
    keeper.get()
    clients = Clients(keeper, runtime, 1)
    clients.want()
    seen = []

    def meanwhile() -> None:
        pass_until(1040.0, runtime)
        seen.append((runtime.jobs, runtime.timers))

    source.next = [meanwhile]
    runtime.now = 1039.0
    keeper.renew()
    assert seen == [(1, [1041.0])]
    clients.stop()


def test_a_token_to_be_stored_that_finds_no_thread_is_tried_again_a_second_later_and_renewed_when_that_is_due(
    runtimes: tuple[Counting, Counting],
) -> None:
    class Full(MemoryStore):
        def save(self, key: str, token: Token) -> None:
            raise OSError(28, "No space left on device")

    source, runtime = Source(life=3600.0), runtimes[0]
    keeper, events = keep(source, Full())
    keeper.get()
    due = keeper.renewal_due
    clients = Clients(keeper, runtime, 1)
    clients.want()
    runtime.full = True
    for _ in range(3):
        runtime.now = runtime.timers[0]
        runtime.turn()
        assert runtime.now + 1 <= runtime.timers[0] < due
    assert keeper.renewal_due == due
    assert not any(isinstance(event, RenewalFailed) for event in events)
    clients.stop()


def test_a_job_that_finds_no_thread_is_reported_and_tried_again_a_second_later(
    runtimes: tuple[Counting, Counting],
) -> None:
    source, runtime = Source(), runtimes[0]
    keeper, events = keep(source)
    keeper.get()
    clients = Clients(keeper, runtime, 1)
    clients.want()
    runtime.full = True
    pass_until(keeper.renewal_due, runtime)
    assert (source.requests, runtime.jobs, runtime.timers) == (1, 1, [keeper.renewal_due])
    assert keeper.renewal_due >= runtime.now + 1
    assert [str(event.error) for event in events if isinstance(event, RenewalFailed)] == ["no thread could be started"]
    runtime.full = False
    pass_until(keeper.renewal_due, runtime)
    assert (source.requests, runtime.jobs) == (2, 2)
    clients.stop()
