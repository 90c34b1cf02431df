"""The flows of the example, its entities and its diagnostics, in the real Home Assistant."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from datetime import timedelta
from typing import Any

import pytest
from custom_components.acme_pumps import const
from custom_components.acme_pumps.tokens import TOKEN, EntryStore, UnattendedLogin
from homeassistant import block_async_io
from homeassistant.config_entries import SOURCE_REAUTH, ConfigEntryState
from homeassistant.const import EVENT_HOMEASSISTANT_STOP, STATE_UNAVAILABLE
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import device_registry
from homeassistant.util.dt import utcnow
from pytest_homeassistant_custom_component.common import async_fire_time_changed
from pytest_homeassistant_custom_component.components.diagnostics import get_diagnostics_for_config_entry

from mqtt_token_client import TokenKeeper

from .home import PATIENCE, Home

PRESSURE = "sensor.pump_17_pressure"


async def test_a_person_approves_and_the_pumps_appear(home: Home) -> None:
    entry = await home.set_up()
    home.report("17", pressure=1.5)
    await home.until_state(PRESSURE, "1.5")
    home.report("17", pressure=2)
    await home.until_state(PRESSURE, "2.0")
    assert home.state(PRESSURE).attributes["friendly_name"] == "Pump 17 Pressure"
    [device] = device_registry.async_entries_for_config_entry(device_registry.async_get(home.hass), entry.entry_id)
    assert (device.manufacturer, device.name) == ("Acme", "Pump 17")
    await entry.runtime_data.async_send("17", "stop")
    assert home.broker.messages("pumps/17/command", count=1)[0].payload == b"stop"


async def test_an_unloaded_entry_is_disconnected_and_no_error_is_logged(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    entry = await home.set_up()
    home.report("17", pressure=1.5)
    await home.until_state(PRESSURE, "1.5")
    assert await home.hass.config_entries.async_unload(entry.entry_id)
    assert entry.state is ConfigEntryState.NOT_LOADED
    assert home.state(PRESSURE).state == STATE_UNAVAILABLE
    await home.until(lambda: not home.broker.client_ids, "the disconnect")
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_a_home_assistant_that_stops_is_disconnected(home: Home) -> None:
    entry = await home.set_up()
    home.hass.bus.async_fire(EVENT_HOMEASSISTANT_STOP)
    await home.hass.async_block_till_done()
    assert entry.runtime_data.client.state == "closed"


async def test_a_state_that_is_no_json_object_changes_nothing(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    await home.set_up()
    home.report("17", pressure=1.5)
    home.broker.publish("pumps/17/state", "[", qos=1)
    home.broker.publish("pumps/17/state", "[]", qos=1)
    await home.until(lambda: caplog.text.count("17 sent a state that is not a JSON object") == 2, "two warnings")
    await home.until_state(PRESSURE, "1.5")


async def test_a_person_who_does_not_approve_gets_a_reason(home: Home) -> None:
    end = await home.decide(await home.begin(), home.idp.deny)
    assert (end["type"], end["reason"]) == (FlowResultType.ABORT, "not_approved")


async def test_an_account_is_connected_once(home: Home) -> None:
    await home.set_up()
    end = await home.approve(await home.begin())
    assert (end["type"], end["reason"]) == (FlowResultType.ABORT, "already_configured")


async def test_a_person_gets_a_reason_if_acme_cannot_be_reached(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setattr(const, "ISSUER", f"http://127.0.0.1:{closed.getsockname()[1]}")
    end = await home.begin()
    assert (end["type"], end["reason"]) == (FlowResultType.ABORT, "cannot_connect")
    assert await home.text("abort.cannot_connect")


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
async def test_a_dialog_does_not_hold_up_the_end_of_home_assistant(
    home: Home, caplog: pytest.LogCaptureFixture, closed: bool
) -> None:
    progress = await home.begin()
    if closed:
        home.hass.config_entries.flow.async_abort(progress["flow_id"])
    await home.hass.async_stop(force=True)
    await home.hass.loop.shutdown_default_executor()
    assert "still running" not in caplog.text
    home.idp.deny(progress["description_placeholders"]["code"])
    await home.until(lambda: "token-renewal" not in {one.name for one in threading.enumerate()}, "the last poll")


@pytest.mark.usefixtures("disable_block_async_io")  # at the end
async def test_nothing_blocks_the_event_loop(
    home: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_async_io, "_IN_TESTS", False)  # all that it detects, also files and certificates
    block_async_io.enable()
    entry = await home.set_up()
    await entry.runtime_data.client.rotate()
    monkeypatch.setattr(const, "BROKER", "wss://127.0.0.1:1/mqtt")
    monkeypatch.setattr(const, "PROFILE", "bearer-header")
    monkeypatch.setattr(const, "CONNECT_TIMEOUT", 1)
    assert not await home.hass.config_entries.async_reload(entry.entry_id)
    assert "blocking call" not in caplog.text


async def test_a_login_that_acme_revoked_is_reported_once_while_the_token_is_valid(home: Home) -> None:
    entry = await home.connected_before()
    await home.revoke(entry)
    assert await home.hass.config_entries.async_setup(entry.entry_id)  # with the token that is still valid
    await home.until(lambda: bool(home.flows), "the reauthentication")
    [flow] = home.flows
    assert (flow["context"]["source"], flow["context"]["entry_id"]) == (SOURCE_REAUTH, entry.entry_id)
    assert (entry.state, entry.runtime_data.client.state) == (ConfigEntryState.LOADED, "connected")


async def _begin_reauthentication(home: Home) -> Any:
    """With an account that was connected before, whose login and token are no longer valid."""
    home.idp.lifetime = 1
    entry = await home.connected_before()
    home.idp.lifetime = 60
    await home.revoke(entry)
    await asyncio.sleep(1.1)  # until the token has expired as well, which no event announces
    assert not await home.hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_ERROR
    await home.until(lambda: bool(home.flows), "the reauthentication")
    [flow] = home.flows
    assert (flow["context"]["source"], flow["step_id"]) == (SOURCE_REAUTH, "reauth_confirm")
    assert await home.text("step.reauth_confirm.title")
    return entry, await home.submit(flow["flow_id"])


async def test_a_login_that_acme_revoked_is_repaired_by_a_reauthentication(home: Home) -> None:
    entry, progress = await _begin_reauthentication(home)
    end = await home.approve(progress)
    assert (end["type"], end["reason"]) == (FlowResultType.ABORT, "reauth_successful")
    await home.until(lambda: entry.state is ConfigEntryState.LOADED, "the set-up")
    assert entry.runtime_data.client.state == "connected"
    assert not home.flows


async def test_a_reauthentication_with_another_account_changes_nothing(home: Home) -> None:
    entry, progress = await _begin_reauthentication(home)
    before = dict(entry.data)
    end = await home.approve(progress, "plant-8")
    assert (end["type"], end["reason"]) == (FlowResultType.ABORT, "wrong_account")
    assert (entry.data, entry.state) == (before, ConfigEntryState.SETUP_ERROR)


async def test_a_client_that_is_not_gone_yet_does_not_cost_the_next_one_the_login(home: Home) -> None:
    entry = await home.connected_before()
    keepers = [TokenKeeper(UnattendedLogin(), EntryStore(home.hass, entry), key="acme") for _ in range(4)]
    found = await asyncio.gather(*(keeper.get_async() for keeper in keepers))
    assert {one.refresh_token for one in found} >= {entry.data[TOKEN]["refresh_token"]}
    await home.hass.async_add_executor_job(keepers[0].renew)  # with the last refresh token, which is still valid


async def test_a_set_up_that_failed_is_tried_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(const, "CONNECT_TIMEOUT", 1)
    entry = await home.connected_before()
    home.hass.config_entries.async_update_entry(entry, data={"token": {**entry.data["token"], "access_token": "x"}})
    home.idp.fail(503, times=1000)
    assert not await home.hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert not home.flows
    home.idp.fail(times=0)
    monkeypatch.setattr(const, "CONNECT_TIMEOUT", PATIENCE)
    async_fire_time_changed(home.hass, utcnow() + timedelta(minutes=1))
    await home.until(lambda: entry.state is ConfigEntryState.LOADED, "the set-up")


@pytest.mark.filterwarnings("ignore:It is recommended to use web.AppKey")  # Home Assistant's own
async def test_diagnostics_show_no_secret(home: Home, hass_client: Any) -> None:
    entry = await home.set_up()
    shown: Any = await get_diagnostics_for_config_entry(home.hass, hass_client, entry)
    text = json.dumps(shown)
    for secret in (entry.data["token"]["refresh_token"], entry.data["token"]["access_token"]):
        assert secret not in text
    assert shown["state"] == "connected"
