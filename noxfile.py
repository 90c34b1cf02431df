"""The unit tests with coverage, and on the other Pythons of this machine; those of what uses a dependency on the lowest
versions that are allowed and on those of Debian 13; the contract with paho-mqtt on its oldest and its newest version;
and the example for Home Assistant in the real one.
"""

from __future__ import annotations

import subprocess
import sys

import nox

nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "uv"

PINNED = ("--constraint", "constraints.txt", "--build-constraint", "constraints.txt")


def _runs(python: str) -> bool:
    """Whether an interpreter starts: a version manager puts stand-ins on the PATH for some that would not."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603 - ours
    except OSError:
        return False


HERE = f"{sys.version_info.major}.{sys.version_info.minor}"  # on which `make test` runs everything
OTHERS = [version for version in ("3.11", "3.12", "3.13", "3.14") if version != HERE and _runs(f"python{version}")]
DEBIAN_13 = "3.13" if _runs("python3.13") else HERE
HOME_ASSISTANT = ["3.13"] if _runs("python3.13") else []
# What depends on paho: its tables and its matcher, and what is built on them.
ON_PAHO = (
    "paho_contract",
    "properties",
    "codec",
    "will",
    "packet_sizes",
    "session",
    "subscriptions",
    "connection_model",
    "contrib_paho",
)
ON_CRYPTOGRAPHY = ("signed_jwt", "client_assertion", "file_store", "mutual_tls", "tls_files", "private_files", "config")
ON_DEPENDENCIES = (
    *("paho_contract", "properties", "codec", "will", "packet_sizes", "session", "subscriptions", "contrib_paho"),
    *("http", "http_errors", "discovery", "token_endpoint", "client_credentials", "scopes", "secret_files"),  # requests
    *("device_flow", "signed_jwt", "client_assertion", "mutual_tls"),  # PyJWT
    *("file_store", "tls_files", "private_files", "renewed_certificates", "record"),  # cryptography
    *("keyring_store", "open_store"),
    *("cli", "cli_init", "cli_journal", "cli_login", "config", "terminal"),  # click, rich, segno
    *("testing", "testing_state", "testing_plugin", "testing_refresh_tokens", "identity_providers"),  # Authlib, Flask
    *("token_file", "websocket", "open_transport", "import_cost"),  # watchdog, wsproto
)


def _files(names: tuple[str, ...]) -> list[str]:
    return [f"tests/unit/test_{name}.py" for name in names]


@nox.session(python=OTHERS)
def unit(session: nox.Session) -> None:
    session.install(*PINNED, "-e", ".[demo,proxy,websocket]", "--group", "test")
    session.run("pytest", "tests/unit", *session.posargs)


@nox.session(venv_backend="none")
def coverage(session: nox.Session) -> None:
    """How much of the library the unit tests run, in the environment of `make test`."""
    session.run("scripts/test", "--coverage")


@nox.session(python=HERE)
@nox.parametrize("paho", ["== 2.1.0", "< 3"], ids=["oldest", "newest"])
def paho(session: nox.Session, paho: str) -> None:
    session.install(*PINNED, "-e", ".[demo]", "--group", "test")
    session.install("--upgrade", f"paho-mqtt {paho}")
    session.run("pytest", *_files(ON_PAHO), *session.posargs)


@nox.session(python=HERE)
def lowest(session: nox.Session) -> None:
    """With the lowest versions that pyproject.toml allows, and the newest tools: an old hypothesis takes minutes. All
    unit tests take several minutes: ``nox -s lowest -- tests/unit``.
    """
    session.install("--resolution", "lowest-direct", "-e", ".[demo,proxy,websocket,watch]")
    session.install("--group", "test")
    session.run("pytest", *(session.posargs or _files(ON_DEPENDENCIES)))


@nox.session(python=DEBIAN_13)
def debian13(session: nox.Session) -> None:
    """With what Debian 13 has, and its Python where that is here.

    Its Authlib is too old for the servers of the tests, and newer ones need a newer cryptography: what uses it
    is tested with Debian's before these are upgraded.
    """
    own = "-e", ".[cli,proxy,websocket,watch]", "Authlib", "Flask", "joserfc"
    session.install("--constraint", "devtools/debian13.txt", *own, "--group", "test")
    session.run("pytest", *_files(ON_CRYPTOGRAPHY))
    session.install("--upgrade-package", "Authlib", "-e", ".[testing]")
    session.run("pytest", *(session.posargs or _files(ON_DEPENDENCIES)))


@nox.session(python=HOME_ASSISTANT)
def home_assistant(session: nox.Session) -> None:
    """The example in a real Home Assistant: its types and its tests."""
    overrides = "--override", "devtools/home_assistant.txt", "--build-constraint", "constraints.txt"
    session.install(*overrides, "pytest-homeassistant-custom-component == 0.13.236", "-e", ".[testing,websocket]")
    session.install(*PINNED, "mypy")
    types = "--explicit-package-bases", "--follow-imports=silent", "--python-version", str(session.python)
    session.run("mypy", *types, "examples/home_assistant", env={"MYPYPATH": "examples/home_assistant"})
    asyncio = "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"
    session.run("pytest", *asyncio, "tests/home_assistant", *session.posargs)


@nox.session(python=HERE)
def package(session: nox.Session) -> None:
    """What would be published: built twice, the same each time, and checked."""
    session.install(*PINNED, "build", "check-wheel-contents", "pyroma", "twine")
    session.run("scripts/release", external=True)


@nox.session(python=HERE)
def docs(session: nox.Session) -> None:
    """The site, with every link checked."""
    session.install("mkdocs-material >= 9.6", "mkdocstrings[python] >= 0.29")
    session.run("mkdocs", "build", "--quiet", "--site-dir", session.create_tmp(), env={"NO_MKDOCS_2_WARNING": "1"})
