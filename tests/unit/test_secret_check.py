"""The check of the debug log for secrets finds one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

_ROOT = Path(__file__).parents[2]
_LEAKS = {  # by the logger that shows the secret
    "a.library": 'logging.getLogger("a.library").debug("header: %s", "{secret}")',
    "of.a.form": 'logging.getLogger("of.a.form").warning("first line\\nform={form}")',
    "of.an.error": 'logging.getLogger("of.an.error").info("failed", exc_info=ValueError("{url}"))',
    "paho.mqtt.client": 'paho.Client(paho.CallbackAPIVersion.VERSION2)._easy_log(16, "password %s", "{secret}")',
}
_HARMLESS = 'logging.getLogger("a.library").debug("header: Bearer ...")'
_HEAD = """
import logging
import paho.mqtt.client as paho
from devtools.servers.secret_check import remember_secret

def test_before():
    pass
"""
_TEST = """
def test_{number}():
    remember_secret("{secret}")
    {statement}
"""


def _session(folder: Path, statements: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """A session of pytest with a test for each statement and the plugin; all of them pass."""
    text = _HEAD
    for number, statement in enumerate(statements):
        secret = f"a b/c-secret-of-test-{number}"
        here = statement.format(secret=secret, form=quote_plus(secret), url=quote(secret, safe=""))
        text += _TEST.format(number=number, secret=secret, statement=here)
    test = folder / "test_one.py"
    test.write_text(text)
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


def test_a_session_whose_log_shows_secrets_fails_and_names_each_logger_but_no_secret(tmp_path: Path) -> None:
    session = _session(tmp_path, _LEAKS.values())
    assert session.returncode == 1
    assert f"{1 + len(_LEAKS)} passed" in session.stdout
    named = re.findall(r"debug\.log:\d+: logger (\S+), level (\w+)", session.stdout)
    levels = ("DEBUG", "WARNING", "INFO", "DEBUG")
    assert named == list(zip(_LEAKS, levels, strict=True))
    assert "secret-of-test" not in session.stdout.partition("secrets in the debug log")[2]


def test_a_session_whose_log_shows_none_passes(tmp_path: Path) -> None:
    session = _session(tmp_path, [_HARMLESS])
    assert (session.returncode, session.stderr) == (0, "")
