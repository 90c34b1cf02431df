"""A token as it is stored: its age is right after a reboot, whatever the clock says then."""

from __future__ import annotations

import json
import math
import time
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from mqtt_token_client import token as token_module
from mqtt_token_client.errors import StoreError
from mqtt_token_client.stores import record
from mqtt_token_client.stores.record import dump, parse
from mqtt_token_client.token import Token

HUGE = pytest.param(10**400, id="huge")
NOW = 1_800_000_000.0  # the right time
LIFE = 3600.0


class Device:
    """A device's clocks, and which boot it is in."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.monotonic, self.wall, self.boot = 1000.0, NOW, "boot 1"
        patch.setattr(record, "monotonic", lambda: self.monotonic)
        patch.setattr(token_module, "monotonic", lambda: self.monotonic)
        patch.setattr(record, "boot_id", lambda: self.boot)
        patch.setattr(time, "time", lambda: self.wall)

    def goes_on(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def reboots(self, seconds_off: float, uptime: float = 20.0) -> None:
        self.wall += seconds_off + uptime
        self.monotonic, self.boot = uptime, "boot 2"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def jwt(**claims: Any) -> str:
    return f"e30.{urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.mark.parametrize("step", [0.0, 86400.0, -86400.0, -NOW])
def test_in_the_same_boot_the_elapsed_clock_gives_the_age_wherever_the_wall_clock_goes(
    device: Device, step: float
) -> None:
    stored = dump(Token("a", LIFE))
    device.goes_on(600)
    device.wall += step
    assert parse(stored).expires_in == pytest.approx(LIFE - 600)


def test_after_a_reboot_the_wall_clock_gives_the_age(device: Device) -> None:
    token = Token("a", LIFE)
    device.goes_on(100)
    stored = dump(token)
    device.reboots(seconds_off=500, uptime=20)
    assert parse(stored).expires_in == pytest.approx(LIFE - 620)


def test_a_token_that_expired_while_the_device_was_off_has_expired(device: Device) -> None:
    stored = dump(Token("a", LIFE, refresh_token="r"))
    device.reboots(seconds_off=10 * LIFE)
    token = parse(stored)
    assert token.expires_in < 0
    assert token.refresh_token == "r"


@pytest.mark.parametrize("boot", ["boot 2", ""])
def test_what_was_stored_where_no_boot_has_a_name_is_judged_by_the_wall_clock(device: Device, boot: str) -> None:
    device.boot = ""
    stored = dump(Token("a", LIFE))
    device.reboots(seconds_off=0, uptime=2000)
    device.boot = boot
    assert parse(stored).expires_in == pytest.approx(LIFE - 2000)


def test_a_token_from_the_future_of_the_elapsed_clock_is_judged_by_the_wall_clock(device: Device) -> None:
    stored = dump(Token("a", LIFE))
    device.reboots(seconds_off=100, uptime=20)
    device.boot = "boot 1"  # as in a virtual machine that was set back
    assert parse(stored).expires_in == pytest.approx(LIFE - 120)


@pytest.mark.parametrize("clock", [0.0, NOW - 365 * 86400, NOW - 61])
def test_a_clock_that_is_before_the_token_was_issued_leaves_its_age_unknown(device: Device, clock: float) -> None:
    stored = dump(Token("a", LIFE))
    device.reboots(seconds_off=0)
    device.wall = clock
    token = parse(stored)
    assert not token.age_known
    assert token.since == device.monotonic
    assert token.expires_in == LIFE  # at most


def test_a_clock_that_is_a_little_behind_makes_it_new(device: Device) -> None:
    stored = dump(Token("a", LIFE))
    device.reboots(seconds_off=0)
    device.wall = NOW - 59
    assert parse(stored).expires_in == pytest.approx(LIFE)
    assert parse(stored).age_known


def test_an_unknown_age_stays_unknown_when_the_token_is_stored_again(device: Device) -> None:
    stored = dump(Token(jwt(iat=NOW, exp=NOW + LIFE)))
    device.reboots(seconds_off=0)
    device.wall = 0.0
    stored = dump(parse(stored))
    device.goes_on(10)
    assert not parse(stored).age_known
    device.wall = NOW + 900  # the clock is set
    assert parse(stored).age_known
    assert parse(stored).expires_in == pytest.approx(LIFE - 900)


@pytest.mark.parametrize("clock", [0.0, NOW + 1e9])
def test_a_token_without_an_end_has_none_after_a_reboot(device: Device, clock: float) -> None:
    stored = dump(Token("a"))
    device.reboots(seconds_off=0)
    device.wall = clock
    assert parse(stored).expires_in == math.inf
    assert parse(stored).age_known  # it does not matter, and so it is not due


def test_a_token_with_exp_is_judged_by_its_issuers_clock(device: Device) -> None:
    device.wall = 0.0  # the clock was not set yet when the token came
    stored = dump(Token(jwt(iat=NOW, exp=NOW + LIFE)))
    device.reboots(seconds_off=0)
    device.wall = NOW + 900
    assert parse(stored).expires_in == pytest.approx(LIFE - 900)


@pytest.mark.parametrize(
    "exp", [HUGE, pytest.param(-(10**400), id="-huge"), math.nan, math.inf, -math.inf, True, "soon", None, [1]]
)
def test_a_token_with_an_end_that_makes_no_sense_is_kept_all_the_same(device: Device, exp: Any) -> None:
    token = Token(jwt(exp=exp), LIFE)
    stored = dump(token)
    device.reboots(seconds_off=100)
    found = parse(stored)
    assert found == token
    assert not math.isnan(found.expires_in)


def test_the_lifetime_of_the_refresh_token_is_kept_and_may_be_missing_in_an_older_record(device: Device) -> None:
    stored = dump(Token("a", LIFE, refresh_token="r", refresh_expires_in=1800.0))
    assert parse(stored).refresh_lifetime == 1800
    older = json.loads(stored)
    del older["refresh_lifetime"]
    assert parse(json.dumps(older)).refresh_lifetime == math.inf


text = st.text(max_size=50)


@settings(deadline=None)
@given(
    value=text.filter(bool),
    lifetime=st.none() | st.floats(-1e9, 1e12),
    refresh=st.none() | text,
    scope=st.none() | text,
    since=st.floats(0, 1e9),
)
def test_a_record_gives_back_the_token(
    value: str, lifetime: float | None, refresh: str | None, scope: str | None, since: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Device(patch).monotonic = 1e9
        token = Token(value, lifetime, refresh_token=refresh, scope=scope, since=since)
        for stored in (dump(token), dump(token).encode()):
            found = parse(stored)
            assert [getattr(found, name) for name in Token.__slots__] == [
                getattr(token, name) for name in Token.__slots__
            ]


@settings(deadline=None)
@given(
    lifetime=st.floats(1, 1e9),
    age=st.floats(0, 1e9),
    clock=st.floats(0, 1e11),
    uptime=st.floats(0, 1e9),
)
def test_after_a_reboot_no_clock_makes_a_token_valid_for_longer_than_it_is(
    lifetime: float, age: float, clock: float, uptime: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        device = Device(patch)
        device.monotonic = age + 1
        stored = dump(Token("a", lifetime, since=1.0))
        device.reboots(0, uptime)
        device.wall = clock
        assert parse(stored).expires_in <= lifetime * (1 + 1e-9) + 1e-3


GOOD: dict[str, Any] = {
    "value": "the-secret", "refresh_token": None, "scope": None, "lifetime": 60.0, "since": 1.0, "boot": "", "born": 1.0
}  # fmt: skip


_WRONG: list[tuple[str, Any]] = [
    ("value", ""), ("value", None), ("value", 5), ("value", {}), ("refresh_token", 5), ("refresh_token", []),
    ("scope", {}), ("lifetime", "soon"), ("lifetime", math.nan), ("lifetime", []), ("lifetime", 10**400),
    ("since", None), ("since", "x"), ("since", 10**400), ("born", None), ("born", {}), ("born", 10**400),
    ("refresh_lifetime", "soon"), ("refresh_lifetime", math.nan),
]  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        "", "null", "[]", "5", '"the-secret"', "{", "[" * 100_000, b"\xff\xfe", b"\x00" * 40, json.dumps(GOOD)[:-10],
        *(json.dumps({name: value for name, value in GOOD.items() if name != missing}) for missing in GOOD),
        *(json.dumps(GOOD | {name: value}) for name, value in _WRONG),
    ],
    ids=lambda damage: str(damage)[:60] + str(damage)[-10:],
)  # fmt: skip
def test_something_else_than_a_record_is_reported_without_showing_it(damage: str | bytes) -> None:
    with pytest.raises(StoreError, match="not a token record") as caught:
        parse(damage)
    assert caught.value.__context__ is None
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize(("name", "number"), [("since", math.nan), ("born", math.nan), ("born", -math.inf)])
def test_an_invalid_time_gives_no_token_that_never_expires(name: str, number: float) -> None:
    try:
        found = parse(json.dumps(GOOD | {name: number}))
    except StoreError:
        return
    assert found.expires_in <= 60.0
