"""KeyringStore over backends that misbehave; over a real one in tests/integration/test_secret_service.py."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from keyring.backends import SecretService
from keyring.errors import InitError

from devtools.servers.processes import wait_until
from mqtt_token_client.errors import ConfigurationError, StoreError
from mqtt_token_client.stores import keyring as keyring_store, limit
from mqtt_token_client.stores.file import FileStore
from mqtt_token_client.stores.keyring import KeyringStore
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.stores.opening import open_store
from mqtt_token_client.token import Token
from tests.store_contract import LONG, SHORT, StoreContract, same

from . import scripted_keyrings
from .scripted_keyrings import SECRET, Dying, Failing, Good, Hanging

NULL = "keyring.backends.null.Keyring"
Usable = type("Keyring", (Good,), {"__module__": SecretService.__name__, "priority": 5})  # as on a desktop


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Good.kept.clear()
    Hanging.let_go.clear()
    Hanging.begun = 0
    yield
    Hanging.let_go.set()


def over(backend: str, service: str = "mqtt-token-client") -> KeyringStore:
    return KeyringStore(service, backend=f"tests.unit.scripted_keyrings.{backend}")


def uses(store: KeyringStore) -> list[Callable[[], object]]:
    return [lambda: store.load("a"), lambda: store.save("a", LONG), lambda: store.delete("a")]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_store, "_TIME_LIMIT", 0.2)


class TestKeyringStore(StoreContract):
    @pytest.fixture(params=["Good", "Windows"])
    def opened(self, request: pytest.FixtureRequest) -> Callable[[], KeyringStore]:
        return lambda: over(request.param)


# The choice of a backend


def test_of_those_installed_only_the_systems_own_are_chosen_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"{Good.__module__}.Good")
    assert Good.priority > 10
    with pytest.raises(StoreError, match="no backend is usable here: "):
        KeyringStore().load("a")
    monkeypatch.setattr(SecretService, "Keyring", Usable)
    assert KeyringStore().name == "keyring.backends.SecretService.Keyring"
    assert Good.kept == {}


@pytest.mark.parametrize("weak", ["null.Keyring", "fail.Keyring", "chainer.ChainerBackend"])
def test_another_is_used_when_it_is_asked_for_by_name(weak: str) -> None:
    store = KeyringStore(backend=f"keyring.backends.{weak}")
    assert store.name == f"keyring.backends.{weak}"
    assert "chosen by name" in store.protection


def test_without_a_session_bus_it_is_known_at_once_and_nothing_is_imported() -> None:
    program = (
        "import sys, time; from mqtt_token_client import KeyringStore, StoreError\n"
        "try: KeyringStore().load('a')\n"
        "except StoreError as error: print(error, 'keyring' in sys.modules)"
    ).replace("KeyringStore, StoreError", "KeyringStore; from mqtt_token_client.errors import StoreError")
    printed = subprocess.run(
        [sys.executable, "-c", program], env={"HOME": "/"}, capture_output=True, text=True, check=True
    )
    assert printed.stdout == "keyring: there is no D-Bus session, which a keyring needs False\n"


@pytest.mark.parametrize(
    "name", ["", "keyring", "no_such.Class", "keyring.backends.null.Nothing", "json.JSONDecoder", "json.dumps", 5]
)
def test_what_names_no_backend_is_refused(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^backend must be module\.Class of a keyring backend"):
        KeyringStore(backend=name)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("service", ["", None, b"x"])
def test_something_else_than_a_service_name_is_refused(service: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^service must "):
        KeyringStore(service)  # type: ignore[arg-type]  # the mistake


def test_a_keyring_that_is_not_usable_yet_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    store = KeyringStore()
    assert store.protection == "nowhere: keyring: there is no D-Bus session, which a keyring needs"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    monkeypatch.setattr(SecretService, "Keyring", Usable)
    assert store.protection.startswith("the Secret Service of this session")


def test_services_are_kept_apart() -> None:
    over("Good", "one").save("a", SHORT)
    assert over("Good", "two").load("a") is None


# Backends that do not do what they say


@pytest.mark.parametrize("backend", ["Lying", "TooSmall"])
def test_what_does_not_come_back_is_an_error_and_no_token_is_lost(backend: str) -> None:
    over("Good").save("a", LONG)
    with pytest.raises(StoreError, match=f"{backend} does not return what was stored in it"):
        over(backend).save("a", LONG)
    assert same(over("Good").load("a"), LONG)


def test_the_null_backend_is_found_out() -> None:
    with pytest.raises(StoreError, match=r"null\.Keyring does not return what was stored"):
        KeyringStore(backend=NULL).save("a", SHORT)


def test_an_error_is_named_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    error = InitError(SECRET)
    error.__cause__ = OSError(SECRET)
    monkeypatch.setattr(Failing, "error", error)
    with pytest.raises(StoreError, match=r"^keyring: InitError \(OSError\)$"):
        over("Failing").load("a")


@pytest.mark.parametrize(
    "error",
    [
        Failing.error,
        OSError(5, SECRET),
        EOFError(SECRET),
        SystemExit(SECRET),
        UnicodeDecodeError("a", b"", 0, 0, SECRET),
    ],
)
def test_whatever_a_backend_raises_only_its_type_is_shown(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "error", error)
    store = over("Failing")
    for use in uses(store):
        with pytest.raises(StoreError) as caught:
            use()
        assert str(caught.value) == f"keyring: {type(error).__name__}"
        assert caught.value.__context__ is caught.value.__cause__ is None


@pytest.mark.parametrize(
    "head", ["", "{}", "[1]", '["a", 1, "x"]', '["a", 0, "x"]', "[" * 100_000, '["a", "many", 0]', "something else"]
)
def test_something_else_than_a_token_is_reported_and_replaced(head: str) -> None:
    store = over("Good")
    store.save("a", LONG)
    Good.kept["mqtt-token-client", "a head"] = head
    with pytest.raises(StoreError, match=r"the stored (entry is not a token|token is incomplete)"):
        store.load("a")
    store.save("a", SHORT)
    assert same(store.load("a"), SHORT)


# Parts


def test_a_cut_between_any_two_writes_leaves_the_old_token_or_the_new_one_and_nothing_for_long() -> None:
    over("Good").save("a", SHORT)
    clean = len(Good.kept)
    seen = set()
    for calls in range(200):
        Dying.calls_left = calls
        token, other = (LONG, SHORT) if calls % 2 else (SHORT, LONG)
        over("Good").save("a", other)
        done = False
        with suppress(StoreError):
            over("Dying").save("a", token)
            done = True
        found = over("Good").load("a")
        assert found is not None
        assert same(found, token) or (same(found, other) and not done)
        seen.add(same(found, token))
        if done and calls % 2 == 0 and calls > 40:
            break
    assert seen == {True, False}
    over("Good").save("a", SHORT)
    assert len(Good.kept) == clean
    over("Good").delete("a")
    assert Good.kept == {}


def test_a_cut_while_deleting_leaves_the_whole_token_or_none() -> None:
    for calls in range(20):
        over("Good").save("a", LONG)
        Dying.calls_left = calls
        with suppress(StoreError):
            over("Dying").delete("a")
        found = over("Good").load("a")
        assert found is None or same(found, LONG)
        over("Good").delete("a")
        assert Good.kept == {}


def test_a_reader_between_a_writers_calls_gets_the_old_token_or_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    over("Good").save("a", LONG)
    tokens = [Token(f"{number}" * 4000) for number in range(3)]
    saved = iter(tokens)

    def meanwhile(self: Good, name: str, entry: str) -> None:
        if name == "get" and entry.endswith("1"):  # another process saves while this one has read a part of the parts
            monkeypatch.setattr(Good, "_called", lambda self, name, entry: None)
            over("Good").save("a", next(saved))
            over("Good").save("a", next(saved))

    monkeypatch.setattr(Good, "_called", meanwhile)
    assert over("Good").load("a") == tokens[1]


# Backends that hang


def test_a_call_that_hangs_is_left_behind_and_no_second_one_is_begun(hurried: None) -> None:
    store, before = over("Hanging"), set(threading.enumerate())
    with pytest.raises(StoreError, match=r"^keyring: no answer within 0\.2 s$"):
        store.load("a")
    for use in uses(store):
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"^keyring still hangs in an earlier call$"):
            use()
        assert time.monotonic() - began < 0.15  # it does not wait again
    assert Hanging.begun == 1
    assert len(set(threading.enumerate()) - before) == 1


def test_many_threads_at_a_hanging_keyring_leave_one_behind(hurried: None) -> None:
    store, errors = over("Hanging"), []

    def load() -> None:
        with pytest.raises(StoreError) as caught:
            store.load("a")
        errors.append(str(caught.value))

    threads = [threading.Thread(target=load) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 10
    assert Hanging.begun == 1


def test_a_token_is_stored_although_no_thread_can_be_started_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an interpreter that is shutting down, where the answer to the last request is still under way."""

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    over("Good").save("a", token := Token("the last one", 60.0))
    assert over("Good").load("a") == token


def test_a_thread_waits_for_another_ones_operation_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "_TURN_TIMEOUT", 0.05)
    monkeypatch.setattr(keyring_store, "_TIME_LIMIT", 60.0)
    store = over("Hanging")
    first = threading.Thread(target=lambda: store.load("a"))
    first.start()
    wait_until(lambda: Hanging.begun == 1, "the first call")
    with pytest.raises(StoreError, match=r"^keyring has been busy for 0\.05 s$"):
        store.load("a")
    Hanging.let_go.set()
    first.join(10)


def test_a_keyring_that_answers_again_is_used_again(hurried: None) -> None:
    store = over("Hanging")
    with pytest.raises(StoreError, match="no answer"):
        store.load("a")
    Hanging.let_go.set()
    for thread in threading.enumerate():
        if thread.name == "keyring-call":
            thread.join(10)
    store.save("a", LONG)
    assert same(store.load("a"), LONG)


def test_the_limit_is_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []

    class Answers(queue.SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            waited.append(timeout)
            return super().get(timeout=0.01)

    monkeypatch.setattr(queue, "SimpleQueue", Answers)
    with pytest.raises(StoreError, match="no answer within 3 s"):
        over("Hanging").save("a", LONG)
    assert set(waited) == {3.0}


def test_a_process_ends_although_its_keyring_hangs() -> None:
    program = (
        f"import {scripted_keyrings.__name__}; from mqtt_token_client import KeyringStore; "
        "from mqtt_token_client.stores import keyring as module; module._TIME_LIMIT = 0.1; "
        f"KeyringStore(backend='{scripted_keyrings.__name__}.Hanging').load('a')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "StoreError: keyring: no answer within 0.1 s" in done.stderr


def test_threads_that_use_one_store_at_once_do_not_mix_tokens() -> None:
    store, kept, failed = over("Good"), MemoryStore(), []

    def use(number: int) -> None:
        for turn in range(5):
            token = Token(f"{number} {turn} " * 500)
            store.save(f"key {number}", token)
            kept.save(f"key {number}", token)
            if store.load(f"key {number}") != token:
                failed.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert all(store.load(f"key {number}") == kept.load(f"key {number}") for number in range(6))


class TestWithoutTheLibrary:
    """A headless device may leave out keyring and the packages that it brings."""

    @pytest.fixture(autouse=True)
    def missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "keyring.backend", None)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
        monkeypatch.delenv("STATE_DIRECTORY", raising=False)

    def test_the_store_says_what_to_install(self) -> None:
        with pytest.raises(
            StoreError, match=r"^keyring: the library keyring is not installed: pip install keyring, or "
        ):
            KeyringStore().load("key")

    def test_a_backend_that_is_named_says_so_at_once(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^the library keyring is not installed"):
            KeyringStore(backend="keyring.backends.SecretService.Keyring")

    def test_the_best_store_is_files(self) -> None:
        assert isinstance(open_store(), FileStore)
