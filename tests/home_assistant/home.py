"""Home: what a person does with Home Assistant, and what happens to the account meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import requests
from custom_components.acme_pumps import const, tokens
from homeassistant.config_entries import SOURCE_USER, ConfigEntryState
from homeassistant.core import Event, HomeAssistant, State, callback
from homeassistant.data_entry_flow import EVENT_DATA_ENTRY_FLOW_PROGRESSED, FlowResultType
from homeassistant.helpers.translation import async_get_translations
from pytest_homeassistant_custom_component.common import MockConfigEntry

from mqtt_token_client.testing import AuthorizationServer, Broker

ACCOUNT = "plant-7"
PATIENCE = 30  # seconds


class Home:
    """A Home Assistant, and a person in front of it."""

    def __init__(self, hass: HomeAssistant, idp: AuthorizationServer, broker: Broker) -> None:
        self.hass = hass
        self.idp = idp
        self.broker = broker

    @property
    def flows(self) -> list[Any]:
        """The flows that wait for the person."""
        return list(self.hass.config_entries.flow.async_progress())

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition that no event announces."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.01)

    # Flows

    async def begin(self) -> Any:
        """Begin to connect an account; returns what is shown then, with the code."""
        form = await self.hass.config_entries.flow.async_init(const.DOMAIN, context={"source": SOURCE_USER})
        assert (form["type"], form["step_id"]) == (FlowResultType.FORM, "user")
        assert await self.text("step.user.title")
        return await self.submit(form["flow_id"])

    async def submit(self, flow_id: str) -> Any:
        """Submit the form that a flow shows."""
        return await self.hass.config_entries.flow.async_configure(flow_id, {})

    async def decide(self, progress: Any, decide: Callable[[str], None]) -> Any:
        """Use the code on Acme's page; returns the flow's end."""
        assert progress["type"] is FlowResultType.SHOW_PROGRESS
        placeholders = progress["description_placeholders"]
        assert (await self.text("progress.approve")).format(**placeholders)
        progressed = self.hass.loop.create_future()

        def on_progress(event: Event) -> None:
            if event.data["flow_id"] == progress["flow_id"] and not progressed.done():
                progressed.set_result(None)

        remove = self.hass.bus.async_listen(EVENT_DATA_ENTRY_FLOW_PROGRESSED, callback(on_progress))
        await self.hass.async_add_executor_job(decide, placeholders["code"])
        await asyncio.wait_for(progressed, PATIENCE)
        remove()
        end = await self.hass.config_entries.flow.async_configure(progress["flow_id"])
        if end["type"] is FlowResultType.ABORT:
            assert await self.text(f"abort.{end['reason']}")
        return end

    async def approve(self, progress: Any, account: str = ACCOUNT) -> Any:
        """Approve; returns the flow's end."""
        return await self.decide(progress, lambda code: self.idp.approve(code, account))

    async def text(self, key: str) -> str:
        """What the person reads, in English."""
        texts: dict[str, str] = await async_get_translations(self.hass, "en", "config", {const.DOMAIN})
        return texts[f"component.{const.DOMAIN}.config.{key}"]

    # Accounts

    async def set_up(self) -> Any:
        """Connect an account; returns its config entry."""
        created = await self.approve(await self.begin())
        assert (created["type"], created["title"]) == (FlowResultType.CREATE_ENTRY, ACCOUNT)
        entry = created["result"]
        await self.until(lambda: entry.state is ConfigEntryState.LOADED, "the set-up")
        return entry

    async def connected_before(self) -> Any:
        """A config entry of an account that was connected before Home Assistant started."""
        flow = tokens.device_flow(lambda login: self.idp.approve(login.user_code, ACCOUNT))
        token = await self.hass.async_add_executor_job(flow.fetch, None)
        entry = MockConfigEntry(
            domain=const.DOMAIN, title=ACCOUNT, unique_id=ACCOUNT, data={tokens.TOKEN: tokens.as_data(token)}
        )
        entry.add_to_hass(self.hass)
        return entry

    async def revoke(self, entry: Any) -> None:
        """The person removes this Home Assistant on Acme's page."""
        form = {"token": entry.data[tokens.TOKEN]["refresh_token"], "client_id": self.idp.device_client_id}
        answer = await self.hass.async_add_executor_job(
            lambda: requests.post(f"{self.idp.issuer}/revoke", form, timeout=PATIENCE)
        )
        assert answer.status_code == 200

    # Pumps and their broker

    def lose_sessions(self) -> None:
        """The broker forgets all sessions, as some do when they restart."""
        sessions = self.broker._sessions

        def forget() -> None:
            for session in tuple(sessions.kept):
                sessions._forget(session)

        self.broker._on_loop(forget)

    def report(self, pump: str, **state: object) -> None:
        """A pump sends its state."""
        self.broker.publish(f"pumps/{pump}/state", json.dumps(state), qos=1)

    def state(self, entity: str) -> State:
        """The state of an entity that exists."""
        state = self.hass.states.get(entity)
        assert state is not None, entity
        return state

    async def until_state(self, entity: str, value: str) -> None:
        """Wait for the state of an entity."""
        await self.until(
            lambda: (state := self.hass.states.get(entity)) is not None and state.state == value, f"{entity} is {value}"
        )
