"""The check of the debug log for secrets finds one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TEST = """
import logging
from devtools.servers.secret_check import remember_secret

def test_before():
    pass

def test():
    remember_secret("a b/c-secret-of-this-test")
    {statement}
"""


def _session(folder: Path, statement: str) -> subprocess.CompletedProcess[str]:
    """A session of pytest with two tests that pass, and the plugin."""
    test = folder / "test_one.py"
    test.write_text(_TEST.format(statement=statement))
    pytest_here = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "devtools.servers.secret_check",
        "-c",
        "/dev/null",
        "-o",
        "log_level=INFO",
    ]
    places = [f"--rootdir={folder}", f"--basetemp={folder / 'session'}", str(test)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # most of the time goes into loading others
    return subprocess.run(
        [*pytest_here, *places], cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "statement",
    [
        'logging.getLogger("some.library").debug("header: %s", "a b/c-secret-of-this-test")',
        'logging.getLogger("some.library").warning("first line\\nform=a+b%2Fc-secret-of-this-test")',
        'logging.getLogger("some.library").info("failed", exc_info=ValueError("a%20b%2Fc-secret-of-this-test"))',
    ],
)
def test_a_session_whose_log_shows_a_secret_fails_and_names_the_logger(tmp_path: Path, statement: str) -> None:
    session = _session(tmp_path, statement)
    assert session.returncode == 1
    assert "2 passed" in session.stdout
    assert "logger some.library" in session.stdout


def test_a_session_whose_log_shows_none_passes(tmp_path: Path) -> None:
    session = _session(tmp_path, 'logging.getLogger("some.library").debug("header: Bearer ...")')
    assert (session.returncode, session.stderr) == (0, "")


def test_a_session_with_a_secret_in_what_paho_logs_fails(tmp_path: Path) -> None:
    paho = "import paho.mqtt.client as paho; client = paho.Client(paho.CallbackAPIVersion.VERSION2)"
    session = _session(tmp_path, f"{paho}; client._easy_log(16, 'password %s', 'a b/c-secret-of-this-test')")
    assert (session.returncode, "logger paho.mqtt.client, level DEBUG" in session.stdout) == (1, True)
