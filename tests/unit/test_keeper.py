"""TokenKeeper: when it asks, how often, and what it reports. Its time is a clock that the tests set."""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import re
import threading
import time
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given, strategies as st

from devtools.servers.processes import wait_until
from mqtt_token_client.backoff import Backoff
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    ClientClosed,
    ConfigurationError,
    InvalidTokenResponse,
    TokenError,
    TokenRequestRefused,
    TokenUnchanged,
)
from mqtt_token_client.events import Event, RenewalFailed, TokenRenewed
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import RenewalPolicy, TokenKeeper

from .keeping import BUSY, Clock, Source, keep

DAY = 86_400.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def jwt(claims: bytes) -> Token:
    return Token(f"e30.{urlsafe_b64encode(claims).decode()}.x", 60.0)


class TestCurrentToken:
    def test_is_fetched_at_the_first_use_and_then_kept(self, clock: Clock) -> None:
        source = Source()
        keeper, events = keep(source)
        assert (keeper.current, source.requests) == (None, 0)
        first = keeper.get()
        clock.now += 30
        assert keeper.get() is first is keeper.token is keeper.current
        assert source.asked_with == [None]
        assert events == [TokenRenewed(60.0)]

    def test_that_has_expired_is_replaced_and_shown_to_the_source(self, clock: Clock) -> None:
        source = Source()
        keeper, _ = keep(source)
        first = keeper.get()
        clock.now += 61
        assert keeper.get().value == "token 2"
        assert source.asked_with == [None, first]

    @pytest.mark.parametrize(("life", "margin"), [(3600.0, 1.0), (50.0, 1.0), (5.0, 0.1), (0.1, 0.002)])
    def test_with_a_second_or_a_fiftieth_of_its_life_left_counts_as_ended(
        self, clock: Clock, life: float, margin: float
    ) -> None:
        source = Source(life)
        keeper, _ = keep(source)
        keeper.get()
        clock.now += life - margin * 1.01
        keeper.get()
        assert source.requests == 1
        clock.now += margin * 0.02
        keeper.get()
        assert source.requests == 2

    def test_without_an_end_is_never_renewed(self, clock: Clock) -> None:
        source = Source(None)
        keeper, events = keep(source)
        keeper.get()
        clock.now += 1e9
        assert keeper.renewal_due == math.inf
        keeper.renew_when_due()
        assert keeper.token.value == "token 1"
        assert (source.requests, events) == (1, [TokenRenewed(math.inf)])

    def test_event_names_the_jti_where_it_has_one(self, clock: Clock) -> None:
        source = Source()
        source.next = [jwt(b'{"jti": "b2ff"}'), jwt(b'{"jti": 5}')]
        keeper, events = keep(source)
        keeper.renew()
        keeper.renew()
        assert events == [TokenRenewed(60.0, "b2ff"), TokenRenewed(60.0, None)]


class TestRenewal:
    @pytest.mark.parametrize("life", [5.0, 60.0, 7 * DAY])
    def test_begins_at_two_thirds_of_the_life_and_up_to_a_twentieth_earlier(self, clock: Clock, life: float) -> None:
        due = []
        for _ in range(200):
            keeper = TokenKeeper(Source(life))
            keeper.get()
            due.append((keeper.renewal_due - clock.now) / life)
        assert 2 / 3 - 1 / 20 <= min(due) < 0.63 < 0.655 < max(due) <= 2 / 3

    @pytest.mark.parametrize("life", [3600.0, None])
    def test_begins_before_the_refresh_token_expires(self, clock: Clock, life: float | None) -> None:
        """Keycloak's refresh tokens are valid for 30 minutes by default, which its access tokens may outlast."""
        source = Source()
        source.always = Token("outlasts", life, refresh_token="short", refresh_expires_in=1800.0, since=clock.now)
        keeper, _ = keep(source)
        keeper.get()
        assert keeper.renewal_due == pytest.approx(clock.now + 1200)
        clock.now = keeper.renewal_due
        keeper.renew_when_due()
        assert keeper.renewal_due == pytest.approx(clock.now + 400)

    def test_does_not_care_for_the_lifetime_of_a_refresh_token_that_is_not_there(self, clock: Clock) -> None:
        source = Source()
        source.always = Token("alone", 3600.0, refresh_expires_in=1800.0, since=clock.now)
        keeper, _ = keep(source)
        keeper.get()
        assert keeper.renewal_due == pytest.approx(clock.now + 2400)

    def test_counts_from_when_the_request_was_sent(self, clock: Clock) -> None:
        source = Source()
        source.next = [Token("old already", 60.0, since=clock.now - 30)]
        keeper, _ = keep(source)
        keeper.get()
        assert keeper.renewal_due == pytest.approx(clock.now + 10)

    def test_happens_when_due_and_not_before(self, clock: Clock) -> None:
        source = Source()
        keeper, events = keep(source)
        assert keeper.renewal_due == -math.inf
        keeper.renew_when_due()
        clock.now = keeper.renewal_due - 0.01
        keeper.renew_when_due()
        assert source.requests == 1
        clock.now = keeper.renewal_due
        keeper.renew_when_due()
        assert source.requests == 2
        assert events == [TokenRenewed(60.0), TokenRenewed(60.0)]

    @pytest.mark.parametrize("life", [0.01, 0.5, 1.2])
    def test_in_the_background_is_never_sooner_than_a_second_after_a_request(self, clock: Clock, life: float) -> None:
        keeper, _ = keep(Source(life))
        asked = clock.now
        keeper.get()
        assert keeper.renewal_due == pytest.approx(asked + 1)

    @pytest.mark.parametrize("step", [-365 * DAY, 365 * DAY])
    def test_is_not_moved_by_a_step_of_the_wall_clock(self, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
        source = Source()
        keeper, _ = keep(source)
        token, due = keeper.get(), keeper.renewal_due
        monkeypatch.setattr(time, "time", lambda wall=time.time: wall() + step)
        assert keeper.renewal_due == due
        assert keeper.token is token
        keeper.renew_when_due()
        assert source.requests == 1
        assert 59 < token.expires_in < 60
        assert 39 < keeper.renew().lifetime * 2 / 3 < 41
        assert keeper.renewal_due == pytest.approx(monotonic() + 40, abs=5)

    def test_now_is_made_whatever_is_due(self, clock: Clock) -> None:
        source = Source()
        keeper, _ = keep(source)
        keeper.get()
        source.next = [BUSY]
        with pytest.raises(AuthorizationServerUnavailable):
            keeper.renew()
        assert keeper.renew().value == "token 3"
        assert keeper.current == Token("token 3")

    def test_that_is_due_starts_in_the_background_when_the_token_is_read(self, clock: Clock) -> None:
        source, go = Source(), threading.Event()
        keeper, events = keep(source)
        first = keeper.token
        clock.now += 45
        threads = list[threading.Thread]()

        def slowly() -> Token:
            threads.append(threading.current_thread())
            go.wait(10)
            return Token("token 2", 60)

        source.next = [slowly]
        assert [keeper.token for _ in range(5)] == [first] * 5
        wait_until(lambda: bool(threads), "the renewal")
        assert keeper.token is first
        assert threads[0].daemon
        go.set()
        threads[0].join(10)
        assert keeper.token.value == "token 2"
        assert (source.requests, len(events)) == (2, 2)

    def test_that_finds_no_thread_is_reported_and_costs_nothing(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Source()
        keeper, events = keep(source)
        first = keeper.token
        clock.now += 45

        def none_left(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none_left)
        assert keeper.token is first is keeper.token
        failed = [event for event in events if isinstance(event, RenewalFailed)]
        assert [str(event.error)[:27] for event in failed] == ["no thread could be started:"]
        assert keeper.renewal_due == pytest.approx(clock.now + failed[0].retry_in)
        assert source.requests == 1
        assert keeper.renew() == Token("token 2")

    def test_under_way_is_not_due_so_that_nobody_spins(self, clock: Clock) -> None:
        source = Source()
        keeper, _ = keep(source)
        keeper.get()
        clock.now += 45
        seen = []

        def meanwhile() -> None:
            seen.append(keeper.renewal_due)
            keeper.renew_when_due()

        source.next = [meanwhile]
        keeper.renew_when_due()
        assert seen == [clock.now + 1]
        assert source.requests == 2


class TestFailedRenewal:
    def test_costs_nothing_while_the_token_lives(self, clock: Clock) -> None:
        source = Source()
        source.always = BUSY
        source.next = [None]
        keeper, events = keep(source)
        first = keeper.get()
        for _ in range(3):
            clock.now = keeper.renewal_due
            keeper.renew_when_due()
            assert keeper.get() is first
        failed = [event for event in events if isinstance(event, RenewalFailed)]
        assert [event.error for event in failed] == [BUSY] * 3
        assert failed[0].expires_in == pytest.approx(20)
        assert failed[-1].retry_in == pytest.approx(keeper.renewal_due - clock.now)

    def test_after_the_token_has_expired_says_that_nothing_is_left(self, clock: Clock) -> None:
        source = Source()
        source.next = [None, BUSY]
        keeper, events = keep(source)
        keeper.get()
        clock.now += 100
        keeper.renew_when_due()
        assert [event.expires_in for event in events if isinstance(event, RenewalFailed)] == [0.0]

    def test_that_is_over_holds_nothing_up(self, clock: Clock) -> None:
        source = Source()
        source.next = [BUSY]
        keeper, _ = keep(source)
        keeper.renew_when_due()
        first = keeper.renew()
        assert keeper.get(first).value == "token 3"

    def test_tells_its_error_without_the_frames_of_the_source(self, clock: Clock) -> None:
        source = Source()
        source.always = AuthorizationServerUnavailable("busy")
        frames = []

        def look(event: Event) -> None:
            if isinstance(event, RenewalFailed):
                frames.append(event.error.__traceback__)

        TokenKeeper(source, on_event=look).renew_when_due()
        assert frames == [None]

    def test_of_the_first_token_is_raised_and_reported(self, clock: Clock) -> None:
        source = Source()
        source.always = BUSY
        keeper, events = keep(source)
        with pytest.raises(AuthorizationServerUnavailable, match="busy"):
            keeper.token  # noqa: B018 - reading it is the test
        assert [(event.error, event.expires_in) for event in events if isinstance(event, RenewalFailed)] == [
            (BUSY, 0.0)
        ]

    def test_once_the_token_has_expired_is_raised_without_a_request_until_the_retry(self, clock: Clock) -> None:
        source = Source()
        source.always = BUSY
        keeper, events = keep(source)
        for _ in range(5):
            with pytest.raises(AuthorizationServerUnavailable) as caught:
                keeper.get()
        assert (source.requests, len(events)) == (1, 1)
        assert len(caught.traceback) < 4  # it is one exception, and does not grow by each raise
        clock.now = keeper.renewal_due
        with pytest.raises(AuthorizationServerUnavailable):
            keeper.get()
        assert source.requests == 2

    def test_is_forgotten_after_a_success(self, clock: Clock) -> None:
        source = Source()
        source.next = [BUSY] * 8
        keeper, _ = keep(source, policy=RenewalPolicy(jitter=0, backoff=Backoff(initial=100.0, maximum=10_000.0)))
        for _ in range(9):
            clock.now = max(clock.now, keeper.renewal_due)
            keeper.renew_when_due()
        assert keeper.renewal_due == pytest.approx(clock.now + 40)
        source.next = [BUSY]
        clock.now = keeper.renewal_due
        keeper.renew_when_due()
        assert keeper.renewal_due <= clock.now + 100

    def test_waits_longer_each_time(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("random.uniform", lambda _low, high: high)
        source = Source()
        source.always = BUSY
        keeper, events = keep(source)
        for _ in range(9):
            clock.now = max(clock.now, keeper.renewal_due)
            keeper.renew_when_due()
        waits = [event.retry_in for event in events if isinstance(event, RenewalFailed)]
        assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 64, 120, 120])

    def test_is_never_retried_within_a_second(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("random.uniform", lambda low, _high: low)
        source = Source()
        source.always = BUSY
        keeper, _ = keep(source)
        keeper.renew_when_due()
        assert keeper.renewal_due == clock.now + 1

    def test_is_retried_after_retry_after_at_the_earliest_and_not_all_at_once(self, clock: Clock) -> None:
        waits = set()
        for _ in range(50):
            source = Source()
            source.always = AuthorizationServerUnavailable("busy", retry_after=7)
            keeper, _ = keep(source)
            keeper.renew_when_due()
            waits.add(keeper.renewal_due - clock.now)
        assert 7 <= min(waits) < max(waits) <= 8

    @pytest.mark.parametrize("retry_after", ["120", math.nan, math.inf, -5.0, b"7"])
    def test_is_retried_by_the_back_off_alone_if_retry_after_is_no_time(self, clock: Clock, retry_after: Any) -> None:
        source = Source()
        source.always = TokenError("of a user's own source", retry_after=retry_after)
        keeper, _ = keep(source)
        for _ in range(2):
            with pytest.raises(TokenError, match="own source"):
                keeper.get()
        assert source.requests == 1
        assert keeper.renewal_due == clock.now + 1

    def test_that_a_person_must_fix_is_retried_slowly(self, clock: Clock) -> None:
        source = Source()
        source.always = TokenRequestRefused("no", error="invalid_client")
        for _ in range(50):
            keeper, _ = keep(source)
            keeper.renew_when_due()
            assert 60 <= keeper.renewal_due - clock.now <= 120

    def test_of_a_login_that_nobody_approved_in_time_is_retried_at_once_three_times(self, clock: Clock) -> None:
        source = Source()

        def expired() -> Any:
            clock.now += 600
            raise TokenRequestRefused("nobody approved", error="expired_token")

        source.next = [expired] * 5
        keeper, _ = keep(source)
        waits = []
        for _ in range(5):
            with pytest.raises(TokenRequestRefused):
                keeper.get()
            waits.append(keeper.renewal_due - clock.now)
            clock.now = keeper.renewal_due
        assert waits[:3] == [0, 0, 0]
        assert all(60 <= wait <= 120 for wait in waits[3:])
        keeper.get()
        source.next = [expired] * 3
        for _ in range(3):
            with pytest.raises(TokenRequestRefused):
                keeper.renew()
            assert keeper.renewal_due == clock.now

    def test_of_a_users_source_shows_only_the_kind_of_exception_and_where_it_was_raised(self, clock: Clock) -> None:
        source = Source()
        source.next = [ValueError("a text with a secret in it")]
        keeper, events = keep(source)
        with pytest.raises(TokenError) as caught:
            keeper.get()
        assert type(caught.value) is TokenError
        where = rf"in {re.escape(inspect.getfile(Source))}, line \d+"
        assert re.fullmatch(rf"source: fetch\(\) raised ValueError {where}", str(caught.value))
        assert "secret" not in f"{events} {caught.value} {caught.value.__cause__} {caught.value.__context__}"
        clock.now = keeper.renewal_due
        assert keeper.get().value == "token 2"

    @pytest.mark.parametrize("returned", ["a string", 5, {"access_token": "a"}])
    def test_is_a_source_that_returns_no_token(self, clock: Clock, returned: object) -> None:
        source = Source()
        source.next = [returned]
        keeper, _ = keep(source)
        with pytest.raises(InvalidTokenResponse, match=type(returned).__name__):
            keeper.get()
        assert keeper.current is None

    @pytest.mark.parametrize("left", [-5.0, 0.0, 0.9])
    def test_is_a_token_that_has_expired_already_and_the_old_one_stays(self, clock: Clock, left: float) -> None:
        source = Source()
        keeper, events = keep(source)
        first = keeper.get()
        source.next = [Token("ended", 60.0, since=clock.now - 60 + left)]
        with pytest.raises(InvalidTokenResponse):
            keeper.renew()
        assert keeper.current is first
        assert isinstance(events[-1], RenewalFailed)

    @pytest.mark.parametrize("refresh_token", [None, "a refresh token"])
    @pytest.mark.parametrize("value", ["a" * 65_536, "ü" * 32_768])
    def test_is_a_token_that_is_too_long_for_mqtt_and_the_next_is_asked_for_soon(
        self, clock: Clock, value: str, refresh_token: str | None
    ) -> None:
        source = Source()
        source.next = [Token(value, 60.0, refresh_token=refresh_token)] * 2
        keeper, _ = keep(source)
        for _ in range(2):
            with pytest.raises(InvalidTokenResponse, match="65536 bytes, MQTT accepts at most 65535; use a token with"):
                keeper.get()
            assert keeper.renewal_due - clock.now <= 2
            clock.now = keeper.renewal_due
        assert keeper.get().value == "token 3"

    def test_by_any_other_exception_of_the_source_says_where_it_was_raised(self, clock: Clock) -> None:
        class PanicException(BaseException):
            """As extensions in Rust raise it."""

        source = Source()
        source.next = [PanicException("a secret")]
        keeper, events = keep(source)
        with pytest.raises(TokenError, match=r"^source: fetch\(\) raised PanicException in .*, line \d+$"):
            keeper.get()
        assert [type(event) for event in events] == [RenewalFailed]

    def test_by_an_interrupt_is_not_a_failure_of_the_source(self, clock: Clock) -> None:
        source = Source()
        source.next = [KeyboardInterrupt()]
        keeper, events = keep(source)
        with pytest.raises(KeyboardInterrupt):
            keeper.get()
        assert events == []
        assert keeper.get().value == "token 2"


class TestSameTokenAgain:
    @pytest.mark.parametrize("life", [5.0, 60.0, 3600.0, 7 * DAY])
    def test_makes_no_loop_and_no_event(self, clock: Clock, life: float) -> None:
        source = Source()
        only = source.always = Token("the only one", life)
        keeper, events = keep(source)
        keeper.get()
        moments = [clock.now]
        while keeper.renewal_due < only.since + life - 1:
            clock.now = keeper.renewal_due
            keeper.renew_when_due()
            moments.append(clock.now)
        assert events == [TokenRenewed(life)]
        assert keeper.get() is only
        assert min(after - before for before, after in itertools.pairwise(moments)) >= 1
        assert len(moments) <= 2 + math.log(life, 3)

    def test_is_asked_again_after_two_thirds_of_what_is_left(self, clock: Clock) -> None:
        source = Source()
        source.always = Token("the only one", 90.0)
        keeper, _ = keep(source)
        keeper.get()
        clock.now += 60
        keeper.renew_when_due()
        assert keeper.renewal_due == pytest.approx(clock.now + 20)

    def test_after_its_end_is_a_failure_and_backs_off(self, clock: Clock) -> None:
        source = Source()
        source.always = Token("the only one", 60.0)
        keeper, events = keep(source)
        keeper.get()
        clock.now += 61
        for _ in range(3):
            with pytest.raises(TokenUnchanged):
                keeper.get()
        assert source.requests == 2
        assert isinstance(events[-1], RenewalFailed)

    def test_with_a_new_life_is_a_renewal(self, clock: Clock) -> None:
        source = Source()
        source.always = lambda: Token("sliding", 60.0)
        keeper, events = keep(source)
        for _ in range(3):
            keeper.get()
            clock.now += 61
        assert events == [TokenRenewed(60.0)] * 3

    def test_whose_lifetime_is_given_in_whole_seconds_is_not_a_renewal(self, clock: Clock) -> None:
        source = Source()
        source.next = [Token("cached", 60.0), lambda: Token("cached", 20.9)]
        keeper, events = keep(source)
        keeper.get()
        clock.now += 40
        keeper.renew_when_due()
        assert events == [TokenRenewed(60.0)]

    def test_may_bring_a_new_refresh_token_which_is_stored(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        source.next = [Token("same", 60.0, refresh_token="first"), Token("same", 60.0, refresh_token="second")]
        keeper, _ = keep(source, store)
        first = keeper.get()
        with pytest.raises(TokenUnchanged):
            keeper.get(first)
        for kept in (keeper.current, store.load(source.key)):
            assert kept is not None
            assert kept.refresh_token == "second"


class TestRefusedToken:
    def test_is_not_returned_but_replaced_at_once(self, clock: Clock) -> None:
        source = Source()
        keeper, _ = keep(source)
        first = keeper.get()
        second = keeper.get(first)
        assert second.value == "token 2"
        assert keeper.get(first) is second
        assert source.requests == 2

    def test_that_comes_again_is_an_error_and_backs_off(self, clock: Clock) -> None:
        source = Source()
        source.always = Token("the only one", 3600.0)
        keeper, events = keep(source)
        refused = keeper.get()
        for _ in range(3):
            with pytest.raises(TokenUnchanged):
                keeper.get(Token("the only one"))
        assert source.requests == 2
        assert keeper.get() is refused  # another broker may take it
        assert isinstance(events[-1], RenewalFailed)
        clock.now = keeper.renewal_due
        source.always = None
        assert keeper.get(refused).value == "token 3"

    def test_backs_off_further_each_time_that_it_comes_again(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("random.uniform", lambda _low, high: high)
        source = Source()
        source.always = Token("the only one", 3600.0)
        keeper, events = keep(source)
        refused = keeper.get()
        for _ in range(4):
            with pytest.raises(TokenUnchanged):
                keeper.get(refused)
            clock.now = keeper.renewal_due
        assert [event.retry_in for event in events if isinstance(event, RenewalFailed)] == pytest.approx([1, 2, 4, 8])

    def test_from_the_store_is_replaced_too(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        store.save(source.key, Token("stored", 60.0))
        keeper, _ = keep(source, store)
        assert keeper.get(Token("stored")).value == "token 1"


class TestListener:
    def test_that_raises_is_logged_and_the_others_are_notified(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        def wrong(_event: Event) -> None:
            raise ZeroDivisionError

        keeper, events = keep(Source())
        keeper.remove_listener(events.append)
        keeper.add_listener(wrong)
        keeper.add_listener(events.append)
        assert keeper.get().value == "token 1"
        assert events == [TokenRenewed(60.0)]
        assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]

    def test_may_use_the_keeper(self, clock: Clock) -> None:
        keeper, _ = keep(Source())
        seen = []
        keeper.add_listener(lambda _event: seen.append(keeper.get()))
        keeper.renew()
        assert seen == [keeper.current]

    def test_that_was_removed_is_not_notified(self, clock: Clock) -> None:
        keeper, events = keep(Source())
        keeper.remove_listener(events.append)
        keeper.remove_listener(events.append)
        keeper.renew()
        assert events == []


class TestClose:
    def test_ends_renewals_and_leaves_the_valid_token(self, clock: Clock) -> None:
        source = Source()
        keeper, _ = keep(source)
        first = keeper.get()
        keeper.close()
        clock.now += 45
        keeper.renew_when_due()
        assert keeper.token is first
        assert keeper.renewal_due == math.inf
        with pytest.raises(ClientClosed):
            keeper.renew()
        clock.now += 20
        with pytest.raises(ClientClosed):
            keeper.get()
        assert source.requests == 1

    def test_lets_the_renewal_under_way_end_well(self, clock: Clock) -> None:
        source, store = Source(), MemoryStore()
        keeper, _ = keep(source, store)

        def closing() -> Token:
            keeper.close()
            return Token("last", 60.0)

        source.next = [closing]
        assert keeper.renew().value == "last"
        assert store.load(source.key) == Token("last")


class TestArguments:
    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"source": object()}, "source"),
            ({"store": object()}, "store"),
            ({"store": MemoryStore(), "key": ""}, "key"),
            ({"store": MemoryStore(), "key": 5}, "key"),
            ({"policy": 0.5}, "policy"),
            ({"on_event": "print"}, "on_event"),
        ],
    )
    def test_wrong_one_is_named(self, wrong: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            TokenKeeper(**{"source": Source(), **wrong})

    def test_store_needs_a_key_where_the_source_has_none(self) -> None:
        class Plain:
            def fetch(self, previous: Token | None) -> Token:
                return Token("a")

        with pytest.raises(ConfigurationError, match="key"):
            TokenKeeper(Plain(), MemoryStore())
        assert TokenKeeper(Plain()).get() == Token("a")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"fraction": 0},
            {"fraction": 1},
            {"fraction": float("nan")},
            {"fraction": "a"},
            {"jitter": -0.1},
            {"jitter": 0.7},
            {"jitter": None},
            {"backoff": 5},
        ],
        ids=str,
    )
    def test_policy_must_leave_life_before_and_after_the_renewal(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match="renewal"):
            RenewalPolicy(**wrong)

    @given(st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0.001, 1e9))
    def test_policy_that_is_right_renews_within_the_life(self, fraction: float, part: float, life: float) -> None:
        policy = RenewalPolicy(fraction, min(part, 0.99) * fraction)
        token = Token("a", life, since=0.0)
        assert 0 < policy.due(token) < life
