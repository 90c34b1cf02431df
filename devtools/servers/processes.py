"""Start real servers for the tests: free ports, a log for each, no process left behind."""

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
_PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian installs servers; not in a user's PATH
started: list[Process] = []  # every process that was ever started


def free_port() -> int:
    """A loopback port on which nothing listens, below the range that the kernel uses for outgoing connections: a client
    that connects to a port in that range while its server is down can end up connected to itself.
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
    """Whether something accepts connections on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10) -> None:
    """Check a condition every 10 ms until it holds.

    Raises:
        TimeoutError: it did not hold within ``timeout`` seconds; the message names ``what``.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.01)


def need(*programs: str, packages: str) -> None:
    """Skip the test if a program is missing, or fail it in CI, with the command that installs it."""
    missing = [name for name in programs if not shutil.which(name, path=_PATH)]
    if missing:
        unavailable(f"{', '.join(missing)} missing; install with: {INSTALL} {packages}")


def need_library(name: str, packages: str) -> Path:
    """The path of a shared library that a test preloads; if it is missing, like :func:`need`."""
    found = sorted(Path("/usr/lib").glob(f"*/*/{name}"))
    if not found:
        unavailable(f"{name} missing; install with: {INSTALL} {packages}")
    return found[0]


def unavailable(why: str) -> NoReturn:
    """Skip the test, or fail it if CI=true is in the environment."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


class Process:
    """A server's process, in its own process group, with its output appended to a file.

    Args:
        name: its name in the reports of failed tests.
        command: program and arguments.
        log: the file for its output.
        env: environment variables in addition to those of this process.
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
            RuntimeError: it ended instead; the message has the end of its log.
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
        """Wait until it has ended by itself, and kill what is left of its group."""
        if self._process:
            self._process.wait(timeout)
        self.kill()

    def stop(self, timeout: float = 10) -> None:
        """Stop it with SIGTERM, and kill what is left of its group after ``timeout`` seconds."""
        if self._process:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Kill the whole group with SIGKILL."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def logged(self) -> int:
        """The number of bytes it has logged: a start for :meth:`read`."""
        return self.log.stat().st_size if self.log.exists() else 0

    def read(self, start: int) -> str:
        """Its log from this byte on; empty if its folder was removed since."""
        if not self.log.exists():
            return ""
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
