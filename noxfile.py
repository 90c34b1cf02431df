"""The unit tests on every Python that is here, and the contract with paho on the oldest and the newest paho."""

from __future__ import annotations

import subprocess

import nox

nox.options.reuse_existing_virtualenvs = True


def _runs(python: str) -> bool:
    """Whether an interpreter starts: a version manager puts stand-ins on the PATH for some that would not."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603 - ours
    except OSError:
        return False


PYTHONS = [version for version in ("3.11", "3.12", "3.13") if _runs(f"python{version}")]


@nox.session(python=PYTHONS)
def unit(session: nox.Session) -> None:
    session.install("-e", ".[demo,proxy]", "--group", "test")
    session.run("pytest", "tests/unit", *session.posargs)


@nox.session(python=PYTHONS[:1])
@nox.parametrize("paho", ["== 2.1.0", "< 3"], ids=["oldest", "newest"])
def paho(session: nox.Session, paho: str) -> None:
    session.install("-e", ".", "--group", "test", f"paho-mqtt {paho}", "--upgrade")
    session.run("pytest", "tests/unit/test_paho_contract.py", *session.posargs)
