"""CredentialsProvider: new tokens and events reach a client on its runtime's thread, in order."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

import pytest

from mqtt_token_client.errors import AuthorizationServerUnavailable, ConfigurationError
from mqtt_token_client.events import Event, LoginRequired, RenewalFailed, TokenRenewed
from mqtt_token_client.mqtt.runtime.thread import NetworkThread, acquire_network_thread, release_network_thread
from mqtt_token_client.profiles import Credentials
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.credentials import CredentialsProvider
from mqtt_token_client.tokens.keeper import TokenKeeper

from .keeping import BUSY, Clock, Source, keep
from .network_thread import call
from .test_keeper_shared import USED


class Password:
    """A profile that places the token as the password."""

    def place(self, token: Token, client_id: str) -> Credentials:
        return Credentials(client_id, token.value.encode(), token=token)


class Wanting:
    """A client in miniature: remembers what is reported to it, and on which thread."""

    def __init__(self, keeper: TokenKeeper, loop: NetworkThread) -> None:
        self.loop = loop
        self.seen: list[Token | Event] = []
        self.threads = set[str]()
        self.provider = CredentialsProvider(keeper, Password(), "a client")
        self.provider.start(loop, self._see, self._see)

    def _see(self, reported: Token | Event) -> None:
        self.threads.add(threading.current_thread().name)
        self.seen.append(reported)

    def reported(self) -> list[Token | Event]:
        """All that was reported so far."""
        return call(self.loop, lambda: list(self.seen))


@pytest.fixture
def loop() -> Iterator[NetworkThread]:
    yield acquire_network_thread()
    release_network_thread()


def test_a_token_that_could_not_be_stored_is_stored_when_the_client_is_closed(loop: NetworkThread) -> None:
    stored = threading.Event()

    class Full(MemoryStore):
        full = True

        def save(self, key: str, token: Token) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().save(key, token)
            stored.set()

    source, store = Source(), Full()
    client = Wanting(keep(source, store)[0], loop)
    token = client.provider.renew()
    store.full = False
    call(loop, client.provider.stop)
    assert stored.wait(10)
    assert store.load(source.key) == token


def test_a_token_that_could_not_be_stored_is_stored_at_a_later_attempt_to_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No timer runs without a connection, and an outage may last for hours."""
    clock, stored = Clock(monkeypatch), threading.Event()

    class FullAtFirst(MemoryStore):
        full = True

        def save(self, key: str, token: Token) -> None:
            if self.full:
                self.full = False
                raise OSError(28, "No space left on device")
            super().save(key, token)
            stored.set()

    store = FullAtFirst()
    keeper, _ = keep(Source(), store)
    provider = CredentialsProvider(keeper, Password(), "a client")
    provider.credentials(None)
    assert store.load(Source.key) is None
    clock.now += 2
    provider.credentials(None)
    assert stored.wait(10)
    assert store.load(Source.key) == Token("token 1")


def test_each_new_token_is_handed_over_in_order_before_its_event(loop: NetworkThread) -> None:
    keeper, _ = keep(Source())
    client = Wanting(keeper, loop)
    tokens = [client.provider.renew() for _ in range(3)]
    reported = client.reported()
    assert reported[::2] == tokens
    assert [type(event) for event in reported[1::2]] == [TokenRenewed] * 3
    assert client.threads == {"mqtt-token-network"}
    client.provider.stop()


def test_all_clients_of_a_keeper_get_the_very_token_that_another_asked_for(loop: NetworkThread) -> None:
    keeper, _ = keep(Source())
    clients = [Wanting(keeper, loop) for _ in range(3)]
    token = clients[0].provider.credentials(None).token
    for client in clients:
        assert client.reported()[0] is token
        client.provider.stop()


def test_tokens_stay_in_order_while_a_slow_listener_holds_up_the_events_of_one_thread(loop: NetworkThread) -> None:
    keeper, _ = keep(Source())
    client = Wanting(keeper, loop)
    notified, go_on = threading.Event(), threading.Event()

    def slow(_event: Event) -> None:
        if not notified.is_set():
            notified.set()
            assert go_on.wait(10)

    keeper.add_listener(slow)
    first = threading.Thread(target=keeper.renew)
    first.start()
    assert notified.wait(10)
    keeper.renew()
    go_on.set()
    first.join(10)
    assert [seen for seen in client.reported() if isinstance(seen, Token)] == [Token("token 1"), Token("token 2")]
    client.provider.stop()


def test_a_token_that_another_process_stored_is_handed_over_too(loop: NetworkThread) -> None:
    source, store = Source(), MemoryStore()
    keeper, _ = keep(source, store)
    keeper.get()
    client = Wanting(keeper, loop)
    other = keep(source, store)[0].renew()
    client.provider.renew()
    assert [seen for seen in client.reported() if isinstance(seen, Token)] == [other]
    assert source.requests == 2
    client.provider.stop()


def test_a_failure_and_a_login_bring_an_event_and_no_token(loop: NetworkThread) -> None:
    source, store = Source(), MemoryStore()
    store.save(source.key, Token("expired", -1.0, refresh_token="used"))
    keeper, _ = keep(source, store)
    client = Wanting(keeper, loop)
    source.next = [USED, BUSY]
    keeper.renew_when_due()
    assert [type(seen) for seen in client.reported()] == [LoginRequired, RenewalFailed]
    client.provider.stop()


def test_a_source_that_notices_another_token_is_watched_from_start_to_stop(loop: NetworkThread) -> None:
    class Noticing(Source):
        changed: Callable[[], None] | None = None

        def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
            self.changed = changed
            return self.end

        def end(self) -> None:
            self.changed = None

    source = Noticing()
    keeper, _ = keep(source)
    client = Wanting(keeper, loop)
    assert source.changed is not None
    source.changed()
    assert keeper.current in client.reported()
    call(loop, client.provider.stop)
    assert source.changed is None


def test_a_client_takes_turns_only_if_another_has_the_same_keeper_and_counts_once(loop: NetworkThread) -> None:
    keeper, _ = keep(Source())
    clients = [Wanting(keeper, loop) for _ in range(2)]
    token = keeper.renew()
    counts, turns = [], []

    def look(client: Wanting, *, wanted: bool) -> None:
        client.provider.renew_ahead(wanted=wanted)
        counts.append(keeper._timer.members)
        turn = client.provider.take_turn(token, lambda: None)
        turns.append(turn is not None)
        if turn is not None:
            turn.end()

    for client, wanted in ((0, True), (0, True), (1, True), (1, True), (0, False), (1, False)):
        call(loop, functools.partial(look, clients[client], wanted=wanted))
    assert counts == [1, 1, 2, 2, 1, 0]
    assert turns == [False, False, True, True, False, False]
    for one in clients:
        call(loop, one.provider.stop)


def test_a_request_that_failed_makes_no_later_rotation_urgent(
    loop: NetworkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, urgent = Source(), list[bool]()
    keeper, _ = keep(source)
    client = Wanting(keeper, loop)
    token = client.provider.renew()
    source.next = [BUSY]
    monkeypatch.setattr(keeper, "take_turn", lambda *_, **options: urgent.append(options["urgent"]))
    for _ in range(2):  # of that request, and of the one that fails
        client.provider.take_turn(token, pytest.fail)
        with contextlib.suppress(AuthorizationServerUnavailable):
            client.provider.renew()
    client.provider.take_turn(token, pytest.fail)
    assert urgent == [True, False, True]
    client.provider.stop()


def test_nothing_is_reported_after_stop_and_all_again_after_another_start(loop: NetworkThread) -> None:
    keeper, _ = keep(Source())
    client = Wanting(keeper, loop)
    client.provider.stop()
    keeper.renew()
    assert client.reported() == []
    client.provider.start(loop, client.seen.append, client.seen.append)
    second = keeper.renew()
    assert client.reported()[0] is second
    client.provider.stop()


def test_what_was_on_its_way_when_it_stopped_is_not_reported(loop: NetworkThread) -> None:
    keeper, _ = keep(Source())
    client = Wanting(keeper, loop)

    def renew_and_stop() -> None:
        keeper.renew()
        client.provider.stop()

    call(loop, renew_and_stop)
    assert client.reported() == []


def test_a_profile_that_returns_something_else_is_an_error_that_names_it() -> None:
    class Wrong:
        def place(self, token: Token, client_id: str) -> str:
            return token.value

    keeper, _ = keep(Source())
    provider = CredentialsProvider(keeper, Wrong(), "a client")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"place\(\) must return Credentials, got str"):
        provider.credentials(None)
