"""What an import loads: a small device pays for nothing that it does not use."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mqtt_token_client

_NEVER = {
    "requests",
    "urllib3",
    "keyring",
    "cryptography",
    "jwt",
    "watchdog",
    "wsproto",
    "h11",
    "click",
    "rich",
    "segno",
    "flask",
    "authlib",
    "asyncio",
    "html",
}


def _loaded_by(statement: str) -> tuple[set[str], int]:
    """The top-level modules that a statement loads in a fresh process, and how many threads run after it."""
    modules, threads = _run(statement)
    return {name.split(".")[0] for name in modules}, threads


def _modules_loaded_by(statement: str) -> set[str]:
    return set(_run(statement)[0])


def _run(statement: str) -> tuple[list[str], int]:
    program = (
        f"import json, sys, threading; before = set(sys.modules); {statement}; "
        "print(json.dumps([sorted(set(sys.modules) - before), threading.active_count()]))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    modules, threads = json.loads(result.stdout)
    return modules, threads


@pytest.mark.parametrize(
    "statement",
    [
        "import mqtt_token_client",
        "import mqtt_token_client.client",
        "from mqtt_token_client import TokenClient, ClientCredentials, DeviceFlow, SignedJWT, FileStore, KeyringStore",
        "from mqtt_token_client import *",
    ],
)
def test_the_library_loads_nothing_that_a_client_may_not_need_and_starts_no_thread(statement: str) -> None:
    loaded, threads = _loaded_by(statement)
    assert "mqtt_token_client" in loaded
    assert loaded & _NEVER == ({"asyncio"} if "*" in statement else set())  # that loads AsyncTokenClient
    assert threads == 1


def test_tokens_without_mqtt_load_no_mqtt_client() -> None:
    loaded, _ = _loaded_by("from mqtt_token_client import ClientCredentials, FileStore, TokenKeeper")
    assert "mqtt_token_client" in loaded
    assert "paho" not in loaded


def test_what_connects_is_loaded_with_the_first_client_and_the_client_of_paho_never() -> None:
    connects = {"mqtt_token_client.core", "mqtt_token_client.mqtt.transport.connection"}
    imported = "from mqtt_token_client import TokenClient, TokenFile, Will"
    assert not _modules_loaded_by(imported) & connects
    client = "TokenClient('mqtt://localhost', TokenFile('token'), client_id='pump', will=Will('a', b'b'))"
    loaded = _modules_loaded_by(f"{imported}; client = {client}; client.connect(0); client.disconnect(0)")
    assert connects <= loaded
    assert "paho.mqtt.client" not in loaded


@pytest.mark.parametrize(
    "arguments",
    [
        "'mqtt://localhost:1', TokenFile('token')",
        "'mqtts://localhost:1', ClientCredentials(token_endpoint='https://h', client_id='a', client_secret='b')",
        "'wss://localhost:1/mqtt', TokenFile('token'), will=Will('a', b'b'), proxy='http://localhost:1'",
        "'mqtt://localhost:1', TokenFile('token'), journal=open_journal('outbox.db')",
    ],
)
def test_connect_and_disconnect_import_nothing(arguments: str, tmp_path: Path) -> None:
    """They hold a lock, for which a signal handler or another thread would wait meanwhile; and where another thread
    forks, the child would wait for that import forever.
    """
    names = "ClientCredentials, TokenClient, TokenFile, Will, open_journal"
    program = f"""\
import sys, threading
from mqtt_token_client import {names}
client = TokenClient({arguments}, client_id="pump")

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            print(name)

sys.meta_path.insert(0, Finder)
client.connect(0)
client.disconnect(0)
sys.meta_path.remove(Finder)
"""
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout.split() == []


def test_a_client_loads_no_source_and_no_store_but_those_it_is_given() -> None:
    loaded = _modules_loaded_by("from mqtt_token_client import ClientCredentials, TokenClient")
    assert "mqtt_token_client.sources.oauth.client_credentials" in loaded
    assert not {name for name in loaded if "device" in name or "signed_jwt" in name or name.endswith(".keyring")}


_CLIENT = "from mqtt_token_client import ClientCredentials, TokenClient"


def test_a_client_loads_nothing_that_compiles_code_for_its_classes() -> None:
    compiling = {"ast", "dataclasses", "inspect"} - _modules_loaded_by("import logging")  # which does, from 3.14 on
    assert not _modules_loaded_by(_CLIENT) & compiling
    source = "ClientCredentials(token_endpoint='https://localhost', client_id='a', client_secret='b')"
    client = f"TokenClient('mqtt://localhost', {source}, client_id='pump', will=Will('a', b'b'), allow_insecure=True)"
    loaded = _modules_loaded_by(f"{_CLIENT}, Will; client = {client}")
    assert not loaded & compiling & {"dataclasses"}


def test_a_client_loads_no_more_modules_than_it_needs() -> None:
    loaded = _modules_loaded_by(_CLIENT)
    ours = {name for name in loaded if name.startswith("mqtt_token_client")}
    assert len(ours) <= 64  # each costs about 0.3 ms: load what only some clients use when they do
    assert not loaded & {"hashlib", "queue", "mqtt_token_client.mqtt.transport.proxy"}


def test_every_public_name_is_where_a_type_checker_finds_it() -> None:
    source = Path(mqtt_token_client.__file__).read_text()
    found = {
        alias.name: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert found == mqtt_token_client._HOMES
    assert set(dir(mqtt_token_client)) == {"__version__", *found}
    for name in found:
        assert getattr(mqtt_token_client, name).__name__ == name


def test_a_missing_name_is_reported_as_usual() -> None:
    with pytest.raises(AttributeError, match="module 'mqtt_token_client' has no attribute 'TokenCleint'"):
        _ = mqtt_token_client.TokenCleint  # type: ignore[attr-defined]


def test_what_is_looked_for_would_be_found() -> None:
    loaded, _ = _loaded_by("import requests, asyncio")
    assert {"requests", "urllib3", "asyncio"} <= loaded
