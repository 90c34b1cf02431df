"""The person approves this Home Assistant on Acme's page, with a code."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from homeassistant.config_entries import SOURCE_REAUTH, ConfigFlow, ConfigFlowResult

from mqtt_token_client import DeviceLogin, MqttTokenError, Token, TokenKeeper, TokenRequestRefused

from . import const
from .tokens import TOKEN, as_data, device_flow


class AcmeConfigFlow(ConfigFlow, domain=const.DOMAIN):
    """A login by device code, for a new account or for one whose login Acme no longer accepts."""

    VERSION = 1

    def __init__(self) -> None:
        self._shown: asyncio.Future[DeviceLogin] | None = None
        self._login: asyncio.Task[Token] | None = None

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Say what follows."""
        if user_input is None:
            return self.async_show_form(step_id="user")
        return await self.async_step_approve()

    async def async_step_reauth(self, entry_data: Mapping[str, Any]) -> ConfigFlowResult:
        """Acme no longer accepts the login."""
        return await self.async_step_reauth_confirm()

    async def async_step_reauth_confirm(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Say what follows."""
        if user_input is None:
            return self.async_show_form(step_id="reauth_confirm")
        return await self.async_step_approve()

    async def async_step_approve(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Show the code until the person has approved, or the code has expired."""
        if self._login is None:
            loop = self.hass.loop
            shown = self._shown = loop.create_future()
            flow = device_flow(lambda login: loop.call_soon_threadsafe(_show, shown, login))
            # It may take half an hour, and must not hold up a Home Assistant that stops: a background task is cancelled
            # then, and the keeper waits on a thread of its own, not on one of the executor.
            self._login = self.hass.async_create_background_task(TokenKeeper(flow).get_async(), f"{const.DOMAIN} login")
            await asyncio.wait([shown, self._login], return_when=asyncio.FIRST_COMPLETED)
        if self._login.done():
            return self.async_show_progress_done(next_step_id="finish")
        assert self._shown is not None
        login = self._shown.result()
        return self.async_show_progress(
            step_id="approve",
            progress_action="approve",
            description_placeholders={"url": login.verification_uri, "code": login.user_code},
            progress_task=self._login,
        )

    async def async_step_finish(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Keep the tokens, or say why there are none."""
        assert self._login is not None
        try:
            token = await self._login
        except TokenRequestRefused:
            return self.async_abort(reason="not_approved")
        except MqttTokenError:
            return self.async_abort(reason="cannot_connect")
        account = str(token.claims.get("sub"))
        await self.async_set_unique_id(account)
        data = {TOKEN: as_data(token)}
        if self.source == SOURCE_REAUTH:
            self._abort_if_unique_id_mismatch(reason="wrong_account")
            return self.async_update_reload_and_abort(self._get_reauth_entry(), data_updates=data)
        self._abort_if_unique_id_configured()
        return self.async_create_entry(title=account, data=data)


def _show(shown: asyncio.Future[DeviceLogin], login: DeviceLogin) -> None:
    if not shown.done():
        shown.set_result(login)
