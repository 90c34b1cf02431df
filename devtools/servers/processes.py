"""Starting real servers for the tests: free ports, a log each, no process left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

BUILD = Path(__file__).parent / "build"
INSTALL = "apt-get install -y --no-install-recommends"
_PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian puts servers, and a user's PATH does not look
started: list[Process] = []  # every one that ever was


def free_port() -> int:
    """A loopback port that nobody listens on, below those that the kernel hands to outgoing connections: a client that
    dials a port of that range while its server is down can end up connected to itself.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10) -> None:
    """Look at a condition every 10 ms until it holds.

    Raises:
        TimeoutError: it did not hold within ``timeout`` seconds; names ``what``.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.01)


def need(*programs: str, packages: str) -> None:
    """Skip the test if a program is missing, and in CI fail it, with the line that installs it."""
    missing = [name for name in programs if not shutil.which(name, path=_PATH)]
    if missing:
        unavailable(f"{', '.join(missing)} missing; install with: {INSTALL} {packages}")


def need_library(name: str, packages: str) -> Path:
    """The path of a shared library that a test preloads; where it is missing, like :func:`need`."""
    found = sorted(Path("/usr/lib").glob(f"*/*/{name}"))
    if not found:
        unavailable(f"{name} missing; install with: {INSTALL} {packages}")
    return found[0]


def unavailable(why: str) -> NoReturn:
    """Skip the test; with CI=true in the environment fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


class Process:
    """A server's process, in a process group of its own, with all it prints appended to a file.

    Args:
        name: what failed tests call it.
        command: program and arguments.
        log: the file for its output.
        env: the variables that it gets besides ours.
    """

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.env = env or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    def start(self, ready: Callable[[], bool], timeout: float = 10) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it ended instead; with the end of its log.
            TimeoutError: it was not ready in time.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PATH": _PATH} | self.env,
                start_new_session=True,
            )
        if self not in started:
            started.append(self)
        try:
            wait_until(lambda: not self.alive or ready(), self.name, timeout)
        except BaseException:
            self.kill()
            raise
        if not self.alive:
            self.kill()  # what it may have started
            raise RuntimeError(f"{self.name} ended at its start:\n{self.tail()}")

    def signal(self, number: int) -> None:
        """Send a signal to the process that was started."""
        if self._process:
            self._process.send_signal(number)

    def wait(self, timeout: float = 10) -> None:
        """Wait until it has ended by itself, and end what is left of its group."""
        if self._process:
            self._process.wait(timeout)
        self.kill()

    def stop(self, timeout: float = 10) -> None:
        """End it with SIGTERM, and what is left of its group after ``timeout`` seconds with SIGKILL."""
        if self._process:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End the whole group with SIGKILL."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def logged(self) -> int:
        """How many bytes it has logged: where :meth:`read` may begin."""
        return self.log.stat().st_size if self.log.exists() else 0

    def read(self, start: int) -> str:
        """What it logged from a byte on."""
        with self.log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def tail(self, lines: int = 60) -> str:
        """The last lines of its log."""
        return "\n".join(self.read(max(0, self.logged() - 100_000)).splitlines()[-lines:])


@atexit.register
def _kill_all() -> None:
    for process in started:
        process.kill()
