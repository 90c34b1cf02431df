"""``mqtt-token login``, ``status``, ``token`` and ``logout``, and a script with the same file: one login for all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from devtools.servers.secret_check import remember_secret
from mqtt_token_client import Connected, Event, Rotated, TokenClient

TOKEN = r"[\w-]+\.[\w-]+\.[\w-]+"


class Device:
    """A device with its configuration file; each command is a process of its own."""

    def __init__(self, folder: Path, oidc: AuthorizationServer, mosquitto: Mosquitto) -> None:
        self.oidc = oidc
        self.file = folder / "mqtt-token.toml"
        self.file.write_text(
            f"""
            broker = "mqtt://127.0.0.1:{mosquitto.port}"
            client_id = "pump-17"
            store = "file:store"
            [source]
            type = "device_flow"
            issuer = "{oidc.issuer}"
            client_id = "{oidc.device_client_id}"
            scope = "openid offline_access {oidc.scope}"
            """
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from mqtt_token_client.cli import main; main()", *arguments],
            env={**os.environ, "MQTT_TOKEN_CONFIG": str(self.file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def log_in(self, decide: Callable[[str], None]) -> tuple[int, str]:
        """Run ``login`` and do with the user code that it shows what a person does."""
        with self.start("login") as process:
            assert process.stderr is not None
            shown = ""
            while not (code := re.search(r"\b[A-Z]{4}-[A-Z]{4}\b", shown)):
                line = process.stderr.readline()
                assert line, shown
                shown += line
            decide(code[0])
            return process.wait(60), shown + process.stderr.read()

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("status", "--json")[1])
        return answer


@pytest.fixture
def device(tmp_path: Path, oidc: AuthorizationServer, mosquitto: Mosquitto) -> Device:
    oidc.config(interval=0.2)
    return Device(tmp_path, oidc, mosquitto)


def test_one_approval_serves_the_command_the_pipe_and_the_script_until_logout(
    device: Device, oidc: AuthorizationServer
) -> None:
    code, shown = device.log_in(oidc.approve)
    assert (code, "Logged in as alice" in shown) == (0, True), shown

    found = device.status()
    assert (found["valid"], found["renewable"], found["subject"]) == (True, True, "alice")
    assert found["issuer"] == oidc.issuer
    assert found["audience"] == ["rabbitmq"]
    assert "store.key" in found["stored_in"]

    code, out, err = device.run("token")
    assert code == 0, err
    assert re.fullmatch(TOKEN, out.strip())
    remember_secret(out.strip())

    # The script takes the stored token, renews it, and the command finds the new one.
    oidc.config(at=4)
    requests = oidc.token_requests()
    events: list[Event] = []
    client = TokenClient.from_config(device.file, on_event=events.append)
    with client:
        assert oidc.token_requests() == requests
        client.rotate()
        wait_until(lambda: any(isinstance(event, Rotated) for event in events), "the rotation")
    assert any(isinstance(event, Connected) for event in events)
    renewed = device.run("token")[1].strip()
    assert renewed != out.strip()
    remember_secret(renewed)

    # After every token has expired, the refresh token is enough.
    time.sleep(max(0.0, device.status()["expires_in"]) + 0.1)
    found = device.status()
    assert (found["valid"], found["renewable"]) == (False, True)
    code, out, err = device.run("login")
    assert (code, "Logged in as alice" in err) == (0, True), err
    assert "http" not in err, "nobody is asked again"

    code, out, err = device.run("logout")
    assert (code, err) == (0, "Deleted, and revoked at the server.\n")
    code, out, _ = device.run("status")
    assert code == 3
    assert "a person has to log in" in out
    code, out, err = device.run("token")
    assert (code, out) == (3, "")
    assert "mqtt-token login" in err


def test_a_login_that_is_refused_ends_with_3_and_stores_nothing(device: Device, oidc: AuthorizationServer) -> None:
    code, shown = device.log_in(oidc.deny)
    assert code == 3
    assert "the person refused the login" in shown
    assert device.run("status")[0] == 3


def test_commands_and_scripts_that_start_at_once_make_one_request(device: Device, oidc: AuthorizationServer) -> None:
    assert device.log_in(oidc.approve)[0] == 0
    oidc.config(at=30)
    before = oidc.token_requests()
    # The first token has expired, as after a night without power: rotated refresh tokens are worth one use each.
    _age_the_stored_token(device)
    found: list[tuple[int, str, str]] = []
    threads = [threading.Thread(target=lambda: found.append(device.run("token"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [code for code, _, _ in found] == [0] * 4, found
    assert len({out for _, out, _ in found}) == 1
    remember_secret(found[0][1].strip())
    assert oidc.token_requests() == before + 1


def test_what_goes_wrong_is_one_line_and_an_exit_code(device: Device, oidc: AuthorizationServer) -> None:
    code, out, err = device.run("-h")
    assert code == 0
    oidc.stop()
    code, out, err = device.run("login")
    assert (code, out) == (1, "")
    assert err.startswith(("mqtt-token: ", "Error: "))
    assert "Connection refused" in err
    assert "Traceback" not in err
    device.file.write_text("broker = 1")
    code, out, err = device.run("token")
    assert (code, out) == (2, "")
    assert "[source]: this table is missing" in err


def _age_the_stored_token(device: Device) -> None:
    from mqtt_token_client.config import read_config
    from mqtt_token_client.token import Token

    config = read_config(device.file)
    key = config.source.key  # type: ignore[attr-defined]  # all of ours have one
    token = config.store.load(key)
    assert token is not None
    ended = Token(token.value, 1.0, refresh_token=token.refresh_token, scope=token.scope, since=token.since - 100)
    config.store.save(key, ended)
