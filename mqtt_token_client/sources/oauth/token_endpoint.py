"""The token endpoint of an authorization server: a grant goes in, a token comes out (RFC 6749 sections 3.2 and 5)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, unquote_plus

from ...clock import ServerClock, monotonic
from ...errors import (
    AuthorizationServerUnavailable,
    ConfigurationError,
    InvalidTokenResponse,
    TokenError,
    TokenRequestRefused,
)
from ...token import Token
from .client_auth import ClientAuthentication, TokenRequest
from .discovery import discover
from .http import HttpClient, Reply, url_problem

_LONGEST_LIFE = 1e9  # seconds, 31 years: what is more is a time of day in the place of a duration
_MISTIMED = 1.0  # seconds, more than which the server's clock does not move for a Date that has no fractions
_LATER = ("temporarily_unavailable", "server_error", "slow_down")  # errors that pass (RFC 6749 4.1.2.1, RFC 8628 3.5)
_NO_SECRET = ("grant_type", "client_id", "scope", "audience", "resource", "client_assertion_type", "token_type_hint")


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
        transport: HttpClient,
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
        return self.read_token(*self.post("token_endpoint", grant))

    def read_token(self, answer: dict[str, Any], sent: float) -> Token:
        """The token in what :meth:`post` returned.

        Raises:
            InvalidTokenResponse: there is none.
        """
        try:
            return _token(answer, sent, self.clock)
        except InvalidTokenResponse:
            self._discovered = None  # this may be no token endpoint
            raise

    def post(
        self, endpoint: str, fields: Sequence[tuple[str, str]], expected: Sequence[str] = ()
    ) -> tuple[dict[str, Any], float]:
        """Send fields, with client authentication, to the endpoint that the metadata has under that name.

        Args:
            expected: the codes of errors that are returned like any answer, not raised.

        Returns:
            The JSON object of the answer, and the reading of :func:`~mqtt_token_client.clock.monotonic` when the
            request was sent.

        Raises:
            TokenError: as :meth:`token`.
        """
        request, reply, sent = self._send(endpoint, fields)
        answer = _read(reply, request)
        self._discovered = request.metadata
        if _has_error(answer) and answer["error"] not in expected:
            raise _refusal(answer, reply, request)
        return answer, sent

    def offers(self, endpoint: str) -> bool:
        """Whether the server has an endpoint of that name.

        Raises:
            TokenError: its metadata could not be fetched.
        """
        metadata = self._metadata()
        offered = metadata.get(endpoint) is not None
        self._discovered = metadata if offered else None  # what is not there today may be tomorrow
        return offered

    def revoke(self, token: str, hint: str) -> bool:
        """Have the server revoke an access token or a refresh token, which the hint says (RFC 7009 section 2).

        Returns:
            Whether the server has done so. One without an endpoint for that, or that cannot revoke this kind of token
            (section 2.2.1), keeps it until it ends.

        Raises:
            TokenError: as :meth:`token`.
        """
        if not self.offers("revocation_endpoint"):
            return False
        request, reply, _ = self._send("revocation_endpoint", [("token", token), ("token_type_hint", hint)])
        if reply.status >= 300:
            refusal = _refusal(_read(reply, request), reply, request)
            if isinstance(refusal, TokenRequestRefused) and refusal.error == "unsupported_token_type":
                return False
            raise refusal
        self._discovered = request.metadata
        return True  # whatever the body says (section 2.2)

    def _send(self, endpoint: str, fields: Sequence[tuple[str, str]]) -> tuple[TokenRequest, Reply, float]:
        metadata = self._metadata()
        self._discovered = None  # unless the server answers: it may have moved
        url = metadata.get(endpoint)
        problem = url_problem(url, allow_insecure=self._transport.allow_insecure)
        if problem:
            raise InvalidTokenResponse(f"{endpoint} in the server's metadata: {problem}")
        believed = self.clock.now() - monotonic()
        answered = self._try(str(url), metadata, fields)
        corrected = abs(self.clock.now() - monotonic() - believed)
        if corrected > _MISTIMED and _refuses_assertion(*answered):  # now we know the server's time
            answered = self._try(str(url), metadata, fields)
        return answered

    def _try(
        self, url: str, metadata: Mapping[str, Any], fields: Sequence[tuple[str, str]]
    ) -> tuple[TokenRequest, Reply, float]:
        request = TokenRequest(self._client_id, url, metadata, self.clock, list(fields))
        self._client_auth.authenticate(request)
        sent = monotonic()
        reply = self._transport.send(
            "POST", request.url, form=request.form, headers=request.headers, certificate=request.certificate
        )
        return request, reply, sent

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
        raise InvalidTokenResponse(f"{reply.url}: HTTP {reply.status} with {kind}, which is no answer of OAuth")
    return answer


def _refuses_assertion(request: TokenRequest, reply: Reply, _sent: float) -> bool:
    """Whether the server does not take the client's assertion (RFC 7523 section 3.2)."""
    if not any(name == "client_assertion" for name, _ in request.form):
        return False
    with suppress(InvalidTokenResponse):
        return bool(_read(reply, request).get("error") == "invalid_client")
    return False


def _has_error(answer: dict[str, Any]) -> bool:
    """Whether this is an error of RFC 6749 section 5.2, which some servers send with HTTP 200."""
    return isinstance(answer.get("error"), str) and answer["error"] != ""


def _refusal(answer: dict[str, Any], reply: Reply, request: TokenRequest) -> TokenError:
    told = answer.get("error_description")
    error, description = _shown(answer["error"], request), _shown(told if isinstance(told, str) else "", request)
    message = f"{reply.url}: {error}" + (f" ({description})" if description else "")
    if error == "invalid_client":
        message += f"; check client_id and {'client_secret' if _shows_secret(request) else 'client_auth'}"
    if error in _LATER:
        return AuthorizationServerUnavailable(message, retry_after=reply.retry_after, error=error, status=reply.status)
    return TokenRequestRefused(message, error=error, description=description, status=reply.status)


def _shows_secret(request: TokenRequest) -> bool:
    return "Authorization" in request.headers or any(name == "client_secret" for name, _ in request.form)


def _shown(text: str, request: TokenRequest) -> str:
    """A text of the server as it may stand in a message: without our secrets, on one line, 200 characters at most."""
    from html import unescape  # its table of entities takes 0.5 MiB, which a device whose server is well does not pay

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
    lifetime = seconds_in(answer, "expires_in")
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


def seconds_in(answer: Mapping[str, Any], name: str) -> float | None:
    """The duration in a field of an answer, which some servers send as a string; None if it is not there.

    Raises:
        InvalidTokenResponse: it is no number, or none of seconds.
    """
    told = answer.get(name)
    if told is None:
        return None
    seconds = math.nan
    if isinstance(told, int | float | str) and not isinstance(told, bool):
        with suppress(ValueError, OverflowError):
            seconds = float(told)
    if not 0 < seconds <= _LONGEST_LIFE:
        raise InvalidTokenResponse(f"the server's answer: {name} is no number of seconds that makes sense")
    return seconds
