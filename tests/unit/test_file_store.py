"""FileStore: encrypted, private, whole after a power cut, and never in the way of a start."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from devtools.servers.secret_check import remember_secret
from mqtt_token_client.errors import ConfigurationError, StoreError, StoreKeyMissing
from mqtt_token_client.stores.file import FileStore
from mqtt_token_client.token import Token
from tests.store_contract import LONG, SHORT, StoreContract, same

KEY = Fernet.generate_key()
remember_secret(KEY.decode())


@pytest.fixture(autouse=True)
def _no_other_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made" / "by the store"


def token_file(folder: Path) -> Path:
    (found,) = folder.glob("*.token")
    return found


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


class TestFileStore(StoreContract):
    @pytest.fixture(params=["a key file", "a key"])
    def opened(self, folder: Path, request: pytest.FixtureRequest) -> Callable[[], FileStore]:
        return lambda: FileStore(folder, key=None if request.param == "a key file" else KEY)


# Private


def test_nothing_in_the_folder_is_open_to_others_whatever_the_umask_and_the_mode_before(folder: Path) -> None:
    before = os.umask(0)
    try:
        store = FileStore(folder)
        store.save("a", LONG)
        for path in folder.iterdir():
            path.chmod(0o666)
        store.save("a", SHORT)
        with store.lock("a"):
            pass
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert mode(token_file(folder)) == 0o600
    FileStore(folder.parent / "fresh").save("a", SHORT)
    assert {mode(path) for path in (folder.parent / "fresh").iterdir()} == {0o600}


def test_neither_token_nor_key_name_can_be_read_in_the_folder(folder: Path) -> None:
    token = Token("the-access-token", refresh_token="the-refresh-token")
    FileStore(folder).save("https://id.example.com pump-17", token)
    for path in folder.iterdir():
        shown = path.name.encode() + path.read_bytes()
        assert not any(word in shown for word in (b"the-access", b"the-refresh", b"pump-17", b"example"))


@pytest.mark.parametrize("open_to_others", [0o755, 0o750, 0o710, 0o777, 0o722, 0o701])
def test_a_folder_that_is_open_to_others_is_refused_and_left_as_it_is(folder: Path, open_to_others: int) -> None:
    folder.mkdir(parents=True)
    folder.chmod(open_to_others)
    with pytest.raises(
        ConfigurationError, match=rf"path: .*by the store is open to other users \(mode {open_to_others:o}\)"
    ):
        FileStore(folder)
    assert mode(folder) == open_to_others


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        FileStore(folder)


def test_a_folder_that_is_opened_to_others_later_gets_no_token(folder: Path) -> None:
    store = FileStore(folder)
    store.save("a", SHORT)
    folder.chmod(0o755)
    with pytest.raises(StoreError, match="open to other users"):
        store.save("a", LONG)
    with pytest.raises(StoreError, match="open to other users"), store.lock("a"):
        pass


@pytest.mark.parametrize("path", ["", 5, b"", "~no such user/x", "a\0b", b"bytes"])
def test_something_else_than_a_path_is_refused(path: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^path\b"):
        FileStore(path)  # type: ignore[arg-type]  # the mistake


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        FileStore(folder)
    with pytest.raises(ConfigurationError, match=r"path: .*Not a directory"):
        FileStore(folder / "deeper")


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"STATE_DIRECTORY": "service:another", "XDG_STATE_HOME": "state"}, "service/mqtt-token-client"),
        ({"XDG_STATE_HOME": "state"}, "state/mqtt-token-client"),
        ({}, "home/.local/state/mqtt-token-client"),
    ],
)
def test_the_folder_by_default_is_the_services_or_the_users(
    variables: dict[str, str], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, ":".join(str(tmp_path / part) for part in value.split(":")))
    FileStore().save("a", SHORT)
    assert token_file(tmp_path / found).exists()


def test_a_relative_state_home_is_ignored_as_its_specification_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert str(tmp_path / "home" / ".local") in FileStore().protection


# The key


@pytest.mark.parametrize(
    "key",
    ["", "a passphrase", KEY[:-2], b"\xff" * 44, 5, "ä" * 44],
    ids=["empty", "a passphrase", "short", "bytes", "int", "not ASCII"],
)
def test_something_else_than_a_key_is_refused_without_showing_it(folder: Path, key: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FileStore(folder, key=key)  # type: ignore[arg-type]  # the mistake
    assert str(caught.value) == "key must be 32 bytes in URL-safe base64, as Fernet.generate_key() returns"


def test_a_given_key_makes_no_key_file(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    FileStore(folder, key=KEY.decode()).save("a", LONG)
    assert same(FileStore(folder, key=KEY).load("a"), LONG)
    assert not (folder / "store.key").exists()
    assert not [record for record in caplog.records if record.name == "mqtt_token_client.stores"]


def test_the_services_credential_is_the_key(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mqtt-token-client.key").write_bytes(KEY + b"\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    store = FileStore(folder)
    store.save("a", LONG)
    assert "systemd credential mqtt-token-client.key" in store.protection
    assert not (folder / "store.key").exists()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert same(FileStore(folder, key=KEY).load("a"), LONG)


def test_a_credential_that_is_not_a_key_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mqtt-token-client.key").write_text("hunter2")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"mqtt-token-client\.key must be 32 bytes") as caught:
        FileStore(folder)
    assert "hunter2" not in str(caught.value)
    FileStore(folder, key=KEY)  # an argument comes first
    (tmp_path / "mqtt-token-client.key").unlink()
    (tmp_path / "mqtt-token-client.key").mkdir()
    with pytest.raises(ConfigurationError, match=r"mqtt-token-client\.key: Is a directory"):
        FileStore(folder)


def test_credentials_for_something_else_change_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    FileStore(folder).save("a", SHORT)
    assert (folder / "store.key").exists()


def test_a_key_file_is_made_once_and_reported_once_with_what_it_does_not_protect_from(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileStore(folder)
    assert store.load("a") is None
    assert not folder.exists()  # reading makes nothing
    for _ in range(2):
        store.save("a", LONG)
        FileStore(folder).save("b", LONG)
    (reported,) = [record for record in caplog.records if record.name == "mqtt_token_client.stores"]
    assert reported.levelno == logging.WARNING
    assert str(folder / "store.key") in reported.message
    assert "not from root" in reported.message
    remember_secret((folder / "store.key").read_text())


def test_processes_that_start_at_once_end_with_the_same_key(folder: Path) -> None:
    program = (
        "import sys; from mqtt_token_client import FileStore, Token; import cryptography.fernet; "
        "print('ready', flush=True); sys.stdin.read(); FileStore(sys.argv[1]).save(sys.argv[2], Token('t'))"
    )
    keys = [str(number) for number in range(6)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder), key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for key in keys
    ]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert sum(b"new key" in error for error in errors) == 1, errors
    assert [FileStore(folder).load(key) for key in keys] == [Token("t")] * len(keys)


def test_a_lost_key_file_is_made_anew_and_the_old_tokens_are_set_aside(folder: Path) -> None:
    store = FileStore(folder)
    store.save("a", LONG)
    store.save("b", LONG)
    (folder / "store.key").unlink()
    with pytest.raises(StoreError, match="set aside"):
        store.load("a")
    store.save("a", SHORT)
    assert same(store.load("a"), SHORT)
    with pytest.raises(StoreError, match="set aside"):
        store.load("b")
    store.save("b", SHORT)
    assert same(store.load("b"), SHORT)
    assert len(list(folder.glob("*.corrupt"))) == 2


@pytest.mark.parametrize("content", [b"", b"\x00" * 44, KEY[:20]], ids=["empty", "zeros", "short"])
def test_a_damaged_key_file_is_set_aside_and_made_anew(folder: Path, content: bytes) -> None:
    store = FileStore(folder)
    store.save("a", LONG)
    (folder / "store.key").write_bytes(content)
    with pytest.raises(StoreError, match="set aside"):
        store.load("a")
    store.save("a", SHORT)
    assert same(FileStore(folder).load("a"), SHORT)
    assert (folder / "store.key.corrupt").read_bytes() == content


def test_a_key_file_that_is_exchanged_holds_for_who_has_the_folder_open(folder: Path) -> None:
    store = FileStore(folder)
    store.save("a", LONG)
    (folder / "store.key").write_bytes(KEY)
    store.save("a", SHORT)
    assert same(FileStore(folder, key=KEY).load("a"), SHORT)


# Damage


def damaged(content: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "a bit": content[:50] + bytes([content[50] ^ 1]) + content[51:],
        "zeros": bytes(len(content)),
        "no record": Fernet(KEY).encrypt(b"{}"),
    }


@pytest.mark.parametrize("damage", list(damaged(b"x" * 100)))
def test_a_damaged_file_is_set_aside_once_and_blocks_nothing(folder: Path, damage: str) -> None:
    store = FileStore(folder, key=KEY)
    store.save("a", LONG)
    file = token_file(folder)
    aside = file.with_name(f"{file.name}.corrupt")
    aside.write_text("an older one")
    content = damaged(file.read_bytes())[damage]
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged"):
            store.load("a")
    assert file.read_bytes() == content, "reading changes nothing"
    store.save("a", SHORT)
    assert aside.read_bytes() == content
    assert same(store.load("a"), SHORT)


# A key that is not here


class Service:
    """A service with a credential, in whose folder a person runs a command without it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, credentials: Path) -> None:
        (credentials / "mqtt-token-client.key").write_bytes(KEY)
        with patch.context() as service:
            service.setenv("CREDENTIALS_DIRECTORY", str(credentials))
            FileStore(folder).save("a", LONG)
        self.folder = folder
        self.before = self.files()

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@pytest.fixture
def service(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(folder, monkeypatch, tmp_path)


@pytest.mark.parametrize("key", [None, Fernet.generate_key()], ids=["no key", "another key"])
@pytest.mark.parametrize("use", [lambda store: store.load("a"), lambda store: store.save("a", SHORT)])
def test_a_token_whose_key_is_not_here_stays_as_it_is_and_the_error_names_the_key(
    service: Service, key: bytes | None, use: Callable[[FileStore], object]
) -> None:
    with pytest.raises(StoreKeyMissing, match=r"written with the systemd credential mqtt-token-client\.key") as caught:
        use(FileStore(service.folder, key=key))
    assert "this process does not have" in str(caught.value)
    assert caught.value.permanent
    assert service.files() == service.before


def test_another_token_is_not_written_with_a_weaker_key_than_those_in_the_folder(service: Service) -> None:
    with pytest.raises(StoreKeyMissing, match=r"mqtt-token-client\.key"):
        FileStore(service.folder).save("b", SHORT)
    assert service.files() == service.before


def test_a_token_of_another_key_from_the_same_place_stays_as_it_is(folder: Path) -> None:
    FileStore(folder, key=KEY).save("a", LONG)
    other = FileStore(folder, key=Fernet.generate_key())
    with pytest.raises(StoreKeyMissing, match="another key than the present one"):
        other.load("a")
    with pytest.raises(StoreKeyMissing, match="another key than the present one"):
        other.save("a", SHORT)
    assert same(FileStore(folder, key=KEY).load("a"), LONG)


def test_a_token_whose_key_is_not_here_can_be_deleted(service: Service) -> None:
    store = FileStore(service.folder)
    store.delete("a")
    store.save("a", SHORT)
    assert same(store.load("a"), SHORT)


def test_a_better_key_reads_what_the_key_file_wrote_and_is_used_from_then_on(folder: Path) -> None:
    FileStore(folder).save("a", LONG)
    store = FileStore(folder, key=KEY)
    assert same(store.load("a"), LONG)
    store.save("a", LONG)
    (folder / "store.key").unlink()
    assert same(store.load("a"), LONG)


def test_a_file_that_does_not_name_its_key_is_read_as_well(folder: Path) -> None:
    """As version 0.1 wrote it."""
    store = FileStore(folder, key=KEY)
    store.save("a", LONG)
    file = token_file(folder)
    file.write_bytes(file.read_bytes().partition(b"\n")[2])
    assert same(store.load("a"), LONG)
    for other in (FileStore(folder, key=Fernet.generate_key()), FileStore(folder)):
        with pytest.raises(StoreKeyMissing, match="another key"):
            other.load("a")


def test_a_file_that_cannot_be_opened_is_reported_and_stays(folder: Path) -> None:
    store = FileStore(folder, key=KEY)
    store.save("a", LONG)
    file = token_file(folder)
    file.unlink()
    file.mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        store.load("a")
    assert file.exists()


# Power cuts; for those at any moment see tests/integration/test_power_cut.py


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_save_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(folder, key=KEY)
    store.save("a", SHORT)
    file, done = token_file(folder), []
    fsync, rename = os.fsync, os.replace

    def syncing(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renaming(old: str, new: str) -> None:
        done.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", renaming)
    store.save("a", LONG)
    assert done == [f"sync {file.name}.tmp", "rename", f"sync {folder.name}"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_flush_a_folder_keeps_the_token_without_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def no_folder(descriptor: int) -> None:  # as on vboxsf, SMB and FUSE
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_folder)
    store = FileStore(folder)
    store.save("a", LONG)
    assert same(store.load("a"), LONG)


def test_a_folder_that_fails_to_flush_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, fsync = FileStore(folder, key=KEY), os.fsync
    store.save("a", LONG)

    def broken(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StoreError, match="Input/output error"):
        store.save("a", SHORT)


def test_a_full_disk_keeps_the_old_token_and_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(folder, key=KEY)
    store.save("a", LONG)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            store.save("a", SHORT)
    assert sorted(folder.iterdir()) == before
    assert same(store.load("a"), LONG)


def test_what_a_writer_left_that_died_is_removed(folder: Path) -> None:
    store = FileStore(folder, key=KEY)
    store.save("a", LONG)
    left = Path(f"{token_file(folder)}.tmp")
    left.write_text("half")
    store.save("a", SHORT)
    assert not left.exists()


def test_deleting_leaves_no_token_in_any_form(folder: Path) -> None:
    store = FileStore(folder)
    store.save("a", LONG)
    file = token_file(folder)
    for end in ("tmp", "corrupt"):
        Path(f"{file}.{end}").write_bytes(file.read_bytes())
    store.delete("a")
    assert sorted(path.name for path in folder.iterdir()) == ["store.key", "store.lock"]


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    store = FileStore(folder / "deeper")
    folder.parent.mkdir()
    folder.write_text("in the way")
    reported = r"store: .*by the store.*: (Not a directory|File exists)"
    with pytest.raises(StoreError, match=reported):
        store.save("a", SHORT)
    with pytest.raises(StoreError, match=reported), store.lock("a"):
        pass


def test_says_where_the_tokens_are_and_how_well_that_is_protected(folder: Path) -> None:
    for store in (FileStore(folder), FileStore(folder, key=KEY)):
        assert str(folder) in store.protection
        assert "protected from other users" in store.protection
    assert "store.key" in FileStore(folder).protection
    assert KEY.decode() not in FileStore(folder, key=KEY).protection
