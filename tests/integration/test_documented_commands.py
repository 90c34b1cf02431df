"""The shell blocks of docs/shell.md, command.md, troubleshooting.md, service.md, stores.md and brokers.md run as they
are, on real servers. ``sudo`` only runs its command here, and paths of the system lie in a temporary folder.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from devtools.servers.documented import documented
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.processes import Process, accepts, free_port, need, wait_until
from devtools.servers.secret_check import remember_secret
from mqtt_token_client import ClientCredentials, Message, Password, SignedJWT, TlsFiles, TokenClient
from tests.unit.documented import ROOT, blocks

Shell = Callable[[str], "subprocess.Popen[bytes]"]
STUBS = {
    "mqtt-token": f'exec {sys.executable} -m mqtt_token_client "$@"',
    "sudo": 'exec "$@"',
    "systemctl": 'echo "$@" >>systemctl.log',
    "systemd-creds": 'for last; do :; done; cat >"$last"',  # the real one would need root, and a key of the machine
    "journalctl": 'echo "{}"; echo "{}"',
    "jq": "cat",  # the real one writes late into a pipe
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """``shell(code)`` starts a shell in the temporary folder; what still runs at the end is killed."""
    need("bash", packages="bash")
    (tmp_path / "bin").mkdir()
    for name, code in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{code}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def start(code: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    started: list[subprocess.Popen[bytes]] = []
    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def succeed(process: subprocess.Popen[bytes]) -> str:
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error.decode()
    return out.decode()


def lines(document: str, number: int = 0) -> list[str]:
    """The commands of a shell block, each in a line."""
    code = blocks(document, "sh")[number].code.replace("\\\n", " ")
    return [line for line in code.splitlines() if line.strip()]


@pytest.fixture
def device_file(tmp_path: Path, oidc: AuthorizationServer, mosquitto: Mosquitto) -> None:
    """The device's file of docs/command.md, with a secret instead of a person."""
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_text(oidc.client_secret)
    (tmp_path / "mqtt-token.toml").write_text(f"""\
broker = "mqtt://127.0.0.1:{mosquitto.port}"
client_id = "pump-17"
store = "file:store"
[source]
type = "client_credentials"
issuer = "{oidc.issuer}"
client_id = "{oidc.client_id}"
client_secret_file = "secret"
""")


def answers(oidc: AuthorizationServer, mosquitto: Mosquitto) -> TokenClient:
    """A device that answers requests of its temperature."""
    source = ClientCredentials(issuer=oidc.issuer, client_id=oidc.client_id, client_secret=oidc.client_secret)
    client = TokenClient(f"mqtt://127.0.0.1:{mosquitto.port}", source, client_id="answers")

    def answer(message: Message) -> None:
        correlation = {"correlation_data": message.properties["correlation_data"]}
        client.publish(message.properties["response_topic"], b"21.5", qos=1, properties=correlation)

    client.subscribe("pump/17/get", answer)
    return client


@pytest.mark.usefixtures("device_file")
def test_the_commands_for_messages(
    shell: Shell, tmp_path: Path, oidc: AuthorizationServer, mosquitto: Mosquitto
) -> None:
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8")
    commands = [line.replace("-W 10", "-W 60") for line in lines("docs/shell.md")]
    subscribers = {line: shell(line) for line in commands if line.startswith("mqtt-token sub")}
    one_message = [process for line, process in subscribers.items() if "-C 1" in line]
    for topic in (r"pump/\+/temperature", "pump/17/state", "pump/#"):
        wanted = sum(topic.replace("\\", "") in line for line in subscribers)
        assert wanted
        wait_until(
            lambda topic=topic, wanted=wanted: mosquitto.count(rf"{topic} \(QoS") >= wanted,  # type: ignore[misc]
            f"{wanted} subscriptions to {topic}",
        )
    with answers(oidc, mosquitto):
        wait_until(lambda: mosquitto.count(r"pump/17/get \(QoS") > 0, "the device that answers")
        others = [line.replace("--delay 0.1", "--delay 0.001") for line in commands if line not in subscribers]
        succeed(shell("mqtt-token pub -t pump/17/state -m running"))
        outputs = [succeed(process) for process in [shell(line) for line in others]]
    assert outputs[-1] == "21.5\n"
    assert [succeed(process) for process in one_message] == ["running\n"]
    for line, process in subscribers.items():
        if process not in one_message:
            until_interrupted(process, b"" if "--stats" in line else b"21.5")


def until_interrupted(process: subprocess.Popen[bytes], shows: bytes) -> None:
    """Wait for a line with these words, if any, of a command that runs until Ctrl-C, and then press that."""
    assert process.stdout is not None
    assert not shows or any(shows in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)


def test_the_commands_for_a_login(shell: Shell, tmp_path: Path, oidc: AuthorizationServer) -> None:
    (toml,) = blocks("docs/command.md", "toml")
    code = toml.code.replace("https://id.example.com/realms/plant", oidc.issuer).replace(" mqtt", f" {oidc.scope}")
    (tmp_path / "mqtt-token.toml").write_text(code.replace('"pumps"', f'"{oidc.device_client_id}"'))
    oidc.config(interval=0.2)
    (code,) = [block.code for block in blocks("docs/command.md", "sh") if "mqtt-token login" in block.code]
    login, *others = code.splitlines()
    process = shell(login)
    assert process.stderr is not None
    shown = ""
    while not (found := re.search(r"\b[A-Z]{4}-[A-Z]{4}\b", shown)):
        shown += (said := process.stderr.readline().decode())
        assert said, shown
    oidc.approve(found[0])
    succeed(process)
    watch = next(line for line in others if "--watch" in line)
    others.remove(watch)
    until_interrupted(shell(watch), b"valid")
    status, token, logout = (succeed(shell(line)) for line in others)
    remember_secret(token.strip())
    assert "alice" in status
    assert token.count(".") == 2
    assert "logged out" in logout.lower() or logout == ""


@pytest.mark.usefixtures("device_file")
def test_the_command_that_finds_the_cause(shell: Shell) -> None:
    (doctor,) = lines("docs/troubleshooting.md")
    succeed(shell(doctor))


def test_the_commands_that_install_a_service(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    code = blocks("docs/service.md", "sh")[0].code.replace(" /etc/", f" {tmp_path}/etc/")
    succeed(shell(code))
    assert (tmp_path / "etc/credstore.encrypted/pump-secret").read_text() == "the client secret"
    assert (tmp_path / "systemctl.log").read_text() == "daemon-reload\nenable --now pump\n"
    assert_valid(tmp_path / "etc/systemd/system/pump.service")


def test_the_commands_and_the_unit_of_a_key_that_only_this_machine_can_read(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "etc/credstore.encrypted").mkdir(parents=True)
    code = blocks("docs/stores.md", "sh")[0].code.replace(" /etc/", f" {tmp_path}/etc/")
    succeed(shell(code.replace("python3 ", f"{sys.executable} ")))
    key = (tmp_path / "etc/credstore.encrypted/mqtt-token-client.key").read_text().strip()
    assert Fernet(key).decrypt(Fernet(key).encrypt(b"a token")) == b"a token"
    (unit,) = blocks("docs/stores.md", "ini")
    (tmp_path / "pump.service").write_text(unit.code.replace("/opt/pump/bin/pump", sys.executable))
    assert_valid(tmp_path / "pump.service")


def test_the_units_of_the_tutorial_are_valid() -> None:
    assert_valid(ROOT / "examples/one_machine/etc/systemd/system/keycloak.service")


def assert_valid(unit: Path) -> None:
    need("systemd-analyze", packages="systemd")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_commands_that_make_a_devices_key(shell: Shell, tmp_path: Path) -> None:
    need("openssl", packages="openssl")
    (code,) = [block.code for block in blocks("docs/brokers.md", "sh") if "openssl" in block.code]
    succeed(shell(code))
    token = SignedJWT(tmp_path / "device.pem", "ES256", {"aud": "plant"}, lifetime=60).fetch(None)
    remember_secret(token.value)
    assert (tmp_path / "device.pub.pem").read_text().startswith("-----BEGIN PUBLIC KEY")


def test_mosquitto_with_the_documented_plugin_and_settings_accepts_a_token(
    shell: Shell, tmp_path: Path, keys: Keys, pki: Pki
) -> None:
    need("mosquitto", "gcc", packages="mosquitto mosquitto-dev libcjson-dev libssl-dev gcc libc6-dev")
    (code,) = [block.code for block in blocks("docs/brokers.md", "sh") if "gcc -O2" in block.code]
    build = code.splitlines()[-1].replace("/usr/local/lib", str(tmp_path)).replace("devtools", f"{ROOT}/devtools")
    succeed(shell(build))
    port = free_port()
    replaced = {
        "8883": f"{port} 127.0.0.1",
        "/etc/mosquitto/server.crt": str(pki.server.certificate),
        "/etc/mosquitto/server.key": str(pki.server.key),
        "/usr/local/lib": str(tmp_path),
        "/etc/mosquitto/plant.pem": str(keys.public[0]),
    }
    (tmp_path / "mosquitto.conf").write_text("user root\n" + documented("Mosquitto", "conf", replaced))
    broker = Process("mosquitto", ["mosquitto", "-c", str(tmp_path / "mosquitto.conf")], tmp_path / "mosquitto.log")
    broker.start(lambda: accepts(port))
    try:
        own = SignedJWT(keys.folder / "rs.pem", "RS256", {"sub": "pump-17", "aud": "mqtt"}, lifetime=60)
        url, profile, tls = f"mqtts://localhost:{port}", Password(username_claim="sub"), TlsFiles(ca_bundle=pki.ca)
        with TokenClient(url, own, client_id="pump-17", profile=profile, tls=tls) as client:
            client.publish("pump/17/temperature", "21.5", qos=1).wait(20)
    finally:
        broker.stop()
