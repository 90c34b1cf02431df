"""The promises of every token store. A subclass opens the same store again in its fixture ``opened``."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from devtools.servers.secret_check import remember_secret
from mqtt_token_client.clock import monotonic
from mqtt_token_client.stores import SharedTokenStore
from mqtt_token_client.token import Token

LONG = Token("long" * 1000, 3600, refresh_token="r" * 3000, scope="mqtt", since=monotonic() - 10)
SHORT = Token("s")
for secret in (LONG.value, "r" * 3000):
    remember_secret(secret)  # no backend may log them


def same(found: Token | None, token: Token) -> bool:
    """Whether a token was loaded with all of its fields."""
    names = ("value", "refresh_token", "scope", "lifetime", "since")
    return found is not None and all(getattr(found, name) == getattr(token, name) for name in names)


class StoreContract:
    @pytest.fixture
    def opened(self) -> Callable[[], SharedTokenStore]:
        raise NotImplementedError

    def test_a_token_comes_back_whole_after_a_restart(self, opened: Callable[[], SharedTokenStore]) -> None:
        opened().save("a", LONG)
        assert same(opened().load("a"), LONG)
        assert same(opened().load("a"), LONG)

    def test_a_place_with_nothing_in_it_gives_none(self, opened: Callable[[], SharedTokenStore]) -> None:
        assert opened().load("a") is None

    def test_a_new_token_replaces_the_old_one_longer_or_shorter(self, opened: Callable[[], SharedTokenStore]) -> None:
        store = opened()
        for token in (SHORT, LONG, SHORT, LONG, LONG):
            store.save("a", token)
            assert same(store.load("a"), token)
            assert same(opened().load("a"), token)

    def test_keys_are_kept_apart(self, opened: Callable[[], SharedTokenStore]) -> None:
        keys = ["a", "A", "a 0", "a b0", "https://id.example.com/../x pump-17 mqtt", "ä" * 300]
        for key in keys:
            opened().save(key, Token(f"of {key}"))
        opened().delete("a")
        assert opened().load("a") is None
        for key in keys[1:]:
            found = opened().load(key)
            assert found is not None
            assert found.value == f"of {key}"
            opened().delete(key)

    def test_a_deleted_token_is_gone_and_deleting_none_is_no_error(
        self, opened: Callable[[], SharedTokenStore]
    ) -> None:
        opened().delete("a")
        opened().save("a", LONG)
        opened().delete("a")
        opened().delete("a")
        assert opened().load("a") is None
        opened().save("a", SHORT)
        assert same(opened().load("a"), SHORT)

    def test_a_lock_is_for_one_thread_at_a_time_and_for_its_key_only(
        self, opened: Callable[[], SharedTokenStore]
    ) -> None:
        entered = threading.Event()

        def enter() -> None:
            with opened().lock("a"):
                entered.set()

        thread = threading.Thread(target=enter)
        with opened().lock("a"):
            thread.start()
            with opened().lock("b"):
                opened().save("a", SHORT)  # as the holder of the lock does
            assert not entered.wait(0.2)
        assert entered.wait(10)
        thread.join()

    def test_a_lock_is_released_when_its_holder_fails(self, opened: Callable[[], SharedTokenStore]) -> None:
        for _ in range(2):
            with pytest.raises(KeyError), opened().lock("a"):
                raise KeyError
