"""What an import loads: a small device pays for nothing that it does not use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_NEVER = {
    "requests",
    "urllib3",
    "keyring",
    "cryptography",
    "jwt",
    "watchdog",
    "python_socks",
    "wsproto",
    "h11",
    "click",
    "rich",
    "segno",
    "flask",
    "authlib",
    "amqtt",
    "asyncio",
}


def _loaded_by(statement: str) -> tuple[set[str], int]:
    """The top-level modules that a statement loads in a fresh process, and how many threads run after it."""
    program = (
        f"import json, sys, threading; before = set(sys.modules); {statement}; "
        "print(json.dumps([sorted(set(sys.modules) - before), threading.active_count()]))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    modules, threads = json.loads(result.stdout)
    return {name.split(".")[0] for name in modules}, threads


@pytest.mark.parametrize("module", ["mqtt_token_client", "mqtt_token_client.client"])
def test_the_library_loads_nothing_that_a_client_may_not_need_and_starts_no_thread(module: str) -> None:
    loaded, threads = _loaded_by(f"import {module}")
    assert "mqtt_token_client" in loaded
    assert loaded & _NEVER == set()
    assert threads == 1


def test_what_is_looked_for_would_be_found() -> None:
    loaded, _ = _loaded_by("import requests, asyncio")
    assert {"requests", "urllib3", "asyncio"} <= loaded
