# ruff: noqa: F811 - fixtures are arguments
"""The example for Home Assistant: its flows, and the eight faults that integrations with tokens are reported for."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from devtools.servers.secret_check import remember_secret
from mqtt_token_client.testing import AuthorizationServer, Broker
from mqtt_token_client.testing.plugin import broker, idp  # noqa: F401 - as fixtures

ROOT = Path(__file__).parents[2]
PATIENCE = 10


@pytest.fixture
def acme(idp: AuthorizationServer, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The integration's modules, and its cloud."""
    monkeypatch.syspath_prepend(str(ROOT / "examples/home_assistant"))
    monkeypatch.syspath_prepend(str(ROOT / "tests/integration/home_assistant"))
    from custom_components.acme_pumps import (  # type: ignore[import-not-found]  # on that path
        async_setup_entry,
        async_unload_entry,
        config_flow,
        const,
        diagnostics,
        tokens,
    )
    from homeassistant import config_entries, core, exceptions  # type: ignore[import-not-found]  # on that path

    monkeypatch.setattr(const, "ISSUER", idp.issuer)
    monkeypatch.setattr(const, "CLIENT_ID", idp.device_client_id)
    monkeypatch.setattr(const, "BROKER", broker.url)
    monkeypatch.setattr(const, "PROFILE", "password")

    def revoke(entry: Any) -> None:
        form = {"token": entry.data["token"]["refresh_token"], "client_id": idp.device_client_id}
        assert requests.post(f"{idp.issuer}/revoke", form, timeout=PATIENCE).status_code == 200

    yield SimpleNamespace(
        revoke=revoke,
        setup=async_setup_entry, unload=async_unload_entry, flow=config_flow.AcmeConfigFlow, tokens=tokens,
        diagnostics=diagnostics.async_get_config_entry_diagnostics, entries=config_entries, core=core,
        exceptions=exceptions, idp=idp, broker=broker,
    )  # fmt: skip
    for name in [name for name in sys.modules if name.partition(".")[0] in ("homeassistant", "custom_components")]:
        del sys.modules[name]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario, debug=True)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class Home:
    """A Home Assistant in which a person has set the integration up."""

    def __init__(self, acme: SimpleNamespace) -> None:
        self.acme = acme
        self.hass = acme.core.HomeAssistant()
        self.entry: Any = None

    async def approve(self, flow: Any) -> dict[str, Any]:
        """Go through a flow from its first form to its end, with a person who approves."""
        progress = await flow.async_step_approve()
        assert progress["type"] == "progress"
        placeholders = progress["description_placeholders"]
        await asyncio.to_thread(self.acme.idp.approve, placeholders["code"], "plant-7")
        await progress["progress_task"]
        assert (await flow.async_step_approve())["type"] == "progress_done"
        result: dict[str, Any] = await flow.async_step_finish()
        return result

    async def log_in(self) -> None:
        flow = self.acme.flow()
        flow.hass = self.hass
        assert (await flow.async_step_user())["type"] == "form"
        created = await self.approve(flow)
        assert (created["type"], created["title"]) == ("create_entry", "plant-7")
        self.entry = self.acme.entries.ConfigEntry("acme_pumps", "abc", "plant-7", created["data"])

    async def set_up(self) -> Any:
        """Log in and connect; returns the coordinator."""
        await self.log_in()
        assert await self.acme.setup(self.hass, self.entry)
        return self.entry.runtime_data

    async def unload(self) -> None:
        assert await self.acme.unload(self.hass, self.entry)


def at_home(acme: SimpleNamespace, scenario: Callable[[Home], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scenario(Home(acme))

    run(main())


def test_a_person_approves_and_the_pumps_appear(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        acme.broker.publish("pumps/17/state", json.dumps({"pressure": 1.5}), qos=1)
        await until(lambda: bool(home.hass.config_entries.entities), "the sensor")
        [sensor] = home.hass.config_entries.entities
        assert (sensor.native_value, sensor.available) == (1.5, True)
        acme.broker.publish("pumps/17/state", json.dumps({"pressure": 2}), qos=1)
        await until(lambda: sensor.native_value == 2.0, "its next value")
        await pumps.send("17", "stop")
        assert acme.broker.messages("pumps/17/command", count=1)[0].payload == b"stop"
        await home.unload()

    at_home(acme, scenario)


def test_a_person_who_does_not_approve_gets_a_reason(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        flow = acme.flow()
        flow.hass = home.hass
        progress = await flow.async_step_approve()
        await asyncio.to_thread(acme.idp.deny, progress["description_placeholders"]["code"])
        await asyncio.wait([progress["progress_task"]])
        assert await flow.async_step_finish() == {"type": "abort", "reason": "not_approved"}

    at_home(acme, scenario)


def test_a_login_that_acme_revoked_is_reported_once_while_the_token_is_valid(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        await home.log_in()
        acme.revoke(home.entry)
        assert await acme.setup(home.hass, home.entry)  # with the token that is still valid
        await until(lambda: home.entry.reauths == 1, "the reauthentication")
        await home.unload()

    at_home(acme, scenario)


def test_a_login_that_acme_revoked_is_repaired_by_a_reauthentication(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        acme.idp.lifetime = 1
        await home.log_in()
        acme.idp.lifetime = 60
        acme.revoke(home.entry)
        await asyncio.sleep(1.1)  # until the token has expired as well
        with pytest.raises(acme.exceptions.ConfigEntryAuthFailed):
            await acme.setup(home.hass, home.entry)
        flow = acme.flow()
        flow.hass, flow.source, flow.entry = home.hass, acme.entries.SOURCE_REAUTH, home.entry
        assert (await flow.async_step_reauth({}))["step_id"] == "reauth_confirm"
        assert await home.approve(flow) == {"type": "abort", "reason": "reauth_successful"}
        assert await acme.setup(home.hass, home.entry)
        await home.unload()

    at_home(acme, scenario)


def test_diagnostics_show_no_secret(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        await home.set_up()
        shown = json.dumps(await acme.diagnostics(home.hass, home.entry))
        for secret in (home.entry.data["token"]["refresh_token"], home.entry.data["token"]["access_token"]):
            assert secret not in shown
        assert json.loads(shown)["state"] == "connected"
        await home.unload()

    at_home(acme, scenario)


# The eight faults


def test_1_no_stale_password_is_presented_after_the_token_has_expired(acme: SimpleNamespace) -> None:
    acme.idp.lifetime = 2

    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        await until(lambda: pumps.client.stats.rotations >= 1, "a rotation")
        await asyncio.to_thread(acme.broker.drop)
        await until(lambda: pumps.client.stats.connects >= 3, "a new connection")
        await home.unload()

    at_home(acme, scenario)


def test_2_a_failed_refresh_is_no_dead_end(acme: SimpleNamespace) -> None:
    acme.idp.lifetime = 3

    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        acme.idp.fail(503, times=2)
        renewals = pumps.client.stats.renewals
        await until(lambda: pumps.client.stats.renewals > renewals, "a renewal after the outage")
        assert home.entry.reauths == 0
        await home.unload()

    at_home(acme, scenario)


def test_3_retry_after_is_respected(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        await home.log_in()
        acme.idp.fail(429, times=1, retry_after=2)
        began = time.monotonic()
        assert await acme.setup(home.hass, home.entry)  # with the stored token, which may still be valid
        await until(lambda: home.entry.runtime_data.client.stats.renewals == 1, "a new token")
        assert time.monotonic() - began > 2
        await home.unload()

    at_home(acme, scenario)


def test_4_nobody_logs_in_every_hour(acme: SimpleNamespace) -> None:
    acme.idp.lifetime = 1

    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        first = home.entry.data["token"]["refresh_token"]
        await until(lambda: pumps.client.stats.renewals >= 4, "four renewals")
        assert home.entry.reauths == 0
        assert home.entry.data["token"]["refresh_token"] != first  # each was stored, for the next start
        await home.unload()
        assert await acme.setup(home.hass, home.entry)
        await home.unload()

    at_home(acme, scenario)


def test_5_two_tasks_share_one_refresh(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        await asyncio.gather(*(pumps.client.rotate() for _ in range(10)))
        assert home.entry.reauths == 0  # a refresh token that is used twice revokes the login
        await pumps.client.rotate()
        await home.unload()

    at_home(acme, scenario)


def test_6_a_broker_that_rejects_is_not_stormed(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        acme.broker.reject(0x88, times=1000)
        await asyncio.to_thread(acme.broker.drop)
        await asyncio.sleep(2)
        left = len(acme.broker._sessions.rejections)
        assert 1000 - left < 8
        acme.broker.reject(times=0)
        await until(lambda: pumps.client.state == "connected", "the connection")
        await home.unload()

    at_home(acme, scenario)


def test_7_a_subscription_outlives_a_lost_session(acme: SimpleNamespace) -> None:
    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        await asyncio.to_thread(
            acme.broker._on_loop, lambda: [acme.broker._sessions._forget(one) for one in acme.broker._sessions.kept]
        )
        await asyncio.to_thread(acme.broker.drop)
        await until(lambda: pumps.client.stats.connects >= 2, "a new connection")
        await pumps.send("17", "x")  # goes out after the subscription
        acme.broker.publish("pumps/17/state", json.dumps({"pressure": 3}), qos=1)
        await until(lambda: "17" in pumps.data, "the state")
        await home.unload()

    at_home(acme, scenario)


def test_8_no_secret_is_in_a_log(acme: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(home: Home) -> None:
        pumps = await home.set_up()
        secrets = [home.entry.data["token"]["refresh_token"], home.entry.data["token"]["access_token"]]
        await pumps.client.rotate()
        secrets += [home.entry.data["token"]["refresh_token"], home.entry.data["token"]["access_token"]]
        await home.unload()
        assert len(set(secrets)) == 4
        for secret in secrets:
            remember_secret(secret)
            assert secret not in caplog.text

    at_home(acme, scenario)
