"""KeyringStore over a real Secret Service: GNOME Keyring, unlocked, locked, absent and hanging."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.servers.secret_service import Session
from mqtt_token_client import FileStore, KeyringStore, open_store
from mqtt_token_client.errors import StoreError
from tests.store_contract import LONG, SHORT, StoreContract, same


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A D-Bus session without a Secret Service, as this process's own."""
    folder = Path(tempfile.mkdtemp(prefix="session"))  # pytest's own paths are too long for a socket
    try:
        session = Session(folder)
        for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in session.env.items():
            monkeypatch.setenv(name, value)
        yield session
        session.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class TestKeyringStore(StoreContract):
    @pytest.fixture
    def opened(self, session: Session) -> Callable[[], KeyringStore]:
        session.start_keyring()
        return KeyringStore


def test_an_unlocked_one_is_chosen_and_named(session: Session) -> None:
    session.start_keyring()
    store = open_store()
    assert isinstance(store, KeyringStore)
    assert store.name == "keyring.backends.SecretService.Keyring"
    assert store.protection.startswith("the Secret Service of this session")


def test_a_token_outlives_the_daemon_and_is_not_on_the_disk_in_plain_text(session: Session) -> None:
    session.start_keyring()
    KeyringStore().save("a", LONG)
    session.stop_keyring()
    kept = [path.read_bytes() for path in session.folder.rglob("*.keyring")]
    assert kept
    assert not any(b"longlong" in content or b"l\0o\0n\0g\0" in content for content in kept)
    session.start_keyring()
    assert same(KeyringStore().load("a"), LONG)


def test_another_process_finds_the_token(session: Session) -> None:
    session.start_keyring()
    KeyringStore().save("a", SHORT)
    program = "from mqtt_token_client import KeyringStore; print(KeyringStore().load('a').value)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{SHORT.value}\n"


@pytest.mark.parametrize("password", [None, "a wrong one"])
def test_a_locked_one_is_told_and_auto_takes_files(session: Session, password: str | None) -> None:
    session.start_keyring()
    store = KeyringStore()
    store.save("a", LONG)
    session.stop_keyring()
    session.start_keyring(password)
    for each in (store, KeyringStore()):
        with pytest.raises(StoreError, match=r"^keyring: KeyringLocked$"):
            each.load("a")
        with pytest.raises(StoreError, match=r"^keyring: KeyringLocked$"):
            each.save("a", SHORT)
    assert isinstance(open_store(), FileStore)
    session.stop_keyring()
    session.start_keyring()
    assert same(store.load("a"), LONG)


def test_one_that_was_never_unlocked_is_told_and_auto_takes_files(session: Session) -> None:
    session.start_keyring(None)
    with pytest.raises(StoreError, match=r"^keyring: "):
        KeyringStore().save("a", SHORT)
    assert isinstance(open_store(), FileStore)


def test_where_there_is_none_auto_takes_files_at_once(session: Session) -> None:
    with pytest.raises(StoreError, match="no backend is usable here: The Secret Service daemon is neither running"):
        KeyringStore().load("a")
    began = time.monotonic()
    assert isinstance(open_store(), FileStore)
    assert time.monotonic() - began < 1


def test_one_that_comes_later_is_used(session: Session) -> None:
    store = KeyringStore()
    with pytest.raises(StoreError):
        store.load("a")
    session.start_keyring()
    store.save("a", LONG)
    assert same(store.load("a"), LONG)


def test_one_that_hangs_costs_three_seconds_once_and_is_used_again_when_it_goes_on(session: Session) -> None:
    session.start_keyring()
    assert session.keyring
    store = KeyringStore()
    store.save("a", LONG)
    session.keyring.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^keyring: no answer within 3 s$"):
        store.load("a")
    assert 2.9 < time.monotonic() - began < 5
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^keyring still hangs in an earlier call$"):
        store.save("a", SHORT)
    assert time.monotonic() - began < 1
    assert isinstance(open_store(), FileStore)
    session.keyring.signal(signal.SIGCONT)
    for _ in range(100):
        try:
            found = store.load("a")
            break
        except StoreError:
            time.sleep(0.05)
    assert same(found, LONG)
