"""TokenKeeper and its store: used across restarts, and not trusted to work."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    MqttTokenError,
    StoreLocked,
    TokenError,
    TokenRequestRefused,
)
from mqtt_token_client.events import Event, RenewalFailed, StoreFailed, TokenRenewed
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import RenewalPolicy, TokenKeeper

from .keeping import BUSY, Clock, Source, keep


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Broken:
    """A store that fails."""

    def __init__(self, *names: str, error: Exception) -> None:
        self.names, self.error = names, error
        self.kept = MemoryStore()

    def _do(self, name: str, *arguments: Any) -> Any:
        if name in self.names:
            raise self.error
        return getattr(self.kept, name)(*arguments)

    def load(self, key: str) -> Token | None:
        return self._do("load", key)  # type: ignore[no-any-return]  # MemoryStore's

    def save(self, key: str, token: Token) -> None:
        self._do("save", key, token)

    def delete(self, key: str) -> None:
        self._do("delete", key)


def test_gives_the_token_of_the_last_process_without_a_request(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    stored = Token("stored", 60.0, since=clock.now - 10)
    store.save(source.key, stored)
    keeper, events = keep(source, store)
    assert keeper.get() is stored
    assert (source.requests, events) == (0, [])
    assert keeper.renewal_due == pytest.approx(clock.now + 30)


def test_is_read_once_however_often_it_has_nothing(clock: Clock) -> None:
    loads = []

    class Counting(MemoryStore):
        lock = None  # type: ignore[assignment]  # nobody else writes into it

        def load(self, key: str) -> Token | None:
            loads.append(key)
            return None

    keeper, _ = keep(Source(), Counting(), key="mine")
    for _ in range(3):
        keeper.renew()
    assert loads == ["mine"]


def test_gives_an_ended_token_to_the_source_for_its_refresh_token(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    ended = Token("ended", 60.0, since=clock.now - 100, refresh_token="refresh")
    store.save(source.key, ended)
    keeper, _ = keep(source, store)
    assert keeper.get().value == "token 1"
    assert source.asked_with == [ended]


def test_that_gave_a_token_past_its_renewal_has_it_renewed_when_due(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    store.save(source.key, Token("stored", 60.0, since=clock.now - 45))
    keeper, _ = keep(source, store)
    keeper.renew_when_due()
    assert source.requests == 1


def test_that_gave_a_token_past_its_renewal_has_it_renewed_before_anybody_uses_it(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    store.save(source.key, Token("stored", 60.0, since=clock.now - 45))
    keeper, _ = keep(source, store)
    assert keeper.get() == Token("token 1")


def test_that_gave_a_token_past_its_renewal_has_it_used_where_there_is_no_new_one(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    store.save(source.key, Token("stored", 60.0, since=clock.now - 45))
    source.next = [BUSY]
    keeper, events = keep(source, store)
    assert keeper.get() == Token("stored")
    assert [type(event) for event in events] == [RenewalFailed]


def test_that_gave_a_token_before_its_renewal_keeps_the_source_unasked(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    store.save(source.key, Token("stored", 60.0))
    keeper, _ = keep(source, store)
    keeper.renew_when_due()
    assert source.requests == 0


def test_gets_each_new_token_before_anybody_uses_it(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    seen = []
    keeper = TokenKeeper(source, store, on_event=lambda _event: seen.append(store.load("a source")))
    keeper.get()
    keeper.renew()
    assert [token and token.value for token in seen] == ["token 1", "token 2"]


def test_is_not_written_for_the_same_token_again(clock: Clock) -> None:
    source = Source()
    source.always = Token("the only one", 60.0)
    keeper, events = keep(source, Broken("save", error=OSError(28, "No space left on device")))
    for _ in range(3):
        keeper.renew()
    assert [type(event) for event in events] == [StoreFailed, TokenRenewed]


@pytest.mark.parametrize("broken", ["load", "save"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("a text with a secret in it"), "ValueError"),
        (MqttTokenError("the keyring is locked"), "the keyring is locked"),
    ],
)
def test_that_fails_is_reported_and_the_token_used_all_the_same(
    clock: Clock, broken: str, error: Exception, message: str
) -> None:
    keeper, events = keep(Source(), Broken(broken, error=error))
    assert keeper.get().value == "token 1"
    failed = [event for event in events if isinstance(event, StoreFailed)]
    assert len(failed) == 1
    assert message in str(failed[0].error)
    assert "secret" not in f"{failed[0]} {failed[0].error.__context__}"
    assert keeper.get().value == "token 1"


def test_that_could_not_be_read_is_read_again_at_the_next_attempt(clock: Clock) -> None:
    """Without that, a device flow would ask a person each time, although the refresh token is stored."""
    source, store = Source(), Broken("load", error=OSError(24, "Too many open files"))
    store.save(source.key, ended := Token("ended", 60.0, since=clock.now - 100, refresh_token="refresh"))
    source.next = [BUSY]
    keeper, events = keep(source, store)
    with pytest.raises(AuthorizationServerUnavailable):
        keeper.get()
    store.names = ()
    assert keeper.renew() == Token("token 2")
    assert source.asked_with == [None, ended]
    assert [type(event) for event in events] == [StoreFailed, RenewalFailed, TokenRenewed]


@pytest.mark.parametrize("shared", [False, True])
def test_that_can_never_be_read_is_reported_once_for_each_further_request(clock: Clock, shared: bool) -> None:
    store = Broken("load", error=OSError(24, "Too many open files"))
    if shared:
        store.lock = lambda _key: nullcontext()  # type: ignore[attr-defined]
    keeper, events = keep(Source(), store)
    keeper.get()
    events.clear()
    keeper.renew()
    assert [type(event) for event in events] == [StoreFailed, TokenRenewed]
    assert keeper.current == Token("token 2")


class TestThatCannotBeReadAtTheStart:
    """A source that uses refresh tokens would ask a person, although the refresh token may be stored."""

    def start(self, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, readable_after: int) -> tuple[Source, Any]:
        source, store = Source(), Broken("load", error=OSError(24, "Too many open files"))
        source.uses_refresh_tokens = True  # type: ignore[attr-defined]
        store.kept.save(source.key, Token("ended", 60.0, since=clock.now - 100, refresh_token="refresh"))
        self.waits: list[float] = []

        def wait(seconds: float) -> None:
            self.waits.append(seconds)
            if len(self.waits) == readable_after:
                store.names = ()

        monkeypatch.setattr("mqtt_token_client.stores.guarded.sleep", wait)
        return source, store

    def share(self, store: Any) -> None:
        store.lock = lambda _key: nullcontext()

    @pytest.mark.parametrize("shared", [False, True])
    def test_is_read_again_before_a_person_is_asked(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch, shared: bool
    ) -> None:
        source, store = self.start(clock, monkeypatch, readable_after=2)
        if shared:
            self.share(store)
        keeper, _ = keep(source, store)
        keeper.get()
        assert [token and token.refresh_token for token in source.asked_with] == ["refresh"]
        assert len(self.waits) == 2

    @pytest.mark.parametrize("shared", [False, True])
    def test_costs_no_request_if_its_token_is_valid(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch, shared: bool
    ) -> None:
        source, store = self.start(clock, monkeypatch, readable_after=1)
        if shared:
            self.share(store)
        store.kept.save(source.key, valid := Token("valid", 60.0, since=clock.now, refresh_token="refresh"))
        keeper, _ = keep(source, store)
        assert keeper.get() is valid
        assert source.requests == 0

    def test_has_a_person_asked_after_some_seconds(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        source, store = self.start(clock, monkeypatch, readable_after=0)
        keeper, events = keep(source, store)
        assert keeper.get() == Token("token 1")
        assert source.asked_with == [None]
        assert 2 < sum(self.waits) < 10
        assert isinstance(events[0], StoreFailed)

    def test_is_not_waited_for_once_there_is_a_token(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        source, store = self.start(clock, monkeypatch, readable_after=0)
        self.share(store)
        keeper, _ = keep(source, store)
        keeper.get()
        self.waits.clear()
        keeper.renew()
        assert self.waits == []

    def test_is_not_waited_for_where_no_person_would_be_asked(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, store = self.start(clock, monkeypatch, readable_after=0)
        del source.uses_refresh_tokens  # type: ignore[attr-defined]
        keeper, _ = keep(source, store)
        keeper.get()
        assert self.waits == []


class TestSharedThatCannotBeReadForAWhile:
    """Another process may have used the refresh token, and a server may revoke the login when it comes again."""

    def start(
        self,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        *,
        readable_after: int,
        life: float = 60.0,
        age_known: bool = True,
    ) -> tuple[Source, Any, TokenKeeper]:
        source, store = Source(), Broken(error=OSError(24, "Too many open files"))
        source.uses_refresh_tokens = True  # type: ignore[attr-defined]
        store.lock = lambda _key: nullcontext()  # type: ignore[attr-defined]
        source.always = lambda: Token(f"token {source.requests}", life, since=clock.now, refresh_token="next")
        store.kept.save(source.key, Token("old", life, since=clock.now, refresh_token="used", age_known=age_known))
        keeper, self.events = keep(source, store)
        if age_known:
            keeper.get()
            clock.now += 10
        else:
            source.next = [BUSY]
            keeper.get()
            source.asked_with.clear()
        self.newer = Token("newer", 60.0, since=clock.now, refresh_token="newer")
        store.kept.save(source.key, self.newer)
        self.waits: list[float] = []

        def wait(seconds: float) -> None:
            self.waits.append(seconds)
            if len(self.waits) == readable_after:
                store.names = ()

        monkeypatch.setattr("mqtt_token_client.stores.guarded.sleep", wait)
        return source, store, keeper

    def presented(self, source: Source) -> list[str | None]:
        return [token.refresh_token if token is not None else None for token in source.asked_with]

    def test_is_read_again_before_the_refresh_token_is_used(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, store, keeper = self.start(clock, monkeypatch, readable_after=2)
        store.names = ("load",)
        assert keeper.renew() == self.newer
        assert source.requests == 0
        assert len(self.waits) == 2

    def test_is_waited_for_while_the_token_is_valid(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        source, store, keeper = self.start(clock, monkeypatch, readable_after=0)
        store.names = ("load",)
        clock.now += 40
        with pytest.raises(TokenError, match="the store cannot be read, and may have a newer refresh token"):
            keeper.renew()
        assert keeper.get() == Token("old")
        assert source.requests == 0
        assert 0 < keeper.renewal_due - clock.now <= 1
        assert sum(isinstance(event, StoreFailed) for event in self.events) == 1  # not for each time it was read

    def test_is_replaced_before_the_token_expires(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        source, store, keeper = self.start(clock, monkeypatch, readable_after=0)
        store.names = ("load",)
        clock.now += 45
        assert keeper.renew() == Token("token 1") == store.kept.load(source.key)
        assert self.presented(source) == ["used"]

    @pytest.mark.parametrize("life", [60.0, 300.0, 3600.0])
    def test_is_replaced_before_the_token_expires_whatever_the_back_off(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch, life: float
    ) -> None:
        monkeypatch.setattr("random.uniform", lambda _low, high: high)
        source, store, keeper = self.start(clock, monkeypatch, readable_after=0, life=life)
        store.names = ("load",)
        while not source.requests:
            clock.now = max(clock.now + 1, keeper.renewal_due)
            keeper.renew_when_due()
        token = keeper._renewer.token
        assert token is not None
        assert 1000 + 0.9 * life <= token.since < 1000 + life

    def test_is_replaced_though_the_age_of_its_token_is_unknown(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, store, keeper = self.start(clock, monkeypatch, readable_after=0, age_known=False)
        store.names = ("load",)
        clock.now += 40
        with pytest.raises(TokenError, match="the store cannot be read"):
            keeper.renew()
        clock.now += 60
        assert keeper.get() == Token("token 1")

    def test_has_a_token_replaced_at_once_that_the_broker_refuses(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, store, keeper = self.start(clock, monkeypatch, readable_after=0)
        store.names = ("load",)
        assert keeper.get(Token("old")) == Token("token 1")
        assert self.presented(source) == ["used"]

    def test_is_read_again_before_a_refusal_is_believed(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        source, store, keeper = self.start(clock, monkeypatch, readable_after=2)
        store.kept.delete(source.key)

        def refuse() -> Any:
            store.kept.save(source.key, self.newer)
            store.names = ("load",)
            raise TokenRequestRefused("no", error="invalid_grant")

        source.next = [refuse]
        assert keeper.renew() == self.newer
        assert self.presented(source) == ["used"]
        assert len(self.waits) == 2

    def test_loses_no_newer_token_to_a_refused_one(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        source, store, keeper = self.start(clock, monkeypatch, readable_after=0)
        store.kept.delete(source.key)

        def refuse() -> Any:
            store.kept.save(source.key, self.newer)
            store.names = ("load",)
            raise TokenRequestRefused("no", error="invalid_grant")

        source.next = [refuse, TokenRequestRefused("nobody", error="expired_token")]
        with pytest.raises(TokenRequestRefused, match="nobody"):
            keeper.renew()
        assert store.kept.load(source.key) == self.newer


def test_that_returns_no_token_is_reported(clock: Clock) -> None:
    store: Any = Broken(error=ValueError())
    store.kept.save("a source", {"access_token": "a"})
    keeper, events = keep(Source(), store)
    assert keeper.get().value == "token 1"
    assert isinstance(events[0], StoreFailed)
    assert "dict" in str(events[0].error)


def test_holds_the_tokens_of_two_sources_apart(clock: Clock) -> None:
    store = MemoryStore()
    keep(Source(), store, key="one")[0].get()
    assert keep(Source(), store, key="two")[0].get() is not store.load("one")
    store.delete("one")
    store.delete("one")
    assert store.load("one") is None
    assert store.load("two") is not None


@pytest.mark.parametrize("fraction", [0.5, 2 / 3, 0.8, 0.9])
class TestTokenOfUnknownAge:
    """A device without a clock cannot tell how old a stored token is: it is due, whatever the policy."""

    def test_is_renewed_before_anybody_uses_it(self, clock: Clock, fraction: float) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("stored", 3600.0, since=clock.now, age_known=False))
        keeper, _ = keep(source, store, policy=RenewalPolicy(fraction))
        assert keeper.get() == Token("token 1")

    def test_serves_where_there_is_no_new_one(self, clock: Clock, fraction: float) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("stored", 3600.0, since=clock.now, age_known=False))
        source.next = [BUSY]
        keeper, _ = keep(source, store, policy=RenewalPolicy(fraction))
        assert keeper.get() == Token("stored")
        assert source.requests == 1

    def test_that_the_source_returns_again_is_asked_for_twice_in_the_time_for_retries(
        self, clock: Clock, fraction: float
    ) -> None:
        source = Source()
        source.always = Token("from a file", 3600.0, since=clock.now, age_known=False)
        keeper, events = keep(source, policy=RenewalPolicy(fraction))
        keeper.get()
        assert keeper.renewal_due == clock.now + 1
        clock.now = keeper.renewal_due
        keeper.renew_when_due()
        assert keeper.renewal_due == pytest.approx(clock.now + (1 - fraction) * 1800)
        assert [type(event) for event in events] == [TokenRenewed]

    def test_that_turns_out_to_be_younger_is_renewed_in_time(self, clock: Clock, fraction: float) -> None:
        source = Source()
        unknown = Token("from a file", 3600.0, since=clock.now, age_known=False)
        known = Token("from a file", 3600.0, since=clock.now - 600)
        source.next = [unknown, known]
        keeper, _ = keep(source, policy=RenewalPolicy(fraction))
        keeper.get()
        clock.now = keeper.renewal_due
        keeper.renew_when_due()
        assert keeper.current is known
        assert keeper.renewal_due == pytest.approx(clock.now + fraction * known.expires_in)


def test_a_stored_token_of_unknown_age_replaces_only_one_that_may_be_as_old(clock: Clock) -> None:
    source, store = Source(), MemoryStore()
    keeper, _ = keep(source, store)
    keeper.get()
    clock.now += 5
    store.save(source.key, Token("perhaps older", 60.0, since=clock.now, age_known=False))
    assert keeper.renew() == Token("token 2")
    keeper, _ = keep(source, store)
    store.save(source.key, first := Token("first", 60.0, since=clock.now, age_known=False))
    source.next = [BUSY]
    assert keeper.get() is first
    store.save(source.key, second := Token("second", 60.0, since=clock.now, age_known=False))
    clock.now = keeper.renewal_due
    keeper.get(refused=first)
    assert keeper.current is second


class TestTokenThatCouldNotBeStored:
    """A restart would need a person, as the stored refresh token has been used."""

    def start(self, clock: Clock, store: Any = None) -> tuple[TokenKeeper, list[Event], Source, Any]:
        source = Source(100.0)
        store = store or Broken(error=OSError(28, "No space left on device"))
        keeper, events = keep(source, store)
        source.always = lambda: Token(f"token {source.requests}", 100.0, since=clock.now, refresh_token="next")
        keeper.get()
        store.names = ("save",)
        clock.now += 70
        keeper.renew_when_due()
        return keeper, events, source, store.kept

    def pass_to(self, clock: Clock, keeper: TokenKeeper) -> float:
        began, clock.now = clock.now, keeper._requests.due
        keeper.renew_when_due()
        return clock.now - began

    def test_is_stored_again_and_again_after_growing_waits(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("random.uniform", lambda _low, high: high)
        keeper, events, source, kept = self.start(clock)
        assert [self.pass_to(clock, keeper) for _ in range(3)] == [1, 2, 4]
        assert kept.load("a source") == Token("token 1")
        keeper._renewer._store._store.names = ()  # type: ignore[union-attr]  # there is room again
        assert self.pass_to(clock, keeper) == 8
        assert kept.load("a source") == Token("token 2")
        assert source.requests == 2
        assert sum(isinstance(event, StoreFailed) for event in events) == 4
        assert keeper._requests.due == keeper.renewal_due

    def test_is_renewed_as_late_as_possible(self, clock: Clock) -> None:
        keeper, *_ = self.start(clock)
        assert keeper.renewal_due == pytest.approx(clock.now + 90)

    def test_is_renewed_in_time_again_once_it_is_stored(self, clock: Clock) -> None:
        keeper, *_ = self.start(clock)
        renewed = clock.now
        keeper._renewer._store._store.names = ()  # type: ignore[union-attr]
        self.pass_to(clock, keeper)
        assert keeper.renewal_due == pytest.approx(renewed + 200 / 3)

    def test_is_stored_once(self, clock: Clock) -> None:
        keeper, _, _, kept = self.start(clock)
        keeper._renewer._store._store.names = ()  # type: ignore[union-attr]
        keeper.save_again()
        assert kept.load("a source") == Token("token 2")
        kept.delete("a source")
        keeper.save_again()
        assert kept.load("a source") is None

    def test_is_stored_when_the_keeper_is_closed(self, clock: Clock) -> None:
        keeper, _, _, kept = self.start(clock)
        keeper._renewer._store._store.names = ()  # type: ignore[union-attr]
        keeper.close()
        assert kept.load("a source") == Token("token 2")

    def test_does_not_replace_a_newer_one_of_another_process(self, clock: Clock) -> None:
        keeper, events, _, kept = self.start(clock)
        clock.now += 1
        kept.save("a source", newer := Token("of a new login", 100.0, since=clock.now, refresh_token="other"))
        keeper._renewer._store._store.names = ()  # type: ignore[union-attr]
        events.clear()
        self.pass_to(clock, keeper)
        assert kept.load("a source") == newer == keeper.current
        assert [type(event) for event in events] == [TokenRenewed]
        assert not keeper.unsaved

    def test_delays_no_request_that_failed(self, clock: Clock) -> None:
        """During its back-off, the error is raised without a request, whether or not the token is to be stored."""
        keeper, _, source, _ = self.start(clock)
        source.always = BUSY
        clock.now += 200
        for _ in range(2):
            with pytest.raises(AuthorizationServerUnavailable):
                keeper.get()
        assert source.requests == 3

    def test_is_stored_again_without_a_request_before_the_back_off_is_over(self, clock: Clock) -> None:
        keeper, _, source, _ = self.start(clock)
        source.always = AuthorizationServerUnavailable("busy", retry_after=3600)
        clock.now += 200
        keeper.renew_when_due()
        retry = keeper.renewal_due
        assert retry >= clock.now + 3600
        while (due := keeper._requests.due) < retry:
            clock.now = max(due, clock.now + 1)
            keeper.renew_when_due()
        assert source.requests == 3

    @pytest.mark.parametrize("closing", [False, True])
    def test_is_stored_after_a_request_that_was_under_way_and_failed(self, clock: Clock, closing: bool) -> None:
        keeper, _, source, kept = self.start(clock)
        keeper._renewer._store._store.names = ()  # type: ignore[union-attr]

        def fail() -> Any:
            keeper.close() if closing else keeper.save_again()
            assert kept.load("a source") == Token("token 1")
            raise BUSY

        source.next = [fail]
        with pytest.raises(AuthorizationServerUnavailable):
            keeper.renew()
        assert kept.load("a source") == Token("token 2")

    def test_waits_while_another_process_has_the_lock(self, clock: Clock) -> None:
        class Locked(Broken):
            locked = False

            def lock(self, _key: str) -> Any:
                if self.locked:
                    raise StoreLocked("held")
                return nullcontext()

        store = Locked(error=OSError(28, "No space left on device"))
        keeper, _, _, kept = self.start(clock, store)
        store.locked, store.names = True, ()
        self.pass_to(clock, keeper)
        assert kept.load("a source") == Token("token 1")
        store.locked = False
        self.pass_to(clock, keeper)
        assert kept.load("a source") == Token("token 2")
