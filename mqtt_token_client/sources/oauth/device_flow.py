"""The device flow: a person approves the device on another screen (RFC 8628), once; then it renews by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from ...clock import monotonic
from ...errors import (
    AuthorizationServerUnavailable,
    ConfigurationError,
    InvalidTokenResponse,
    TokenError,
    TokenRequestRefused,
)
from ...token import Token
from .client_auth import ClientAuthentication, PublicClient
from .device_login import DeviceLogin
from .grant import Grant, client_authentication, grant_parameters, is_text
from .http import HttpClient
from .terminal import show_login
from .token_endpoint import seconds_in

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_PENDING, _SLOW_DOWN, _EXPIRED, _DENIED = "authorization_pending", "slow_down", "expired_token", "access_denied"
_INTERVAL = 5.0  # seconds between polls where the server says nothing, and what slow_down adds (sections 3.2, 3.5)
_SLOWEST = 60.0  # seconds between polls in trouble, unless the server asked for more


class DeviceFlow(Grant):
    """A token source: the device flow (RFC 8628), and then the refresh token that it brought (RFC 6749 section 6).

    Most servers give a refresh token only where the scope asks for it, such as by ``offline_access``; without one a
    person has to approve each new token. The arguments that are not named here are those of
    :class:`~mqtt_token_client.ClientCredentials`.

    Args:
        issuer: the authorization server, as it names itself; its endpoints are discovered.
        device_authorization_endpoint: that endpoint itself, with ``token_endpoint`` instead of ``issuer``.
        client_secret: the client's secret, or
        client_auth: another client authentication; by default none (``PublicClient``).
        prompt: a function of one :class:`DeviceLogin` that shows it to a person. It is called on the thread that wants
            the token, and the server is asked for the outcome only once it has returned. By default it is printed to
            stderr. If it raises, that is logged and the login goes on: the person may have seen enough.

    Raises:
        ConfigurationError: an argument is wrong, or does not go with another.
    """

    _name = "device_flow"

    def __init__(
        self,
        *,
        client_id: str,
        issuer: str | None = None,
        device_authorization_endpoint: str | None = None,
        token_endpoint: str | None = None,
        client_secret: str | None = None,
        client_auth: ClientAuthentication | None = None,
        scope: str | Sequence[str] | None = None,
        audience: str | None = None,
        resource: str | Sequence[str] | None = None,
        extra: Mapping[str, str] | None = None,
        prompt: Callable[[DeviceLogin], object] = show_login,
        timeout: tuple[float, float] = (10.0, 20.0),
        ca_bundle: str | Path | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_insecure: bool = False,
    ) -> None:
        if not callable(prompt):
            raise ConfigurationError("prompt: a function of one DeviceLogin is needed")
        super().__init__(
            client_id,
            issuer,
            {"device_authorization_endpoint": device_authorization_endpoint, "token_endpoint": token_endpoint},
            client_authentication(client_secret, client_auth, PublicClient()),
            grant_parameters(scope, audience, resource, extra),
            HttpClient(timeout, ca_bundle, proxies, allow_insecure),
        )
        self._prompt = prompt

    def fetch(self, previous: Token | None) -> Token:
        """A new token: by the refresh token of ``previous``, or without one by asking a person, which may take as
        long as the server lets it.

        A refresh token that the server no longer takes is no reason to ask a person yet, as another process may have
        renewed it: look for a newer one, then call ``fetch(None)``.

        Raises:
            TokenRequestRefused: the server refused; ``error`` is ``invalid_grant`` for a refresh token that it no
                longer takes, ``access_denied`` if the person refused, ``expired_token`` if nobody approved in time.
            TokenError: as :meth:`TokenEndpoint.token`.
            ConfigurationError: the server offers no device flow.
        """
        if previous is not None and previous.refresh_token:
            return self._refresh(previous, previous.refresh_token)
        return self._log_in()

    def _refresh(self, previous: Token, refresh_token: str) -> Token:
        grant = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)]
        grant += _still_granted(self._parameters, previous)
        try:
            token = self._endpoint.token(grant)
        except AuthorizationServerUnavailable as error:
            if error.status is not None:
                raise
            # The answer may have been lost, and the server may take the predecessor again for a moment, so: at once.
            token = self._endpoint.token(grant)
        return Token(
            token.value,
            token.lifetime,
            refresh_token=token.refresh_token or refresh_token,  # one that is not replaced goes on (section 6)
            scope=token.scope or previous.scope,
            since=token.since,
        )

    def _log_in(self) -> Token:
        if not self._endpoint.offers("device_authorization_endpoint"):
            raise ConfigurationError(
                f"{self._addresses['issuer']}: this server offers no device flow: its metadata has no "
                "device_authorization_endpoint"
            )
        answer, sent = self._endpoint.post("device_authorization_endpoint", self._parameters)
        life, interval = seconds_in(answer, "expires_in"), seconds_in(answer, "interval")
        if life is None:
            raise InvalidTokenResponse("device authorization response: expires_in is missing")
        over = Event()
        device_code = _required(answer, "device_code")
        login = DeviceLogin(
            _shown(answer, "user_code"),
            _shown(answer, "verification_uri" if "verification_uri" in answer else "verification_url"),  # Google's word
            _shown(answer, "verification_uri_complete") if answer.get("verification_uri_complete") else None,
            sent + life,
            over,
        )
        try:
            self._show(login)
            return self._poll(device_code, _INTERVAL if interval is None else interval, login.ends, life)
        finally:
            over.set()

    def _show(self, login: DeviceLogin) -> None:
        try:
            self._prompt(login)
        except Exception:  # noqa: BLE001 - a user's function, which has been given no secret
            _log.exception("prompt raised an exception; the login goes on")

    def _poll(self, device_code: str, interval: float, ends: float, life: float) -> Token:
        """Ask for the outcome until there is one (RFC 8628 section 3.5), never earlier than the server wants."""
        grant = [("grant_type", _GRANT_TYPE), ("device_code", device_code)]
        grant += [(name, value) for name, value in self._parameters if name == "resource"]  # RFC 8707 section 2.2
        delay, trouble = interval, None
        while True:
            _wait(min(delay, ends - monotonic()))
            if monotonic() >= ends:
                raise _too_late(life, trouble)
            try:
                answer, sent = self._endpoint.post("token_endpoint", grant, expected=(_PENDING, _SLOW_DOWN))
            except TokenRequestRefused as refusal:
                raise _in_plain_words(refusal, life) from None
            except TokenError as error:  # none of these is the server's word on the login, and each may pass
                delay, trouble = max(min(2 * delay, max(_SLOWEST, interval)), error.retry_after or 0.0), error
                continue
            if answer.get("error") == _SLOW_DOWN:
                interval += _INTERVAL
                with suppress(InvalidTokenResponse):
                    interval = max(interval, seconds_in(answer, "interval") or 0.0)  # GitHub tells the new one
            elif answer.get("error") != _PENDING:
                return self._endpoint.read_token(answer, sent)
            delay, trouble = interval, None


def _wait(seconds: float) -> None:
    time.sleep(max(0.0, seconds))


def _required(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidTokenResponse(f"device authorization response: {name} is missing or no string")
    return value


def _shown(answer: Mapping[str, Any], name: str) -> str:
    """A field that a person will see: on one line, and nothing that steers a terminal."""
    value = _required(answer, name)
    if not is_text(value):
        raise InvalidTokenResponse(f"device authorization response: {name} has characters that cannot be printed")
    return value


def _still_granted(parameters: list[tuple[str, str]], previous: Token) -> list[tuple[str, str]]:
    """The parameters for a refresh: without a scope, which then is the granted one, if more was asked for than was
    granted (RFC 6749 section 6).
    """
    granted = None if previous.scope is None else set(previous.scope.split())
    return [
        (name, value)
        for name, value in parameters
        if name != "scope" or granted is None or granted.issuperset(value.split())
    ]


def _too_late(life: float, trouble: TokenError | None) -> TokenRequestRefused:
    if trouble is None:
        return TokenRequestRefused(f"nobody approved the login within {_duration(life)}", error=_EXPIRED)
    why = f"the login was not completed within {_duration(life)}; the last look for its outcome failed: {trouble}"
    return TokenRequestRefused(why, error=_EXPIRED)


def _in_plain_words(refusal: TokenRequestRefused, life: float) -> TokenRequestRefused:
    words = {_DENIED: "the login was refused", _EXPIRED: f"nobody approved the login within {_duration(life)}"}
    if refusal.error not in words:
        return refusal
    told = f"{refusal.error}: {refusal.description}" if refusal.description else refusal.error
    message = f"{words[refusal.error]} ({told})"
    return TokenRequestRefused(message, error=refusal.error, description=refusal.description, status=refusal.status)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
