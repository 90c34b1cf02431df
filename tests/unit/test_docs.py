"""Every Python block of the documents runs as it is, without a network; the map of the rules names tests that exist."""

from __future__ import annotations

import re
import socket
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
import requests
from cryptography.fernet import Fernet

import mqtt_token_client
from devtools.servers.keys import Keys
from devtools.servers.pki import Pki
from devtools.servers.secret_check import remember_secret
from mqtt_token_client import Delivery, SignedJWT, Token, TokenClient, TokenSource
from tests.unit.documented import ROOT, Block, blocks

OPAQUE = "an-opaque-token-of-the-plant"
COMPLETE = ("docs/brokers.md",)
# Documents with fragments, and what these leave out.
FRAGMENTS: dict[str, dict[str, Any]] = {
    "README.md": {},
    "docs/command.md": {},
    "docs/sources.md": {
        "secret": "the secret of the documents",
        "show": lambda login: None,
        "display": SimpleNamespace(draw=lambda *_arguments, **_named: None),
        "ask_our_cloud": lambda: {"token": OPAQUE, "seconds": 60},
    },
    "docs/gateway.md": {},
    "docs/paho.md": {},
    "docs/processes.md": {},
    "docs/stores.md": {"key_from_elsewhere": Fernet.generate_key()},
}
_ENVIRONMENT = ("PUMP_SECRET", "DASHBOARD_SECRET", "GATEWAY_SECRET", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")


PYTHON = [block for document in (*COMPLETE, *FRAGMENTS) for block in blocks(document, "python")]


class Made:
    """The clients that were made, each with its token source."""

    def __init__(self) -> None:
        self.clients: list[tuple[TokenClient, TokenSource]] = []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Clients that are made as usual, and then never connect."""
    made, make = Made(), TokenClient.__init__

    def remember(self: TokenClient, broker: Any, tokens: Any, **arguments: Any) -> None:
        make(self, broker, tokens, **arguments)
        made.clients.append((self, tokens))

    monkeypatch.setattr(TokenClient, "__init__", remember)
    monkeypatch.setattr(TokenClient, "connect", lambda self, timeout=30.0: True)
    monkeypatch.setattr(Delivery, "wait", lambda self, timeout=None: None)
    return made


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("a block of a document opens a connection")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: Keys, pki: Pki) -> Iterator[None]:
    """The files and the environment that the documents use; a file with an absolute path is here by its name alone."""
    for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name in _ENVIRONMENT:
        monkeypatch.setenv(name, "the secret of the documents")
    remember_secret("the secret of the documents")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("device.pem").write_bytes((keys.folder / "client.pem").read_bytes())
    for name in ("plant-ca.pem", "AmazonRootCA1.pem", "ca.crt"):
        Path(name).write_bytes(Path(pki.ca).read_bytes())
    (configuration,) = blocks("docs/command.md", "toml")
    Path("mqtt-token.toml").write_text(configuration.code)
    create = ssl.create_default_context

    def create_default_context(*arguments: Any, **named: Any) -> ssl.SSLContext:
        if (named.get("cafile") or "").startswith("/var/run/certs/"):
            named["cafile"] = Path(named["cafile"]).name
        return create(*arguments, **named)

    monkeypatch.setattr(ssl, "create_default_context", create_default_context)
    monkeypatch.setattr("mqtt_token_client.tls_files.check_path", lambda _name, _path: None)
    yield
    assert not list(tmp_path.rglob("*.token")), "a block of a document stored a token"


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own server, which issues tokens over HTTP."""
    answer = SimpleNamespace(
        raise_for_status=lambda: None, text=token_for("plant"), json=lambda: {"token": OPAQUE, "seconds": 3600}
    )
    monkeypatch.setattr(requests, "post", lambda _url, *, auth, timeout: answer)


def token_for(audience: str) -> str:
    now = int(time.time())
    claims = {"sub": "pump-17", "aud": audience, "iat": now, "exp": now + 3600}
    value = jwt.encode(claims, "the key of an issuer that nobody knows", algorithm="HS256")
    remember_secret(value)
    return value


def test_there_is_a_block_for_each_profile() -> None:
    text = "".join(block.code for block in blocks("docs/brokers.md", "python"))
    for name, (_file, class_name) in mqtt_token_client.profiles.PROFILES.items():
        assert f'profile="{name}"' in text or f"profile={class_name}(" in text, name


@pytest.mark.parametrize("document", COMPLETE)
def test_a_block_of_brokers_is_a_whole_program(document: str) -> None:
    for block in blocks(document, "python"):
        assert "import " in block.code, block
        assert "..." not in block.code, block
        assert "…" not in block.code, block


@pytest.mark.parametrize("block", PYTHON, ids=str)
@pytest.mark.usefixtures("plant")
def test_a_block_of_a_document_runs(block: Block, made: Made) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    if block.document in FRAGMENTS:
        exec("from mqtt_token_client import *", names)
        names |= FRAGMENTS[block.document]
    block.run(names)
    if block.document in COMPLETE:
        assert made.clients, "it makes no client"
    for client, source in made.clients:
        takes_what_its_source_makes(client, source)
    if callable(names.get("FromOurCloud")):
        assert names["FromOurCloud"]().fetch(None) == Token(OPAQUE, 60)


def takes_what_its_source_makes(client: TokenClient, source: TokenSource) -> None:
    """Without a request: the token that the block itself makes, or one as a server would make it."""
    settings = client._settings
    own = isinstance(source, SignedJWT) or type(source).__module__ == "__main__"
    token = source.fetch(None) if own else Token(token_for("plant"))
    remember_secret(token.value)
    placed = settings.profile.place(token, settings.client_id)
    parts = [placed.username or "", (placed.password or b"").decode(), (placed.auth_data or b"").decode()]
    assert any(token.value in part for part in (*parts, *placed.headers.values()))


def test_the_hooks_of_a_worker_use_a_client_with_the_name_of_its_process(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    for block in blocks("docs/processes.md", "python"):
        block.run(names)
    worker = SimpleNamespace()
    for pid in (7, 8):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        names["post_fork"](None, worker)
        names["worker_exit"](None, worker)
    settings = [client._settings for client, _ in made.clients]
    assert [made_for.client_id.rpartition("-")[2] for made_for in settings] == ["7", "8"]
    assert {made_for.session_expiry for made_for in settings} == {60}


def test_a_wrong_name_of_an_argument_in_a_block_is_found(made: Made) -> None:
    block = blocks("docs/brokers.md", "python")[0]
    broken = Block(block.document, block.line, "python", block.code.replace("scope=", "scopes="))
    with pytest.raises(TypeError, match="scopes"):
        broken.run({"__name__": "__main__"})
    assert not made.clients


def test_the_documents_show_no_token() -> None:
    start = urlsafe_b64encode(b'{"alg').decode()[:6]
    for document in (*COMPLETE, *FRAGMENTS):
        assert start not in (ROOT / document).read_text(), document


def test_the_map_of_the_rules_names_tests_that_exist() -> None:
    text = " ".join((ROOT / "docs/rules.md").read_text().split())
    files = re.findall(r"`((?:unit|integration)/\S+\.py)`", text)
    assert len(files) > 30, "the map is read wrongly"
    for name in files:
        assert list((ROOT / "tests").glob(name)), name
    for name, classes in re.findall(r"`(\S+\.py)`: (`\w+`(?:, `\w+`)*)", text):
        for class_name in re.findall(r"\w+", classes):
            assert f"class {class_name}" in (ROOT / "tests" / name).read_text(), f"{name}: {class_name}"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs"])
def test_a_link_within_the_documents_leads_to_a_file(document: str) -> None:
    path = ROOT / document
    for page in [path] if path.is_file() else path.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"
