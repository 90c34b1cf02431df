"""A pytest plugin: the debug log of the whole session must not contain any secret that the tests used.

All loggers write to the file debug.log in the session's temporary folder, at level DEBUG. Code that makes a secret
passes it to :func:`remember_secret`. At the end the session fails if the file contains one.
"""

from __future__ import annotations

import functools
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import paho.mqtt.client
import pytest

_secrets: set[str] = set()
_LOG = pytest.StashKey[Path]()
_LEAKS = pytest.StashKey[list[str]]()


def remember_secret(value: str) -> None:
    """Let the end of the session search for a secret, also in the encodings of a URL and of a form."""
    if len(value) < 12:
        raise ValueError("a secret must have at least 12 characters: a shorter one may be in a log by chance")
    _secrets.update((value, quote(value, safe=""), quote_plus(value)))


class _OneLine(logging.Formatter):
    """One line per record, however many lines its message or traceback has, so that each line names its logger."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")


class _LogFile(logging.FileHandler):
    """Writes in blocks: a system call for each record would slow down what the tests measure."""

    def flush(self) -> None:
        """Do nothing; close() writes what is left."""


def pytest_configure() -> None:
    # Not in the fixture: pytest sets the level for each phase of a test, and restores what it found.
    logging.getLogger().setLevel(logging.DEBUG)


@pytest.fixture(scope="session", autouse=True)
def _log_everything(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    log = pytestconfig.stash[_LOG] = tmp_path_factory.getbasetemp() / "debug.log"
    handler = _LogFile(log, encoding="utf-8")
    handler.setFormatter(_OneLine("%(name)s\t%(levelname)s\t%(asctime)s\t%(threadName)s\t%(message)s"))
    logging.getLogger().addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        plain = paho.mqtt.client.Client.__init__

        @functools.wraps(plain)
        def with_logger(self: paho.mqtt.client.Client, *args: Any, **kwargs: Any) -> None:
            plain(self, *args, **kwargs)
            self.enable_logger()  # otherwise paho logs nothing

        patch.setattr(paho.mqtt.client.Client, "__init__", with_logger)
        yield
    logging.getLogger().removeHandler(handler)
    handler.close()


@pytest.hookimpl(trylast=True)  # after the session's fixtures have ended, which register their last secrets then
def pytest_sessionfinish(session: pytest.Session) -> None:
    log = session.config.stash.get(_LOG, None)
    session.config.stash[_LEAKS] = _leaks(log) if log and _secrets else []
    if session.config.stash[_LEAKS]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[_LEAKS]
    if found:
        terminalreporter.section("secrets in the debug log", red=True)
        terminalreporter.line("\n".join(found), red=True)


def _leaks(log: Path) -> list[str]:
    """A line for each place where the log contains a secret: the place, its logger and level, never the secret."""
    grep = ["grep", "--line-number", "--fixed-strings", "--text", "--file=-", str(log)]  # thousands of needles, fast
    needles = "\n".join(_secrets)
    found = subprocess.run(grep, input=needles, capture_output=True, text=True, errors="replace", check=False)
    if found.returncode > 1:
        raise RuntimeError(f"grep: {found.stderr}")
    places = []
    for line in found.stdout.splitlines():
        number, _, record = line.partition(":")
        logger, level = record.split("\t")[:2]
        places.append(f"{log}:{number}: logger {logger}, level {level}")
    return places
