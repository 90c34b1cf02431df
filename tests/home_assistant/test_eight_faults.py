"""The eight faults that integrations with tokens are reported for, which the example does not have."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE

from devtools.servers.secret_check import remember_secret

from .home import Home

PRESSURE = "sensor.pump_17_pressure"


async def test_1_no_stale_password_is_presented_after_the_token_has_expired(home: Home) -> None:
    home.idp.lifetime = 2
    client = (await home.set_up()).runtime_data.client
    await home.until(lambda: client.stats.rotations >= 1, "a rotation")
    await home.hass.async_add_executor_job(home.broker.drop)
    await home.until(lambda: client.stats.connects >= 3, "a new connection")
    assert not home.flows


async def test_2_a_failed_refresh_is_no_dead_end(home: Home) -> None:
    home.idp.lifetime = 3
    client = (await home.set_up()).runtime_data.client
    home.idp.fail(503, times=2)
    renewals = client.stats.renewals
    await home.until(lambda: client.stats.renewals > renewals, "a renewal after the outage")
    assert not home.flows


async def test_3_retry_after_is_respected(home: Home) -> None:
    entry = await home.connected_before()
    home.idp.fail(429, times=1, retry_after=2)
    began = time.monotonic()
    assert await home.hass.config_entries.async_setup(entry.entry_id)  # with the stored token, which may still be valid
    await home.until(lambda: entry.runtime_data.client.stats.renewals == 1, "a new token")
    assert time.monotonic() - began > 2


async def test_4_nobody_logs_in_every_hour(home: Home) -> None:
    home.idp.lifetime = 1
    entry = await home.set_up()
    first = entry.data["token"]["refresh_token"]
    client = entry.runtime_data.client
    await home.until(lambda: client.stats.renewals >= 4, "four renewals")
    assert entry.data["token"]["refresh_token"] != first  # each was stored, for the next start
    assert await home.hass.config_entries.async_reload(entry.entry_id)
    assert entry.state is ConfigEntryState.LOADED
    assert entry.runtime_data.client is not client
    assert not home.flows


async def test_5_two_tasks_share_one_refresh(home: Home) -> None:
    client = (await home.set_up()).runtime_data.client
    await asyncio.gather(*(client.rotate() for _ in range(10)))
    await client.rotate()
    assert not home.flows  # a refresh token that is used twice revokes the login


async def test_6_a_broker_that_rejects_is_not_stormed(home: Home) -> None:
    client = (await home.set_up()).runtime_data.client
    home.report("17", pressure=1.5)
    await home.until_state(PRESSURE, "1.5")
    home.broker.reject(0x88, times=1000)
    await home.hass.async_add_executor_job(home.broker.drop)
    await home.until_state(PRESSURE, STATE_UNAVAILABLE)
    await asyncio.sleep(2)  # no event says that something does not happen
    assert 1000 - len(home.broker._sessions.rejections) < 8
    home.broker.reject(times=0)
    await home.until(lambda: client.state == "connected", "the connection")
    await home.until_state(PRESSURE, "1.5")


async def test_7_a_subscription_outlives_a_lost_session(home: Home) -> None:
    pumps = (await home.set_up()).runtime_data
    await home.hass.async_add_executor_job(home.lose_sessions)
    await home.hass.async_add_executor_job(home.broker.drop)
    await home.until(lambda: pumps.client.stats.connects >= 2, "a new connection")
    await pumps.async_send("17", "x")  # goes out after the subscription
    home.report("17", pressure=3)
    await home.until_state(PRESSURE, "3.0")


async def test_8_no_secret_is_in_a_log(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    entry = await home.set_up()
    secrets = [entry.data["token"]["refresh_token"], entry.data["token"]["access_token"]]
    await entry.runtime_data.client.rotate()
    secrets += [entry.data["token"]["refresh_token"], entry.data["token"]["access_token"]]
    assert await home.hass.config_entries.async_unload(entry.entry_id)
    assert len(set(secrets)) == 4
    for secret in secrets:
        remember_secret(secret)
        assert secret not in caplog.text
