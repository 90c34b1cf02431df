"""open_store(): the keyring where it works, else the file, and it says which."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from keyring.backends import SecretService

from mqtt_token_client import FileStore, KeyringStore, MemoryStore, Token, open_store
from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.stores import keyring as keyring_store

from .scripted_keyrings import Failing, Good, Hanging, Lying, TooSmall


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    Good.kept.clear()
    Hanging.let_go.clear()
    yield tmp_path
    Hanging.let_go.set()


def desktop(monkeypatch: pytest.MonkeyPatch, keyring: type[Good]) -> None:
    """As in a session whose Secret Service does what a scripted keyring does."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    monkeypatch.setattr(
        SecretService, "Keyring", type("Keyring", (keyring,), {"__module__": SecretService.__name__, "priority": 5})
    )


def logged(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [record for record in caplog.records if record.name == "mqtt_token_client.stores"]
    assert line.levelname == "INFO"
    return line.message


def test_a_keyring_that_works_is_chosen_and_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desktop(monkeypatch, Good)
    store = open_store()
    assert isinstance(store, KeyringStore)
    assert logged(caplog) == f"tokens are kept in {store.protection}"
    assert Good.kept == {}


@pytest.mark.parametrize(
    ("keyring", "why"),
    [
        (Failing, "KeyringLocked"),
        (Lying, "does not return what was stored in it"),
        (TooSmall, "does not return what was stored in it"),
        (Hanging, "no answer within 0.2 s"),
    ],
)
def test_a_keyring_that_does_not_is_passed_over_for_files_and_the_log_says_why(
    keyring: type[Good], why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, home: Path
) -> None:
    desktop(monkeypatch, keyring)
    monkeypatch.setattr(keyring_store, "_TIME_LIMIT", 0.2)
    store = open_store("auto")
    assert isinstance(store, FileStore)
    assert f"encrypted files in {home}/.local/state/mqtt-token-client" in logged(caplog)
    assert why in logged(caplog)


def test_without_a_session_it_is_files_at_once_and_no_keyring_is_imported(home: Path) -> None:
    program = (
        "import logging, sys, time; logging.basicConfig(level=logging.INFO); from mqtt_token_client import open_store\n"
        "began = time.monotonic(); store = open_store()\n"
        "print(type(store).__name__, 'keyring' in sys.modules, time.monotonic() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"HOME": str(home)}, capture_output=True, text=True, check=True
    )
    name, imported, seconds = done.stdout.split()
    assert (name, imported) == ("FileStore", "False")
    assert float(seconds) < 0.5
    assert "not in a keyring: there is no D-Bus session" in done.stderr


def test_a_user_without_a_home_gets_the_services_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match="this user has no home"):
        open_store()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "service"))
    open_store().save("a", Token("t"))
    assert list((tmp_path / "service" / "mqtt-token-client").glob("*.token"))


def test_each_place_is_opened_by_its_name(home: Path) -> None:
    memory = open_store("memory")
    assert isinstance(memory, MemoryStore)
    assert memory.protection == "the memory of this process only, and lost when it ends"
    assert isinstance(open_store("keyring"), KeyringStore)
    named = open_store("keyring:keyring.backends.null.Keyring")
    assert isinstance(named, KeyringStore)
    assert named.name == "keyring.backends.null.Keyring"
    for spec, folder in (
        ("file", home / ".local/state/mqtt-token-client"),
        (f"file:{home}/a:b c", home / "a:b c"),
        ("file:~/d", home / "d"),
    ):
        store = open_store(spec)
        assert isinstance(store, FileStore)
        assert f"encrypted files in {folder}, " in store.protection


@pytest.mark.parametrize("spec", ["", "disk", "auto:x", "memory:x", "file:", "keyring:", "AUTO", ":", None, 5])
def test_another_spec_is_refused_with_those_that_are_right(spec: object) -> None:
    with pytest.raises(ConfigurationError, match=r'^store must be "auto", "keyring", .* or "memory", got '):
        open_store(spec)  # type: ignore[arg-type]  # the mistake


def test_what_a_spec_names_is_checked() -> None:
    with pytest.raises(ConfigurationError, match=r"^backend must "):
        open_store("keyring:no.such.Backend")
    with pytest.raises(ConfigurationError, match=r"^path: .* is open to other users"):
        open_store("file:/usr")
