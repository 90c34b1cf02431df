"""The lock of the stores: one holder among threads and processes, and none that died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from mqtt_token_client.errors import MqttTokenError, StoreError, StoreLocked, TokenError
from mqtt_token_client.stores import lock as locking
from mqtt_token_client.stores.file import FileStore
from mqtt_token_client.stores.keyring import KeyringStore
from mqtt_token_client.stores.lock import file_lock

_HOLD = """
import sys
from pathlib import Path
from mqtt_token_client.stores.lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
_COUNT = """
import sys
from pathlib import Path
from mqtt_token_client.stores.lock import file_lock
counter = Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
for _ in range(20):
    with file_lock(Path(sys.argv[1])):
        count = int(counter.read_text())
        counter.write_text("")
        counter.write_text(str(count + 1))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_LOCK_TIMEOUT", 0.1)


@contextmanager
def program(text: str, *arguments: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has printed a line; it goes on when its standard input is closed."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_processes_take_turns(path: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    with ExitStack() as stack:
        processes = [stack.enter_context(program(_COUNT, path, counter)) for _ in range(5)]
        for process in processes:
            assert process.stdin
            process.stdin.close()
        for process in processes:
            assert process.wait(60) == 0
    assert counter.read_text() == "100"


def test_threads_take_turns(path: Path) -> None:
    inside, most = 0, 0

    def enter(_: int) -> None:
        nonlocal inside, most
        with file_lock(path):
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.002)  # for another to get in, if it can
            inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(24)))
    assert most == 1


def test_a_holder_that_was_killed_holds_nothing(path: Path, impatient: None) -> None:
    with program(_HOLD, path) as holder:
        with pytest.raises(StoreLocked), file_lock(path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with file_lock(path):
            pass


def test_who_waits_gets_it_when_its_holder_is_killed(path: Path) -> None:
    got = threading.Event()

    def wait() -> None:
        with file_lock(path):
            got.set()

    with program(_HOLD, path) as holder:
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.2)
        holder.send_signal(signal.SIGKILL)
        assert got.wait(10)
        waiting.join()


def test_a_lock_file_that_was_left_costs_nothing_and_stays(path: Path, impatient: None) -> None:
    path.write_text("left by somebody")
    before = path.stat().st_ino
    for _ in range(2):
        with file_lock(path):
            assert path.stat().st_ino == before
    assert path.stat().st_ino == before
    assert path.read_text() in ("left by somebody", "")


def test_is_reported_when_somebody_holds_it_too_long(path: Path, impatient: None) -> None:
    with file_lock(path), ThreadPoolExecutor() as pool:
        error = pool.submit(file_lock(path).__enter__).exception()
    assert isinstance(error, TokenError)  # as for whoever waits for a token
    assert isinstance(error, StoreLocked)
    assert str(error) == f"store: another process or thread has held {path} for 0.1 s"


def test_is_released_when_the_body_fails(path: Path, impatient: None) -> None:
    with pytest.raises(KeyError), file_lock(path):
        raise KeyError
    with file_lock(path):
        pass


def test_is_nobody_elses_to_read(path: Path) -> None:
    before = os.umask(0)
    try:
        with file_lock(path):
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("place", ["a file/a.lock", "."])
def test_a_place_where_no_file_can_be_is_reported(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(StoreError, match=r"cannot be locked: (Is a directory|Not a directory|File exists)"):
        file_lock(tmp_path / place).__enter__()


_FORK = """
import os, signal, sys
from pathlib import Path
from mqtt_token_client.stores.lock import file_lock
path = Path(sys.argv[1])
begin, end = os.pipe()
with file_lock(path):
    if (child := os.fork()) == 0:
        os.close(end)
        os.read(begin, 1)  # until the parent is past its lock, or dead
        with file_lock(path):
            print("child", flush=True)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
os.close(end)
os.waitpid(child, 0)
"""


def test_a_child_that_was_forked_meanwhile_waits_for_its_turn(path: Path) -> None:
    with program(_FORK, path) as parent:
        assert parent.stdin
        assert parent.stdout
        parent.stdin.close()
        assert parent.stdout.readline() == b"child\n"
        assert parent.wait(10) == 0


_LEAVE = """
import os, sys
from pathlib import Path
from mqtt_token_client.stores.lock import file_lock
try:
    with file_lock(Path(sys.argv[1])):
        if (child := os.fork()) == 0:
            raise SystemExit(0)  # out of the lock that is its parent's
        os.waitpid(child, 0)
        print("held", flush=True)
        sys.stdin.read()
except BaseException:
    os._exit(0)
"""


def test_a_child_that_was_forked_meanwhile_cannot_release_it(path: Path, impatient: None) -> None:
    with program(_LEAVE, path), pytest.raises(StoreLocked), file_lock(path):
        pass


_OUTLIVE = """
import os, signal, sys
from pathlib import Path
from mqtt_token_client.stores.lock import file_lock
with file_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.read()  # outlives its parent, without a use for the lock
        os._exit(0)
    signal.pause()
"""


def test_a_child_that_outlives_its_parent_holds_nothing(path: Path, impatient: None) -> None:
    with program(_OUTLIVE, path) as parent:
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        with file_lock(path):
            pass


def test_a_program_that_was_started_meanwhile_holds_nothing(path: Path, impatient: None) -> None:
    with file_lock(path):
        sleeping = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with file_lock(path):
            pass
    finally:
        sleeping.kill()
        sleeping.wait()


def test_leaves_no_file_open(path: Path, impatient: None) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with file_lock(path), pytest.raises(StoreLocked), file_lock(path):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_system_without_locks_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(StoreError, match="this system has no flock"):
        file_lock(path).__enter__()


@pytest.fixture(params=["file", "keyring"])
def lock(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], AbstractContextManager[None]]:
    """``lock`` of a new object of each store, over the same place."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if request.param == "file":
        return lambda key: FileStore().lock(key)
    return lambda key: KeyringStore().lock(key)


def test_a_stores_locks_are_this_users_alone(
    lock: Callable[[str], AbstractContextManager[None]], tmp_path: Path
) -> None:
    with lock("a"), lock("b"):
        pass
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_store_without_a_place_for_locks_says_so(
    lock: Callable[[str], AbstractContextManager[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "mqtt-token-client"
    for place in (tmp_path, taken):
        monkeypatch.setenv("XDG_STATE_HOME", str(place))
        taken.touch()
        with pytest.raises(MqttTokenError, match=r"is not a folder|Not a directory|File exists"):
            lock("a").__enter__()
