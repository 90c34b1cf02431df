"""The demo (README.md) and the examples (docs/examples.md) as a person runs them: as processes, with and without a
terminal.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import termios
import threading
from pathlib import Path

import pytest

from devtools.servers.processes import free_port
from mqtt_token_client import ClientCredentials, TokenClient
from mqtt_token_client.testing import AuthorizationServer, Broker

COMMAND = str(Path(sysconfig.get_path("scripts"), "mqtt-token"))
EXAMPLES = Path(__file__).parents[2] / "examples"
OFFLINE = {
    "MQTT_BROKER": "mqtt://127.0.0.1:1",
    "OAUTH_ISSUER": "http://127.0.0.1:1",
    "OAUTH_CLIENT_ID": "pump-17",
    "OAUTH_CLIENT_SECRET": "nobody asks for it",
}


def test_the_demo_loses_nothing_in_15_seconds_and_rotates_twice_at_least() -> None:
    ended = subprocess.run(
        [COMMAND, "demo", "--seconds", "15", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    result = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stderr
    assert result["lost"] == 0
    assert result["rotations"] >= 2
    assert result["renewals"] >= result["rotations"]
    assert result["received"] == result["sent"] > 15 * 50 * 0.5
    assert result["gap_ms_max"] > 0


def test_ctrl_c_ends_the_demo_with_its_summary_and_without_noise() -> None:
    demo = subprocess.Popen([COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert demo.stdout is not None
        log: list[str] = []
        while "handover" not in (log or [""])[-1]:
            log.append(demo.stdout.readline())
            assert log[-1], "the demo ended by itself"
        demo.send_signal(signal.SIGINT)
        rest, errors = demo.communicate(timeout=30)
    finally:
        demo.kill()
    assert demo.returncode == 0
    summary = " ".join(rest.split())
    assert "the connection moved onto a new token" in summary
    assert "none was lost" in summary
    assert errors == ""
    assert "\x1b" not in "".join(log) + rest


def test_in_a_terminal_it_draws_a_picture_and_leaves_the_cursor_as_it_was() -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    demo = subprocess.Popen(
        [COMMAND, "demo", "--seconds", "2"], stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
    )
    os.close(its)
    seen = b""
    try:
        while chunk := _read(ours):
            seen += chunk
        demo.wait(timeout=30)
    finally:
        demo.kill()
        demo.wait()
        os.close(ours)
    picture = seen.decode()
    assert demo.returncode == 1  # no rotation in two seconds
    for part in ("mqtt-token demo", "s left", "duplicated 0", "this shows nothing"):
        assert part in picture
    assert picture.count("\x1b[?25l") == picture.count("\x1b[?25h") == 1


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux tells that the other end is closed
        return b""


def started(example: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MQTT_", "OAUTH_"))}
    return subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / f"{example}.py"), *arguments],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(example: subprocess.Popen[str], first: str) -> str:
    """Press Ctrl-C once a line matches ``first``; returns all that was printed."""
    with example:
        try:
            assert example.stdout is not None
            printed = line = example.stdout.readline()
            while not re.search(first, line):
                assert line, "it ended by itself"
                line = example.stdout.readline()
                printed += line
            example.send_signal(signal.SIGINT)
            rest, errors = example.communicate(timeout=30)
        finally:
            example.kill()
    assert example.returncode == 0
    assert "Traceback" not in errors
    return printed + rest


@pytest.mark.parametrize(
    ("example", "first"), [("publisher", "published 20.1"), ("paho_script", "echo reading 1"), ("sensor", "new token")]
)
def test_ctrl_c_ends_an_example_without_a_traceback(example: str, first: str) -> None:
    interrupted(started(example), first)


@pytest.mark.parametrize(("example", "first"), [("publisher", "ConnectFailed"), ("sensor", "Connection refused")])
def test_ctrl_c_ends_an_example_that_has_never_been_online(example: str, first: str) -> None:
    printed = interrupted(started(example, **OFFLINE), first)
    assert "published" not in printed
    assert "online" not in printed


def test_a_command_that_makes_no_sense_does_not_end_the_sensor() -> None:
    reporting = threading.Event()
    with AuthorizationServer(60) as server, Broker(server) as broker:
        source = ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret)
        operator = TokenClient(broker.url, source, client_id="operator")
        operator.subscribe("pump/17/temperature", lambda _message: reporting.set())
        with operator:
            sensor = started(
                "sensor",
                MQTT_BROKER=broker.url,
                MQTT_PROTOCOL="4",
                OAUTH_ISSUER=server.issuer,
                OAUTH_CLIENT_ID=server.client_id,
                OAUTH_CLIENT_SECRET=server.client_secret,
            )
            assert reporting.wait(30)
            for payload in ("nan", "-5", "soon", "inf"):
                operator.publish("pump/17/command/interval", payload, qos=1)
            printed = interrupted(sensor, "every 60.0 s")
    assert printed.count("reporting every 0.1 s") == 2
    assert "not a number of seconds: b'soon'" in printed


@pytest.mark.parametrize("missing", ["OAUTH_ISSUER", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET"])
def test_a_setting_that_an_example_misses_is_named_in_one_line(missing: str) -> None:
    example = started("publisher", **{name: value for name, value in OFFLINE.items() if name != missing})
    _, errors = example.communicate(timeout=30)
    assert errors.startswith(f"{missing} must be set with MQTT_BROKER")
    assert errors.count("\n") == 1
    assert example.returncode == 1


@pytest.mark.parametrize("option", ["--broker-port", "--issuer-port"])
def test_a_port_that_is_taken_is_told_in_one_line_with_the_option_that_names_another(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--broker-port": free_port(), "--issuer-port": free_port(), option: port}
        example = started("servers", *(f"{name}={number}" for name, number in ports.items()))
        _, errors = example.communicate(timeout=30)
    assert errors == f"port {port}: Address already in use; choose another port with {option}\n"
    assert example.returncode == 1
