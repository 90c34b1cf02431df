"""Rule 1: a step of the wall clock changes nothing. A real process whose wall clock is stepped by libfaketime."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.wrong_clock import WrongClock

YEAR = 365 * 24 * 3600
STEPS = (YEAR, -YEAR, -50 * YEAR)
SECONDS, LIFE = 12, 4


def test_a_clock_that_steps_by_years_costs_no_message_no_connection_and_no_extra_token(
    oidc: AuthorizationServer, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    oidc.config(at=LIFE)
    with ThreadPoolExecutor(len(STEPS)) as pool:
        run = functools.partial(_stepped, oidc=oidc, mosquitto=mosquitto, folder=tmp_path)
        results = dict(zip(STEPS, pool.map(run, STEPS), strict=True))
    for step, result in results.items():
        assert abs(result["stepped"] - step) < 60  # the process did see its clock step
        assert (result["lost"], result["unwanted"]) == (0, []), step
        assert SECONDS // LIFE <= result["rotations"] <= 2 * SECONDS / LIFE, step
        assert mosquitto.refused(f"stepped{step}") == 0
    assert oidc.token_requests() == sum(result["rotations"] + 1 for result in results.values())


def _stepped(step: int, *, oidc: AuthorizationServer, mosquitto: Mosquitto, folder: Path) -> dict[str, Any]:
    """What a device reports whose clock stepped."""
    clock = WrongClock(folder / f"now{step}")
    clock.set(0)
    given = {
        "broker": f"mqtt://127.0.0.1:{mosquitto.port}",
        "issuer": oidc.issuer,
        "client_id": oidc.client_id,
        "client_secret": oidc.client_secret,
        "name": f"stepped{step}",
        "seconds": SECONDS,
        "clock": str(clock.file),
        "step": f"{step:+d}",
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "stepped_device.py")],
        input=json.dumps(given),
        env=clock.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
