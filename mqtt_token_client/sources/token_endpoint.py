"""The token endpoint of an authorization server: a grant goes in, a token comes out (RFC 6749 sections 3.2 and 5)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import unescape
from typing import Any
from urllib.parse import unquote, unquote_plus

from ..clock import ServerClock, elapsed
from ..errors import (
    AuthorizationServerUnavailable,
    ConfigurationError,
    InvalidTokenResponse,
    TokenError,
    TokenRequestRefused,
)
from ..token import Token
from .client_auth import ClientAuthentication, TokenRequest
from .discovery import discover
from .exchange import Reply, Transport, url_problem

_LONGEST_LIFE = 1e9  # seconds, 31 years: what is more is a time of day in the place of a duration
_LATER = ("temporarily_unavailable", "server_error", "slow_down")  # errors that pass (RFC 6749 4.1.2.1, RFC 8628 3.5)
_NO_SECRET = ("grant_type", "client_id", "scope", "audience", "resource", "client_assertion_type")


class TokenEndpoint:
    """Asks one authorization server for tokens, whatever the grant. Safe to use from several threads.

    Args:
        client_id: the client that asks.
        client_auth: proves it.
        server: the issuer, whose metadata is fetched before the first request and again after a failure; or the
            metadata itself, where there is nothing to discover.
        transport: how the server is reached.
    """

    def __init__(
        self,
        client_id: str,
        client_auth: ClientAuthentication,
        server: str | Mapping[str, Any],
        transport: Transport,
    ) -> None:
        self._client_id = client_id
        self._client_auth = client_auth
        self._server = server
        self._transport = transport
        self._discovered: Mapping[str, Any] | None = None

    @property
    def clock(self) -> ServerClock:
        """The server's time of day."""
        return self._transport.clock

    def token(self, grant: Sequence[tuple[str, str]]) -> Token:
        """The token that the server issues for a grant (its ``grant_type`` and other fields).

        Raises:
            AuthorizationServerUnavailable: no answer, or one that says to come back later.
            AuthorizationServerUntrusted: the server's certificate is refused.
            TokenRequestRefused: the server refused the request (RFC 6749 section 5.2).
            InvalidTokenResponse: the answer is no token response (RFC 6749 section 5.1).
            IssuerMismatch: the metadata found under the issuer is another issuer's.
        """
        answer, sent = self.post("token_endpoint", grant)
        try:
            return _token(answer, sent, self.clock)
        except InvalidTokenResponse:
            self._discovered = None  # this may be no token endpoint
            raise

    def post(self, endpoint: str, fields: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], float]:
        """Send fields, with client authentication, to the endpoint that the metadata has under that name.

        Returns:
            The JSON object of the answer, and the reading of :func:`~mqtt_token_client.clock.elapsed` when the
            request was sent.

        Raises:
            TokenError: as :meth:`token`.
        """
        metadata = self._metadata()
        self._discovered = None  # unless the server answers: it may have moved
        url = metadata.get(endpoint)
        problem = url_problem(url, allow_insecure=self._transport.allow_insecure)
        if problem:
            raise InvalidTokenResponse(f"{endpoint} in the server's metadata: {problem}")
        request = TokenRequest(self._client_id, str(url), metadata, self.clock, list(fields))
        self._client_auth.authenticate(request)
        sent = elapsed()
        reply = self._transport.exchange(
            "POST", request.url, form=request.form, headers=request.headers, certificate=request.certificate
        )
        answer = _read(reply, request)
        self._discovered = metadata
        if _has_error(answer):
            raise _refusal(answer, reply, request)
        return answer, sent

    def _metadata(self) -> Mapping[str, Any]:
        if not isinstance(self._server, str):
            return self._server
        return self._discovered or discover(self._server, self._transport)


def _read(reply: Reply, request: TokenRequest) -> dict[str, Any]:
    answer = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(reply.body)
    if not isinstance(answer, dict) or (reply.status >= 300 and not _has_error(answer)):
        kind = _shown(reply.headers.get("Content-Type", "no content type"), request)
        raise InvalidTokenResponse(f"{reply.url}: HTTP {reply.status} with {kind}, which is no token response")
    return answer


def _has_error(answer: dict[str, Any]) -> bool:
    """Whether this is an error of RFC 6749 section 5.2, which some servers send with HTTP 200."""
    return isinstance(answer.get("error"), str) and answer["error"] != ""


def _refusal(answer: dict[str, Any], reply: Reply, request: TokenRequest) -> TokenError:
    told = answer.get("error_description")
    error, description = _shown(answer["error"], request), _shown(told if isinstance(told, str) else "", request)
    message = f"{reply.url}: {error}" + (f" ({description})" if description else "")
    if error in _LATER:
        return AuthorizationServerUnavailable(message, retry_after=reply.retry_after)
    return TokenRequestRefused(message, error=error, description=description, status=reply.status)


def _shown(text: str, request: TokenRequest) -> str:
    """A text of the server as it may stand in a message: without our secrets, on one line, 200 characters at most."""
    secrets = {*request.secrets, *(value for name, value in request.form if name not in _NO_SECRET)} - {""}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    if any(secret in decoded for decoded in (unquote(text), unquote_plus(text), unescape(text)) for secret in secrets):
        return "a text with a secret in it, not shown"
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return text if len(text) <= 200 else text[:199] + "…"


def _token(answer: dict[str, Any], sent: float, clock: ServerClock) -> Token:
    kind = answer.get("token_type")
    if kind is not None and not (isinstance(kind, str) and kind.lower().startswith("bearer")):
        raise InvalidTokenResponse("token response: token_type is not Bearer, and no other can be an MQTT password")
    value, refresh_token, scope = (_text(answer, name) for name in ("access_token", "refresh_token", "scope"))
    lifetime = _lifetime(answer.get("expires_in"))
    token = None
    with suppress(ConfigurationError):
        token = Token(value or "", lifetime, refresh_token=refresh_token, scope=scope, since=sent)
    if token is None:
        raise InvalidTokenResponse("token response: access_token is missing or makes no sense")
    exp = token.claims.get("exp")
    # The server may hand out a token that it made earlier, and still tell the whole life. It issues none that has
    # ended: where its Date says so, that Date is of something between us and it.
    if clock.known and isinstance(exp, int | float) and 0 < (left := exp - clock.now()) < token.lifetime:
        return Token(token.value, left, refresh_token=refresh_token, scope=scope, since=sent)
    return token


def _text(answer: dict[str, Any], name: str) -> str | None:
    value = answer.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidTokenResponse(f"token response: {name} is no string")
    return value


def _lifetime(expires_in: object) -> float | None:
    """Seconds of ``expires_in``, which some servers send as a string."""
    if expires_in is None:
        return None
    seconds = math.nan
    if isinstance(expires_in, int | float | str) and not isinstance(expires_in, bool):
        with suppress(ValueError, OverflowError):
            seconds = float(expires_in)
    if not 0 < seconds <= _LONGEST_LIFE:
        raise InvalidTokenResponse("token response: expires_in is no number of seconds that a token can live")
    return seconds
