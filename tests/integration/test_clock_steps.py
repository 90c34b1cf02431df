"""Rule 1: a step of the wall clock changes nothing. A real process whose wall clock is stepped by libfaketime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.wrong_clock import WrongClock

YEAR = 365 * 24 * 3600
SECONDS, LIFE = 12, 4


@pytest.mark.parametrize("step", [YEAR, -YEAR, -50 * YEAR])
def test_a_clock_that_steps_by_years_costs_no_message_no_connection_and_no_extra_token(
    step: int, oidc: AuthorizationServer, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    clock = WrongClock(tmp_path / "now")
    clock.set(0)
    oidc.config(at=LIFE)
    name = f"stepped{step}"
    told = {
        "broker": f"mqtt://127.0.0.1:{mosquitto.port}",
        "issuer": oidc.issuer,
        "client_id": oidc.client_id,
        "client_secret": oidc.client_secret,
        "name": name,
        "seconds": SECONDS,
        "clock": str(clock.file),
        "step": f"{step:+d}",
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "stepped_device.py")],
        input=json.dumps(told),
        env=clock.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert abs(result["stepped"] - step) < 60  # the process did see its clock step
    assert result["lost"] == 0
    assert result["unwanted"] == []
    assert SECONDS // LIFE <= result["rotations"] <= 2 * SECONDS / LIFE
    assert oidc.token_requests() == result["rotations"] + 1
    assert mosquitto.refused(name) == 0
