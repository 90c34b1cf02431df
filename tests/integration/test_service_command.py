"""mqtt-token service: systemd reads its unit, and finds it hardened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devtools.servers.processes import need

MOST_EXPOSED = 20  # tenths: 2.0 of 10 in `systemd-analyze security`


def unit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mqtt_token_client", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def analyze(*arguments: str) -> str:
    need("systemd-analyze", packages="systemd")
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


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


@pytest.mark.parametrize(
    ("option", "value"), [("--name", "pump 17"), ("--credential", "a/b"), ("--name", "pump\nExecStart=/bin/sh")]
)
def test_a_name_that_would_change_the_unit_is_rejected(option: str, value: str) -> None:
    done = unit("/opt/pump.py", "-c", "/etc/pump.toml", option, value)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{option} must consist of letters, digits" in done.stderr
