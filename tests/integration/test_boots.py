"""Rule 1: a boot, whatever the clock says and whatever has become of the stored token. Real processes whose wall clock
libfaketime sets.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from devtools.servers.wrong_clock import WrongClock

TO_1970 = -int(time.time()) + 100


class Device:
    """A device and its disk."""

    def __init__(self, oidc: AuthorizationServer, mosquitto: Mosquitto, folder: Path) -> None:
        self.oidc = oidc
        self.mosquitto = mosquitto
        self.clock = WrongClock(folder / "now")
        self.store = folder / "store"
        self.boots = 0

    def start(self, offset: int = 0, *, seconds: float = 1, ntp: bool = False) -> subprocess.Popen[str]:
        """Boot with a clock that is so many seconds off, and run for a while."""
        self.boots += 1
        self.clock.set(offset)
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "booting_device.py")],
            env=self.clock.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        given = {
            "broker": f"mqtt://127.0.0.1:{self.mosquitto.port}",
            "issuer": self.oidc.issuer,
            "client_id": self.oidc.client_id,
            "client_secret": self.oidc.client_secret,
            "name": "booting",
            "store": str(self.store),
            "seconds": seconds,
            "clock": str(self.clock.file) if ntp else None,
            "boot": f"boot {self.boots}",
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(given))
        process.stdin.close()
        process.stdin = None  # communicate() would use it
        return process

    def boot(self, offset: int = 0, **more: Any) -> dict[str, Any]:
        process = self.start(offset, **more)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        result: dict[str, Any] = json.loads(out)
        assert result["lost"] == 0
        return result


@pytest.fixture
def device(oidc: AuthorizationServer, mosquitto: Mosquitto, tmp_path: Path) -> Device:
    return Device(oidc, mosquitto, tmp_path)


def test_with_a_right_clock_goes_on_with_the_stored_token(device: Device, oidc: AuthorizationServer) -> None:
    device.boot()
    second = device.boot()
    assert oidc.token_requests() == 1
    assert second["events"] == ["Connected"]
    assert 0 < second["first"] < 60


def test_in_1970_whose_clock_ntp_sets_in_the_middle_of_a_life_costs_nothing(
    device: Device, oidc: AuthorizationServer, mosquitto: Mosquitto
) -> None:
    oidc.config(at=6)
    boot = device.boot(TO_1970, seconds=9, ntp=True)  # far from the times of a renewal: 4, 8 and 12 s
    assert boot["year"] == 1970
    assert boot["year at the end"] > 2020
    assert 2 <= boot["rotations"] <= 4
    assert oidc.token_requests() == boot["rotations"] + 1
    assert set(boot["events"]) == {"TokenRenewed", "Connected", "Rotated"}
    assert mosquitto.refused("booting") == 0


@pytest.mark.parametrize("offset", [TO_1970, -24 * 3600, 400 * 24 * 3600])
def test_with_a_wrong_clock_presents_no_token_that_ended_while_the_power_was_off(
    offset: int, device: Device, oidc: AuthorizationServer, mosquitto: Mosquitto
) -> None:
    oidc.config(at=2)
    device.boot(seconds=0.1)
    time.sleep(2)
    boot = device.boot(offset)
    assert mosquitto.refused("booting") == 0
    assert oidc.token_requests() >= 2
    assert boot["events"][:2] == ["TokenRenewed", "Connected"]


def test_in_1970_without_the_authorization_server_goes_on_with_the_stored_token(
    device: Device, oidc: AuthorizationServer, mosquitto: Mosquitto
) -> None:
    device.boot()
    oidc.stop()
    boot = device.boot(TO_1970)
    assert boot["events"][:2] == ["RenewalFailed", "Connected"]
    assert mosquitto.refused("booting") == 0


def test_a_sleep_over_the_end_of_the_token_ends_with_a_new_one_at_once(
    device: Device, oidc: AuthorizationServer, mosquitto: Mosquitto
) -> None:
    oidc.config(at=3)
    process = device.start(seconds=8)
    wait_until(lambda: oidc.token_requests() == 1, "the first token")
    time.sleep(1)
    process.send_signal(signal.SIGSTOP)  # as a lid that is closed: neither reads nor timers
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["lost"] == 0
    assert result["events"].count("TokenRefused") == 0
    assert mosquitto.refused("booting") == 0


def test_a_token_that_begins_in_a_second_is_presented_again_then(keys: Keys, mosquitto: Mosquitto) -> None:
    from mqtt_token_client import Event, Token, TokenClient, TokenRefused

    class Issuer:
        """Its clock is a second and a half ahead of the broker's."""

        requests = 0

        def fetch(self, previous: Token | None) -> Token:
            self.requests += 1
            now = int(time.time() + 1.5)
            return Token(keys.token(nbf=now, iat=now, exp=now + 60), 60)

    events: list[Event] = []
    issuer = Issuer()
    client = TokenClient(f"mqtt://127.0.0.1:{mosquitto.port}", issuer, client_id="early", on_event=events.append)
    assert client.connect(timeout=10)
    client.disconnect()
    assert issuer.requests <= 2
    assert [event.times for event in events if isinstance(event, TokenRefused)] in ([1], [1, 1])
