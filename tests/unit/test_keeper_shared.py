"""TokenKeeper and a store that others use too: one request for all, and no refresh token used twice (rule 3)."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    InvalidTokenResponse,
    StoreError,
    StoreLocked,
    TokenError,
    TokenRequestRefused,
    TokenUnchanged,
)
from mqtt_token_client.events import Event, LoginRequired, RenewalFailed, StoreFailed, TokenRenewed
from mqtt_token_client.stores.file import FileStore
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import TokenKeeper

from .keeping import BUSY, Clock, Source, keep

USED = TokenRequestRefused("token: invalid_grant", error="invalid_grant")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Locked(MemoryStore):
    """A store whose lock fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def lock(self, key: str) -> AbstractContextManager[None]:  # type: ignore[override]  # not made by a generator
        raise self.error


def fail(key: str, token: Token) -> None:
    raise OSError(28, "No space left on device")


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


class TestKeepersOfOneStore:
    def test_that_start_at_once_make_one_request(self) -> None:
        source, store = Source(), MemoryStore()
        keepers = [TokenKeeper(source, store) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            tokens = list(pool.map(TokenKeeper.get, keepers))
        assert {token.value for token in tokens} == {"token 1"}
        assert source.requests == 1

    def test_take_over_what_another_has_renewed_and_report_it(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        first, _ = keep(source, store)
        second, events = keep(source, store)
        assert first.get() == second.get()
        clock.now += 40.0
        first.renew_when_due()
        second.renew_when_due()
        assert second.current == Token("token 2")
        assert source.requests == 2
        assert kinds(events) == [TokenRenewed]
        assert second.renewal_due == pytest.approx(clock.now + 40.0)

    def test_take_over_the_same_token_whose_time_another_has_extended(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        first, _ = keep(source, store)
        second, events = keep(source, store)
        assert first.get() == second.get()
        clock.now += 40.0
        source.next = [Token("token 1", 60.0, refresh_token="a new refresh token", since=clock.now)]
        first.renew_when_due()
        second.renew_when_due()
        assert source.requests == 2
        assert kinds(events) == [TokenRenewed]
        assert second.renewal_due == pytest.approx(clock.now + 40.0)

    def test_begin_with_short_delays_again_after_one_has_renewed(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("random.uniform", lambda _low, high: high)
        source, store = Source(), MemoryStore()
        first, _ = keep(source, store)
        second, _ = keep(source, store)
        first.get()
        second.get()
        clock.now += 40.0
        source.next = [BUSY] * 3
        waits = []
        for _ in range(3):
            second.renew_when_due()
            waits.append(second.renewal_due - clock.now)
            clock.now = second.renewal_due
        first.renew_when_due()
        second.renew_when_due()
        assert second.current == Token("token 5")
        clock.now = second.renewal_due
        source.next = [BUSY]
        second.renew_when_due()
        waits.append(second.renewal_due - clock.now)
        assert waits == pytest.approx([1.0, 2.0, 4.0, 1.0])

    def test_get_a_newer_one_also_where_they_ask_for_a_new_one(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        first, _ = keep(source, store)
        second, _ = keep(source, store)
        first.get()
        second.get()
        clock.now += 5.0
        assert first.renew() == second.renew() == Token("token 2")
        assert source.requests == 2

    def test_do_not_take_over_the_token_that_the_broker_refused(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        keeper, _ = keep(source, store)
        keeper.get()
        clock.now += 5.0
        store.save(source.key, refused := Token("by another", 60.0, since=clock.now))
        assert keeper.get(refused=Token("token 1")) == refused
        assert keeper.get(refused) == Token("token 2")

    def test_do_not_take_over_an_older_one(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("old", 600.0, since=clock.now - 1))
        keeper, _ = keep(source, store)
        store.save = lambda *_: None  # type: ignore[method-assign]  # a full disk
        assert keeper.renew() == Token("token 1")
        clock.now += 5.0
        assert keeper.renew() == Token("token 2")

    def test_take_over_what_another_requested_before_they_loaded_one_of_unknown_age(self, clock: Clock) -> None:
        """A token of unknown age has the time at which it was loaded, which is later than that of its successor."""
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("first", 60.0, since=clock.now, age_known=False, refresh_token="used"))
        renewed = Token("renewed", 60.0, since=clock.now - 0.05, refresh_token="next")
        lock = store.lock

        def lock_after_the_other(key: str) -> AbstractContextManager[None]:
            store.save(key, renewed)
            return lock(key)

        store.lock = lock_after_the_other  # type: ignore[method-assign,assignment]
        keeper, events = keep(source, store)
        assert keeper.get() is renewed
        assert source.requests == 0
        assert kinds(events) == [TokenRenewed]

    def test_do_not_replace_one_of_unknown_age_that_is_not_stored_by_an_older_one(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("old", 60.0, since=clock.now - 100))
        source.next = [Token("from a file", 60.0, since=clock.now, age_known=False)]
        keeper, _ = keep(source, store)
        store.save = fail  # type: ignore[method-assign]
        keeper.get()
        source.next = [BUSY]
        with pytest.raises(AuthorizationServerUnavailable):
            keeper.renew()
        assert keeper.current == Token("from a file")

    @pytest.mark.parametrize("age_known", [True, False])
    def test_use_the_new_refresh_token_that_another_got_without_an_access_token(
        self, clock: Clock, age_known: bool
    ) -> None:
        source, store = Source(), MemoryStore()
        first = Token("first", 60.0, since=clock.now, age_known=age_known, refresh_token="used")
        store.save(source.key, first)
        source.next = [BUSY]
        keeper, _ = keep(source, store)
        keeper.get()
        clock.now += 5.0
        store.save(source.key, first.with_refresh_token("next"))
        source.next = []
        assert keeper.renew() == Token(f"token {source.requests}"), "and not the stored one, which is the same token"
        last = source.asked_with[-1]
        assert last is not None
        assert last.refresh_token == "next"

    @pytest.mark.parametrize("age_known", [True, False])
    def test_use_their_own_new_refresh_token_where_it_could_not_be_stored(self, clock: Clock, age_known: bool) -> None:
        source, store = Source(), MemoryStore()
        first = Token("first", 60.0, since=clock.now - 100, age_known=age_known, refresh_token="used")
        store.save(source.key, first)
        source.salvage = lambda: first.with_refresh_token("next")  # type: ignore[attr-defined]
        source.next = [InvalidTokenResponse("no access token")]
        keeper, _ = keep(source, store)
        store.save = fail  # type: ignore[method-assign]
        with pytest.raises(InvalidTokenResponse):
            keeper.get()
        keeper.renew()
        assert [token and token.refresh_token for token in source.asked_with] == ["used", "next"]

    def test_do_not_get_their_own_one_again_when_its_age_is_guessed_anew(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.load = lambda _key: Token("of unknown age", 60.0, since=clock.now - 45)  # type: ignore[method-assign,assignment]
        keeper, events = keep(source, store)
        source.next = [AuthorizationServerUnavailable("no answer")]
        lock = store.lock

        def lock_later(key: str) -> AbstractContextManager[None]:
            clock.now += 1.0
            return lock(key)

        store.lock = lock_later  # type: ignore[method-assign,assignment]
        assert keeper.get() == Token("of unknown age")
        assert kinds(events) == [RenewalFailed]

    def test_ask_where_the_one_stored_meanwhile_has_expired(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        keeper, _ = keep(source, store)
        keeper.get()
        store.save(source.key, Token("ended", 5.0, since=clock.now + 1, refresh_token="newer"))
        clock.now += 70.0
        assert keeper.get() == Token("token 2")
        last = source.asked_with[-1]
        assert last is not None
        assert last.refresh_token == "newer"


class TestLockThatSomebodyElseHolds:
    def test_for_too_long_fails_the_renewal_and_not_the_token(self, clock: Clock) -> None:
        keeper, events = keep(Source(), store := MemoryStore())
        token = keeper.get()
        store.lock = Locked(StoreLocked("in use")).lock  # type: ignore[method-assign,assignment]
        clock.now += 45.0
        keeper.renew_when_due()
        assert keeper.get() == token
        assert kinds(events) == [TokenRenewed, RenewalFailed]
        assert keeper.renewal_due > clock.now

    def test_for_too_long_is_raised_where_there_is_no_token(self) -> None:
        with pytest.raises(StoreLocked, match="in use"):
            keep(Source(), Locked(StoreLocked("in use")))[0].get()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StoreError("store: read-only"), "store: read-only"),
        (OSError(30, "Read-only file system"), "store: lock() raised Read-only file system"),
        (ValueError("a text with a secret in it"), "store: lock() raised ValueError"),
    ],
)
def test_a_lock_that_does_not_work_is_reported_and_not_used(error: Exception, message: str) -> None:
    keeper, events = keep(Source(), Locked(error))
    assert keeper.get() == Token("token 1")
    assert kinds(events) == [StoreFailed, TokenRenewed]
    assert isinstance(events[0], StoreFailed)
    assert str(events[0].error) == message


class Rotating(Source):
    """A server that replaces a refresh token when it is used, and ends the login when a used one comes again."""

    def __init__(self, clock: Clock, first: str) -> None:
        super().__init__()
        self.clock = clock
        self.valid: str | None = first
        self.refusals: list[TokenRequestRefused] = []  # of the next requests, whose refresh tokens stay valid

    def fetch(self, previous: Token | None) -> Token:
        self.asked_with.append(previous)
        if self.refusals:
            raise self.refusals.pop(0)
        if previous is not None and previous.refresh_token != self.valid:
            self.valid = None
            raise USED
        self.valid = f"refresh {self.requests}"
        return Token(f"token {self.requests}", 60.0, since=self.clock.now, refresh_token=self.valid)

    @property
    def presented(self) -> list[str | None]:
        return [None if previous is None else previous.refresh_token for previous in self.asked_with]


class TestRefusedRefreshTokenThatCouldNotBeStored:
    """The store has its predecessor, which is used up: a server may take a second use of that for theft."""

    def start(self, clock: Clock) -> tuple[TokenKeeper, list[Event], MemoryStore, Rotating]:
        source, store = Rotating(clock, "first"), MemoryStore()
        store.save(source.key, Token("ended", 60.0, since=clock.now - 100, refresh_token="first"))
        store.save = fail  # type: ignore[method-assign]
        keeper, events = keep(source, store)
        keeper.get()
        clock.now += 100.0
        events.clear()
        return keeper, events, store, source

    def test_is_used_again_and_not_its_predecessor(self, clock: Clock) -> None:
        keeper, _, _, source = self.start(clock)
        source.refusals = [TokenRequestRefused("token: invalid_client", error="invalid_client")]
        with pytest.raises(TokenRequestRefused, match="invalid_client"):
            keeper.renew()
        assert keeper.renew() == Token("token 3")
        assert source.presented == ["first", "refresh 1", "refresh 1"]

    def test_is_not_followed_by_its_predecessor_that_has_the_same_access_token(self, clock: Clock) -> None:
        keeper, _, _, source = self.start(clock)
        same = Token("ended", 60.0, since=clock.now - 200, refresh_token="next")
        keeper._renewer._keep(same)
        source.valid = None
        assert keeper.renew() == Token("token 3")
        assert source.presented == ["first", "next", None]

    def test_has_a_person_asked(self, clock: Clock) -> None:
        keeper, events, _, source = self.start(clock)
        source.valid = None
        assert keeper.renew() == Token("token 3")
        assert source.presented == ["first", "refresh 1", None]
        assert LoginRequired in kinds(events)

    def test_gives_way_to_one_that_another_process_has_stored_since_then(self, clock: Clock) -> None:
        keeper, _, store, source = self.start(clock)
        source.refusals = [USED]
        newer = Token("of a new login", 5.0, since=clock.now - 5, refresh_token="newer")
        source.valid = "newer"
        store.load = lambda _key: newer if source.requests == 2 else None  # type: ignore[method-assign,assignment]
        assert keeper.renew() == Token("token 3")
        assert source.presented == ["first", "refresh 1", "newer"]


class TestRefreshTokenThatIsRefused:
    """RFC 6749 section 5.2: invalid_grant."""

    def start(self, source: Source, clock: Clock) -> tuple[TokenKeeper, list[Event], MemoryStore]:
        store = MemoryStore()
        store.save(source.key, Token("ended", 60.0, since=clock.now - 100, refresh_token="used"))
        return *keep(source, store), store

    def test_is_looked_for_in_the_store_first(self, clock: Clock) -> None:
        source = Source()
        keeper, events, store = self.start(source, clock)
        stored = Token("ended too", 60.0, since=clock.now - 90, refresh_token="newer")

        def refuse() -> Any:
            store.save(source.key, stored)  # by a process that had no lock
            raise USED

        source.next = [refuse]
        assert keeper.get() == Token("token 2")
        assert source.asked_with[1] is stored
        assert kinds(events) == [TokenRenewed]

    def test_costs_no_further_request_if_the_token_of_the_store_is_valid(self, clock: Clock) -> None:
        source = Source()
        keeper, _, store = self.start(source, clock)
        stored = Token("valid", 60.0, since=clock.now, refresh_token="newer")

        def refuse() -> Any:
            store.save(source.key, stored)  # by a process that had no lock
            raise USED

        source.next = [refuse]
        assert keeper.get() == stored
        assert source.requests == 1

    def test_costs_another_request_if_the_broker_refuses_the_token_of_the_store(self, clock: Clock) -> None:
        source = Source()
        keeper, _, store = self.start(source, clock)
        stored = Token("valid", 60.0, since=clock.now, refresh_token="newer")

        def refuse() -> Any:
            store.save(source.key, stored)  # by a process that had no lock
            raise USED

        source.next = [refuse]
        assert keeper.get(stored) == Token("token 2")
        assert source.asked_with[1] is stored

    def test_has_a_person_asked_where_that_of_the_store_is_refused_too(self, clock: Clock) -> None:
        """Without a lock, the store is not read before each request."""
        source, store = Source(), MemoryStore()
        store.lock = None  # type: ignore[method-assign,assignment]
        store.save(source.key, Token("ended", 60.0, since=clock.now - 100, refresh_token="used"))
        keeper, events = keep(source, store)

        def refuse() -> Any:
            store.save(source.key, Token("ended too", 60.0, since=clock.now - 90, refresh_token="newer"))
            raise USED

        source.next = [refuse, USED]
        assert keeper.get() == Token("token 3")
        assert [token and token.refresh_token for token in source.asked_with] == ["used", "newer", None]
        assert kinds(events) == [LoginRequired, TokenRenewed]

    def test_is_not_sent_again_if_nobody_approves_after_that_of_the_store_was_refused_too(self, clock: Clock) -> None:
        source = Source()
        keeper, _, store = self.start(source, clock)

        def refuse() -> Any:
            store.save(source.key, Token("ended too", 60.0, since=clock.now - 90, refresh_token="newer"))
            raise USED

        source.next = [refuse, USED, TokenRequestRefused("nobody approved", error="expired_token")]
        with pytest.raises(TokenRequestRefused, match="nobody approved"):
            keeper.get()
        stored = store.load(source.key)
        assert stored is not None
        assert (stored.refresh_token, stored.refusal) == ("newer", str(USED))
        keeper.renew()
        last = source.asked_with[3]
        assert last is not None
        assert last.refresh_token is None

    @pytest.mark.parametrize(
        "error", ["invalid_grant", "login_required", "interaction_required", "consent_required", "access_denied"]
    )
    def test_has_a_person_asked_by_an_event_before_the_source_asks(self, clock: Clock, error: str) -> None:
        """OpenID Connect Core 1.0 section 3.1.2.6 has further errors that say the same as invalid_grant."""
        source = Source()
        keeper, events, store = self.start(source, clock)
        told_before: list[type[Event]] = []

        def ask() -> Any:
            told_before.extend(kinds(events))
            return Token("approved", 60.0, since=clock.now, refresh_token="next")

        source.next = [TokenRequestRefused("token: refused", error=error), ask]
        assert keeper.get() == Token("approved")
        assert told_before == [LoginRequired]
        assert source.asked_with[1] is None
        stored = store.load(source.key)
        assert stored is not None
        assert stored.refresh_token == "next"

    @pytest.mark.parametrize("age_known", [True, False])
    def test_is_not_sent_again_after_a_login_that_failed(self, clock: Clock, age_known: bool) -> None:
        source = Source()
        keeper, events, store = self.start(source, clock)
        store.save(source.key, Token("ended", 60.0, since=clock.now - 100, age_known=age_known, refresh_token="used"))
        source.next = [USED, TokenRequestRefused("nobody approved", error="expired_token")]
        with pytest.raises(TokenRequestRefused, match="nobody approved"):
            keeper.get()
        assert keeper.renew() == Token("token 3")
        previous = source.asked_with[2]
        assert previous is not None
        assert previous.refresh_token is None
        assert kinds(events) == [LoginRequired, RenewalFailed, TokenRenewed]

    def test_is_stored_with_the_refusal_once_a_save_that_failed_succeeds(self, clock: Clock) -> None:
        """The server may accept it at the next start."""
        source = Source()
        keeper, _, store = self.start(source, clock)
        source.next = [USED, TokenRequestRefused("nobody approved", error="expired_token")]
        save, store.save = store.save, fail  # type: ignore[method-assign]
        with pytest.raises(TokenRequestRefused, match="nobody approved"):
            keeper.get()
        store.save = save  # type: ignore[method-assign]
        due = keeper.renewal_due
        keeper.save_again()
        stored = store.load(source.key)
        assert stored is not None
        assert (stored.refresh_token, stored.refusal) == ("used", str(USED))
        assert keeper.renewal_due == due, "the back-off goes on"
        keeper.renew()
        last = source.asked_with[-1]
        assert last is not None
        assert last.refresh_token is None

    def test_is_not_stored_again_after_a_login(self, clock: Clock) -> None:
        source = Source()
        keeper, _, store = self.start(source, clock)
        save = store.save

        def approve() -> Token:
            store.save = save  # type: ignore[method-assign]
            return Token("approved", 60.0, since=clock.now, refresh_token="next")

        store.save = fail  # type: ignore[method-assign]
        source.next = [USED, approve]
        keeper.get()
        keeper.save_again()
        stored = store.load(source.key)
        assert stored is not None
        assert stored.refresh_token == "next"

    def test_costs_nothing_while_the_access_token_lives(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("alive", 60.0, since=clock.now - 45, refresh_token="used"))
        keeper, _ = keep(source, store)
        source.next = [USED, TokenRequestRefused("nobody approved", error="expired_token")]
        keeper.renew_when_due()
        assert keeper.get() == Token("alive")

    def test_is_any_refusal_where_the_grant_needs_no_refresh_token(self, clock: Clock) -> None:
        source = Source()
        source.next = [USED]
        keeper, events = keep(source, MemoryStore())
        with pytest.raises(TokenRequestRefused):
            keeper.get()
        assert kinds(events) == [RenewalFailed]

    def test_is_kept_while_the_answer_is_lost(self, clock: Clock) -> None:
        source = Source()
        keeper, *_ = self.start(source, clock)
        source.next = [AuthorizationServerUnavailable("no answer")]
        with pytest.raises(AuthorizationServerUnavailable):
            keeper.get()
        keeper.renew()
        assert [token and token.refresh_token for token in source.asked_with] == ["used", "used"]


class TestNewRefreshTokenOfATokenThatCannotBeUsed:
    """A device was suspended before it read the answer, or a server issues tokens with ``exp`` before ``iat``."""

    def late(self, clock: Clock, **more: Any) -> Token:
        return Token("late", 5.0, since=clock.now - 10, **{"refresh_token": "next", **more})

    @pytest.mark.parametrize("age", [10.0, 100.0], ids=["valid", "expired"])
    @pytest.mark.parametrize("life", [5.0, 0.0, -5.0])
    def test_is_stored_and_used_next(self, clock: Clock, age: float, life: float) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("old", 60.0, since=clock.now - age, refresh_token="used", scope="a"))
        keeper, events = keep(source, store)
        source.next = [Token("late", life, since=clock.now - 10, refresh_token="next")]
        with pytest.raises(InvalidTokenResponse, match="has expired already"):
            keeper.renew()
        assert kinds(events) == [RenewalFailed]
        stored = store.load(source.key)
        assert stored is not None
        assert (stored, stored.refresh_token, stored.scope) == (Token("old"), "next", "a")
        assert keeper.current is stored
        assert keeper.renew() == Token("token 2")
        assert source.asked_with[1] is stored

    def test_expires_when_the_answer_says_so(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("old", 60.0, since=clock.now - 100, refresh_token="used", refresh_expires_in=1.0))
        keeper, _ = keep(source, store)
        source.next = [self.late(clock, refresh_expires_in=1800.0)]
        with pytest.raises(InvalidTokenResponse):
            keeper.renew()
        stored = store.load(source.key)
        assert stored is not None
        assert stored.since + stored.refresh_lifetime == pytest.approx(clock.now - 10 + 1800)

    def test_is_stored_too_if_the_broker_has_rejected_the_token(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("old", 60.0, since=clock.now - 100, refresh_token="used"))
        keeper, _ = keep(source, store)
        source.next = [refused := Token("rejected", 60.0, since=clock.now, refresh_token="next")]
        with pytest.raises(TokenUnchanged):
            keeper.get(refused)
        stored = store.load(source.key)
        assert stored is not None
        assert (stored, stored.refresh_token) == (Token("old"), "next")

    @pytest.mark.parametrize("restart", [False, True])
    def test_of_a_login_spares_the_person_another_one(self, clock: Clock, restart: bool) -> None:
        source, store = Source(), MemoryStore()
        keeper, _ = keep(source, store)
        source.next = [self.late(clock)]
        with pytest.raises(InvalidTokenResponse):
            keeper.get()
        if restart:
            keeper, _ = keep(source, store)
        assert keeper.renew() == Token("token 2")
        assert [token and token.refresh_token for token in source.asked_with] == [None, "next"]

    def test_of_a_login_after_a_refusal_spares_the_person_another_one(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("old", 60.0, since=clock.now - 100, refresh_token="used", scope="a"))
        keeper, _ = keep(source, store)
        source.next = [USED, self.late(clock, scope="b")]
        with pytest.raises(InvalidTokenResponse):
            keeper.get()
        stored = store.load(source.key)
        assert stored is not None
        assert (stored.refresh_token, stored.refusal, stored.scope) == ("next", "", "b")
        keeper.renew()
        assert [token and token.refresh_token for token in source.asked_with] == ["used", None, "next"]

    @pytest.mark.parametrize("refresh_token", ["kept", None])
    def test_is_needed_for_the_store_to_be_written(self, clock: Clock, refresh_token: str | None) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, old := Token("old", 60.0, since=clock.now - 100, refresh_token="kept"))
        keeper, _ = keep(source, store)
        source.next = [self.late(clock, refresh_token=refresh_token)]
        with pytest.raises(InvalidTokenResponse):
            keeper.get()
        assert store.load(source.key) is keeper.current is old


class TestRefreshTokenRejectedWithAnotherError:
    """Dex rejects an expired one with invalid_request: believed if it is rejected again."""

    EXPIRED = TokenRequestRefused("token: invalid_request (expired)", error="invalid_request")

    def start(self, source: Source, clock: Clock) -> tuple[TokenKeeper, list[Event], MemoryStore]:
        store = MemoryStore()
        store.save(source.key, Token("ended", 60.0, since=clock.now - 100, refresh_token="expired"))
        return *keep(source, store), store

    def test_once_is_a_failure_and_twice_has_a_person_asked(self, clock: Clock) -> None:
        source = Source()
        keeper, events, _ = self.start(source, clock)
        approved = Token("approved", 600.0, since=clock.now, refresh_token="next")
        source.next = [self.EXPIRED, self.EXPIRED, approved]
        with pytest.raises(TokenRequestRefused):
            keeper.get()
        assert kinds(events) == [RenewalFailed]
        clock.now = keeper.renewal_due
        assert keeper.get() is approved
        assert kinds(events) == [RenewalFailed, LoginRequired, TokenRenewed]
        assert [token and token.refresh_token for token in source.asked_with] == ["expired", "expired", None]

    def test_is_remembered_over_a_restart(self, clock: Clock) -> None:
        source = Source()
        keeper, _, store = self.start(source, clock)
        source.next = [self.EXPIRED]
        with pytest.raises(TokenRequestRefused):
            keeper.get()
        stored = store.load(source.key)
        assert stored is not None
        assert (stored.refusal, stored.refresh_token) == ("token: invalid_request (expired)", "expired")
        keeper, events = keep(source, store)
        source.next = [self.EXPIRED]
        keeper.get()
        assert kinds(events) == [LoginRequired, TokenRenewed]

    def test_is_forgotten_once_one_is_accepted(self, clock: Clock) -> None:
        source = Source()
        keeper, _, store = self.start(source, clock)
        source.next = [self.EXPIRED, Token("renewed", 60.0, since=clock.now, refresh_token="next")]
        with pytest.raises(TokenRequestRefused):
            keeper.get()
        keeper.renew()
        stored = store.load(source.key)
        assert stored is not None
        assert stored.refusal == ""

    def test_is_used_again_if_nobody_logs_in(self, clock: Clock) -> None:
        """The cause may be a client secret that was changed."""
        source = Source()
        keeper, _, _ = self.start(source, clock)
        source.next = [self.EXPIRED, self.EXPIRED, TokenRequestRefused("nobody approved", error="expired_token")]
        for _ in range(2):
            with pytest.raises(TokenRequestRefused):
                keeper.renew()
        keeper.renew()
        assert source.asked_with[3] is not None
        assert source.asked_with[3].refresh_token == "expired"


def test_a_listener_that_asks_for_the_token_that_is_being_requested_gets_an_error() -> None:
    source, asked = Source(), list[object]()
    store = MemoryStore()
    store.save(source.key, Token("ended", 5.0, since=monotonic() - 60, refresh_token="used"))

    def ask(event: Event) -> None:
        if isinstance(event, LoginRequired):
            try:
                keeper.get()
            except TokenError as error:
                asked.append(error)

    keeper = TokenKeeper(source, store, on_event=ask)
    source.next = [USED]
    assert keeper.renew() == Token("token 2")
    assert len(asked) == 1


def test_a_process_that_ends_waits_for_the_successor_of_its_refresh_token(tmp_path: Path) -> None:
    script = """
import sys, threading, time
from mqtt_token_client import FileStore, Token, TokenKeeper
from mqtt_token_client.clock import monotonic

asked = threading.Event()

class Slow:
    key = "slow"

    def fetch(self, previous):
        asked.set()
        time.sleep(0.5)
        return Token("renewed", 60.0, refresh_token="second")

store = FileStore(sys.argv[1])
store.save("slow", Token("ended", 1.0, refresh_token="first", since=monotonic() - 10))
threading.Thread(target=TokenKeeper(Slow(), store).get, daemon=True).start()
asked.wait()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], check=True, timeout=30)
    stored = FileStore(tmp_path / "store").load("slow")
    assert stored is not None
    assert stored.refresh_token == "second"
