# ruff: noqa: F811 - fixtures are arguments
"""mqtt-token service: systemd reads its unit, and finds it hardened; a device works with what the unit allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.servers.processes import need
from mqtt_token_client.testing import AuthorizationServer, Broker
from mqtt_token_client.testing.plugin import broker, idp  # noqa: F401 - as fixtures
from tests.integration.filtered_program import NO_FILTERS

MOST_EXPOSED = 20  # tenths: 2.0 of 10 in `systemd-analyze security`

PROGRAM = """\
import os

from mqtt_token_client import TokenClient

with TokenClient.from_config(os.environ["MQTT_TOKEN_CONFIG"]) as client:
    client.publish("pump/17/temperature", "21.5", qos=1).wait(20)
"""


def unit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mqtt_token_client", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def analyze(*arguments: str) -> str:
    need("systemd-analyze", packages="systemd")
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def calls(name: str) -> set[str]:
    """A system call, or those of a group."""
    if not name.startswith("@"):
        return {name}
    listed = {line.strip() for line in analyze("syscall-filter", name).splitlines() if line}
    return set[str]().union(*(calls(one) for one in listed if one != name and not one.startswith("#")))


def allowed_calls(lines: list[str]) -> set[str]:
    """What the lines of a unit leave, in their order (systemd.exec(5))."""
    allowed = calls("@default")
    for line in lines:
        setting, _, names = line.partition("=")
        if setting == "SystemCallFilter":
            named = set[str]().union(*map(calls, names.removeprefix("~").split()))
            allowed = allowed - named if names.startswith("~") else allowed | named
    return allowed - calls("@clock") if "ProtectClock=yes" in lines else allowed


@pytest.fixture
def script(tmp_path: Path) -> Path:
    script = tmp_path / 'a "folder" of 100 %' / "pump.py"
    script.parent.mkdir()
    script.write_text("")
    return script


def test_the_unit_is_valid_whatever_the_paths_are_and_hardened(script: Path, tmp_path: Path) -> None:
    written = unit(str(script), "-c", str(script.parent / "pump.toml"), "--credential", "pump-secret")
    assert written.returncode == 0, written.stderr
    file = tmp_path / "pump.service"
    file.write_text(written.stdout)
    assert analyze("verify", str(file)) == ""
    analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(file))


def test_the_unit_has_a_watchdog_a_state_folder_and_the_credential() -> None:
    lines = unit("/opt/pump.py", "-c", "/etc/pump.toml", "--credential", "pump-secret").stdout.splitlines()
    assert {
        "Type=notify",
        f"ExecStart={sys.executable} /opt/pump.py",
        "Environment=MQTT_TOKEN_CONFIG=/etc/pump.toml",
        "LoadCredentialEncrypted=pump-secret",
        "WatchdogSec=120",
        "Restart=always",
        "DynamicUser=yes",
        "StateDirectory=pump",
    } <= set(lines)


def test_a_device_with_a_journal_makes_no_system_call_that_the_unit_denies(
    idp: AuthorizationServer, broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(idp.client_secret)
    (tmp_path / "secret").chmod(0o600)
    top = {"broker": broker.url, "client_id": "pump-17", "store": f"file:{tmp_path / 'store'}"}
    top["journal"] = str(tmp_path / "journal")
    source = {"type": "client_credentials", "issuer": idp.issuer, "client_id": idp.client_id}
    source["client_secret_file"] = "secret"
    tables = ("\n".join(f"{name} = {json.dumps(value)}" for name, value in table.items()) for table in (top, source))
    config = tmp_path / "pump.toml"
    config.write_text("\n[source]\n".join(tables))
    allowed = allowed_calls(unit("/opt/pump.py", "-c", str(config)).stdout.splitlines())
    if os.geteuid() == 0:
        allowed.add("fchown")  # SQLite calls it for root, which the service is not
    filtered = Path(__file__).parent / "filtered_program.py"
    command = [sys.executable, str(filtered), ",".join(allowed), sys.executable, "-c", PROGRAM]
    environment = os.environ | {"MQTT_TOKEN_CONFIG": str(config)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    if done.returncode == NO_FILTERS:
        pytest.skip("this machine cannot filter system calls: its kernel has no seccomp, or libseccomp.so.2 is missing")
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"  # -31: killed by SIGSYS
    assert [message.payload for message in broker.messages("pump/#", count=1)] == [b"21.5"]


def test_a_call_that_the_unit_denies_fails_and_does_not_end_the_service() -> None:
    assert "SystemCallErrorNumber=EPERM" in unit("/opt/pump.py", "-c", "/etc/pump.toml").stdout.splitlines()


def test_a_device_can_tell_under_the_unit_which_boot_it_is() -> None:
    lines = unit("/opt/pump.py", "-c", "/etc/pump.toml").stdout.splitlines()
    assert not {line for line in lines if line.startswith("ProcSubset=")} - {"ProcSubset=all"}  # it hides boot_id


@pytest.mark.parametrize(
    ("option", "value"), [("--name", "pump 17"), ("--credential", "a/b"), ("--name", "pump\nExecStart=/bin/sh")]
)
def test_a_name_that_would_change_the_unit_is_rejected(option: str, value: str) -> None:
    done = unit("/opt/pump.py", "-c", "/etc/pump.toml", option, value)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{option} must consist of letters, digits" in done.stderr
