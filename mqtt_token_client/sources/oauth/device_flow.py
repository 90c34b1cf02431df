"""DeviceFlow: a person approves the device on another screen, once (RFC 8628); then it renews the token itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
from ...logs import LONGEST_TEXT, get_logger
from ...token import Token
from ...value import hidden, hide
from .client_auth import ClientAuthentication, PublicClient
from .device_login import LONGEST_URL, DeviceLogin
from .grant import Grant, client_authentication, grant_parameters, is_text
from .http import HttpClient
from .terminal import show_login
from .token_response import refresh_token_in, seconds_in

if TYPE_CHECKING:
    from pathlib import Path

_log = get_logger("mqtt_token_client.sources")

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_PENDING, _SLOW_DOWN, _EXPIRED = "authorization_pending", "slow_down", "expired_token"
_DENIED = ("access_denied", "authorization_declined")  # the second is Microsoft's
_SHORTEST_INTERVAL = 0.1  # seconds: the field is a whole number, but some test servers are quicker
_INTERVAL = 5.0  # seconds between polls by default, and what slow_down adds (sections 3.2, 3.5)
_LONGEST_INTERVAL = 60.0  # seconds: section 3.2 says SHOULD, and a person who has approved waits for the next poll
_MAX_BACKOFF = 60.0  # seconds between polls that fail, unless the server asked for more
_LAST_POLL = 5.0  # seconds before the code expires: after polls that failed, the next one is made by then


class DeviceFlow(Grant):
    """A token source: the device flow (RFC 8628), and then the refresh token that it brought (RFC 6749 section 6).

    Most servers issue a refresh token only if the scope requests it, for example with ``offline_access``; without one,
    a person has to approve each new token. Arguments that are not described here are those of
    :class:`~mqtt_token_client.ClientCredentials`.

    Args:
        issuer: the issuer identifier of the authorization server; its endpoints are discovered.
        device_authorization_endpoint: the URL of that endpoint; with ``token_endpoint``, instead of ``issuer``.
        client_secret: the client's secret, or the path of its file, or
        client_auth: another client authentication; by default none (``PublicClient``).
        prompt: a function of one :class:`DeviceLogin` that shows it to a person. It is called on the thread that
            requests the token, and polling starts once it has returned. By default it prints to stderr. An exception
            that it raises is logged, and the login goes on, as the person may have seen enough.

    Raises:
        ConfigurationError: an argument is wrong, or cannot be combined with another.
    """

    _name = "device_flow"
    uses_refresh_tokens = True  # a keeper then lets SIGTERM wait for the answer with the next one

    def __init__(
        self,
        *,
        client_id: str,
        issuer: str | None = None,
        device_authorization_endpoint: str | None = None,
        token_endpoint: str | None = None,
        revocation_endpoint: str | None = None,
        client_secret: str | Path | None = None,
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
        client_secret, proxies = (
            hidden(client_secret),
            hide(proxies, proxies) if isinstance(proxies, Mapping) else proxies,
        )
        if not callable(prompt):
            raise ConfigurationError(f"prompt must be a function of one DeviceLogin, got {type(prompt).__name__}")
        super().__init__(
            client_id,
            issuer,
            {"device_authorization_endpoint": device_authorization_endpoint, "token_endpoint": token_endpoint},
            client_authentication(client_secret, client_auth, PublicClient()),
            grant_parameters(scope, audience, resource, extra),
            HttpClient(timeout, ca_bundle, proxies, allow_insecure),
            revocation_endpoint,
        )
        self._prompt = prompt
        self._salvaged: Token | None = None

    def fetch(self, previous: Token | None) -> Token:
        """Request a new token: with the refresh token of ``previous``, or if it has none by asking a person, which may
        take until the login expires.

        If the server rejects the refresh token, no person is asked yet, as another process may have renewed it: look
        for a newer one, then call ``fetch(None)``.

        Raises:
            TokenRequestRefused: the server rejected the request; ``error`` is ``invalid_grant`` if it no longer accepts
                the refresh token, ``access_denied`` if the person refused, ``expired_token`` if nobody approved in
                time.
            TokenError: as :meth:`TokenEndpoint.token`.
            ConfigurationError: the server does not support the device flow.
        """
        if previous is not None and previous.refresh_token:
            return self._refresh(previous, previous.refresh_token)
        return self._log_in()

    def salvage(self) -> Token | None:
        """After :meth:`fetch` has failed: the previous token with the new refresh token that the failed answer brought,
        if it brought one. The old one is used up, so it must be stored; the second call returns None.
        """
        salvaged, self._salvaged = self._salvaged, None
        return salvaged

    def _refresh(self, previous: Token, refresh_token: str) -> Token:
        grant = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)]
        grant += _still_granted(self._parameters, previous)
        try:
            answer, sent = self._endpoint.post("token_endpoint", grant)
        except AuthorizationServerUnavailable as error:
            if error.status is not None:
                raise
            # The answer may have been lost. Many servers accept a used refresh token for a moment longer: try at once.
            answer, sent = self._endpoint.post("token_endpoint", grant)
        successor = refresh_token_in(answer) or refresh_token  # without a new one, the old one stays valid (section 6)
        try:
            token = self._endpoint.read_token(answer, sent)
        except InvalidTokenResponse:
            if successor != refresh_token:
                self._salvaged = previous.with_refresh_token(successor)
            raise
        # The expiry of a refresh token that is not replaced is not carried over: renewing earlier would not move it.
        return token.with_refresh_token(
            successor, expires_in=token.refresh_lifetime, scope=token.scope or previous.scope
        )

    def _log_in(self) -> Token:
        if not self._endpoint.offers("device_authorization_endpoint"):
            raise ConfigurationError(
                f"{self._addresses['issuer']}: this server does not support the device flow: its metadata has no "
                "device_authorization_endpoint"
            )
        proof, answer, sent = self._begin()
        lifetime = seconds_in(answer, "expires_in")
        interval = seconds_in(answer, "interval") or _INTERVAL
        if lifetime is None:
            raise InvalidTokenResponse("device authorization response: expires_in is missing or not a valid duration")
        over = Event()
        device_code = _required(answer, "device_code")
        login = DeviceLogin(
            _shown(answer, "user_code"),
            _url(answer, "verification_uri" if "verification_uri" in answer else "verification_url"),  # Google's name
            _url(answer, "verification_uri_complete") if answer.get("verification_uri_complete") else None,
            sent + lifetime,
            over,
        )
        try:
            self._show(login)
            return self._poll(device_code, proof, interval, login.ends, lifetime)
        finally:
            over.set()

    def _begin(self) -> tuple[list[tuple[str, str]], dict[str, Any], float]:
        """Ask for a code. The first value returned is the proof for the token requests: the fields of RFC 7636, where
        the server supports them, as some then require them.
        """
        if self._endpoint.supports("code_challenge_methods_supported", "S256"):
            from .pkce import ProofKey

            key = ProofKey()
            try:
                answer, sent = self._endpoint.post("device_authorization_endpoint", [*self._parameters, *key.challenge])
            except TokenRequestRefused as refusal:
                if refusal.error != "invalid_request":  # of a server that supports it in other flows only
                    raise
            else:
                return key.verifier, answer, sent
        return [], *self._endpoint.post("device_authorization_endpoint", self._parameters)

    def _show(self, login: DeviceLogin) -> None:
        try:
            self._prompt(login)
        except Exception:  # noqa: BLE001 - a user's function, which has no access to a secret
            _log.exception("prompt raised an exception; the login goes on")

    def _poll(
        self, device_code: str, proof: list[tuple[str, str]], interval: float, deadline: float, lifetime: float
    ) -> Token:
        """Poll until there is an outcome (RFC 8628 section 3.5), never more often than the server allows."""
        grant = [("grant_type", _GRANT_TYPE), ("device_code", device_code), *proof]
        grant += [(name, value) for name, value in self._parameters if name == "resource"]  # RFC 8707 section 2.2

        def possible(seconds: float) -> float:
            """One that leaves no time for a second poll cannot be meant."""
            return seconds if 2 * seconds < lifetime else min(seconds, _LONGEST_INTERVAL, max(_INTERVAL, lifetime / 3))

        interval = possible(max(interval, _SHORTEST_INTERVAL))
        delay, failure = interval, None
        while True:
            _wait(min(delay, deadline - monotonic()))
            if monotonic() >= deadline:
                raise _too_late(lifetime, failure)
            try:
                answer, sent = self._endpoint.post("token_endpoint", grant, expected=(_PENDING, _SLOW_DOWN))
            except TokenRequestRefused as refusal:
                if not proof or refusal.error != "invalid_request":
                    raise _in_plain_words(refusal, lifetime) from None
                grant, proof = [field for field in grant if field not in proof], []
                continue
            except TokenError as error:  # none of these is the outcome of the login, and each may be temporary
                least, last = max(interval, error.retry_after or 0.0), deadline - monotonic() - _LAST_POLL
                delay, failure = max(least, min(2 * delay, _MAX_BACKOFF, last)), error
                continue
            if answer.get("error") == _SLOW_DOWN:
                asked = seconds_in(answer, "interval") or 0.0  # GitHub sends the new one
                interval = max(possible(interval + _INTERVAL), possible(asked))
            elif answer.get("error") != _PENDING:
                return self._endpoint.read_token(answer, sent)
            delay, failure = interval, None


def _wait(seconds: float) -> None:
    time.sleep(max(0.0, seconds))


def _required(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidTokenResponse(f"device authorization response: {name} must be a non-empty string")
    return value


def _shown(answer: Mapping[str, Any], name: str, limit: int = LONGEST_TEXT) -> str:
    """Return a field that a person will see: one line, without control characters."""
    value = _required(answer, name)
    if not is_text(value) or len(value) > limit:
        problem = f"must not contain control characters, nor more than {limit} characters"
        raise InvalidTokenResponse(f"device authorization response: {name} {problem}")
    return value


def _url(answer: Mapping[str, Any], name: str) -> str:
    """Return an address that a person will open: a link to anything else than a web page may run code."""
    value = _shown(answer, name, LONGEST_URL)
    if not value.lower().startswith(("https://", "http://")):
        raise InvalidTokenResponse(f"device authorization response: {name} must be an https or http URL")
    return value


def _still_granted(parameters: list[tuple[str, str]], previous: Token) -> list[tuple[str, str]]:
    """Return the parameters for a refresh: without the scope if more was requested than was granted, as it then
    defaults to the granted one (RFC 6749 section 6).
    """
    granted = None if previous.scope is None else set(previous.scope.split())
    return [
        (name, value)
        for name, value in parameters
        if name != "scope" or granted is None or granted.issuperset(value.split())
    ]


def _too_late(lifetime: float, failure: TokenError | None) -> TokenRequestRefused:
    if failure is None:
        return TokenRequestRefused(f"nobody approved the login within {_duration(lifetime)}", error=_EXPIRED)
    why = (
        f"the login was not completed within {_duration(lifetime)}; the last request for its outcome failed: {failure}"
    )
    return TokenRequestRefused(why, error=_EXPIRED)


def _in_plain_words(refusal: TokenRequestRefused, lifetime: float) -> TokenRequestRefused:
    if refusal.error in _DENIED:
        words = "the person refused the login"
    elif refusal.error == _EXPIRED:
        words = f"nobody approved the login within {_duration(lifetime)}"
    else:
        return refusal
    code = f"{refusal.error}: {refusal.description}" if refusal.description else refusal.error
    message = f"{words} ({code})"
    return TokenRequestRefused(message, error=refusal.error, description=refusal.description, status=refusal.status)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
