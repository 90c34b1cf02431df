"""TokenEndpoint: exchanges a grant for a token at an authorization server (RFC 6749 sections 3.2 and 5)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, unquote_plus

from ...clock import ServerClock, monotonic
from ...errors import (
    AuthorizationServerUnavailable,
    InvalidTokenResponse,
    TokenError,
    TokenRequestRefused,
)
from ...logs import printable
from ...token import Token
from .client_auth import ClientAuthentication, TokenRequest
from .discovery import discover
from .http import HttpClient, Reply, url_problem
from .token_response import issue_time, token_in

_CLOCK_PRECISION = 1.0  # seconds: a Date has no fractions
_TEMPORARY = ("temporarily_unavailable", "server_error", "slow_down")  # RFC 6749 section 4.1.2.1, RFC 8628 section 3.5
_CLIENT_ERRORS = ("invalid_client", "unauthorized_client")  # RFC 6749 section 5.2; Keycloak has the second for both
_PUBLIC_FIELDS = (
    "grant_type",
    "client_id",
    "scope",
    "audience",
    "resource",
    "client_assertion_type",
    "token_type_hint",
)


class TokenEndpoint:
    """Requests tokens from one authorization server, for any grant. Safe to use from several threads.

    Args:
        client_id: the client that requests them.
        client_auth: authenticates the client.
        server: the issuer, whose metadata is fetched before the first request and again after a failure; or the
            metadata itself, if there is no discovery.
        http: sends the requests.
    """

    def __init__(
        self,
        client_id: str,
        client_auth: ClientAuthentication,
        server: str | Mapping[str, Any],
        http: HttpClient,
    ) -> None:
        self._client_id = client_id
        self._client_auth = client_auth
        self._server = server
        self._http = http
        self._discovered: Mapping[str, Any] | None = None

    @property
    def clock(self) -> ServerClock:
        """The server's time of day."""
        return self._http.clock

    def token(self, grant: Sequence[tuple[str, str]]) -> Token:
        """Request a token for a grant (its ``grant_type`` and other fields).

        Raises:
            AuthorizationServerUnavailable: no answer, or one that says to try again later.
            AuthorizationServerUntrusted: the server's certificate is not trusted.
            TokenRequestRefused: the server rejected the request (RFC 6749 section 5.2).
            InvalidTokenResponse: the answer is not a token response (RFC 6749 section 5.1).
            IssuerMismatch: the metadata found under the issuer is another issuer's.
        """
        return self.read_token(*self.post("token_endpoint", grant))

    def read_token(self, answer: dict[str, Any], sent: float) -> Token:
        """Read the token from the answer that :meth:`post` returned.

        Raises:
            InvalidTokenResponse: there is no usable token in it.
        """
        try:
            token = token_in(answer, sent, self.clock)
        except InvalidTokenResponse:
            self._discovered = None  # this may be no token endpoint
            raise
        issued = issue_time(token, answer)
        if issued is not None:
            self.clock.learn_from(issued, sent)
        return token

    def post(
        self, endpoint: str, fields: Sequence[tuple[str, str]], expected: Sequence[str] = ()
    ) -> tuple[dict[str, Any], float]:
        """Send fields, with client authentication, to an endpoint, named as in the server's metadata.

        Args:
            expected: the codes of errors that are returned like any other answer, not raised.

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
        self._discovered = metadata if offered else None  # if it is missing now, look again the next time
        return offered

    def revoke(self, token: str, hint: str) -> bool:
        """Revoke a token at the server (RFC 7009 section 2).

        Args:
            hint: ``access_token`` or ``refresh_token``.

        Returns:
            Whether the server revoked it. If it has no endpoint for that, or cannot revoke this kind of token (section
            2.2.1), the token stays valid until it expires.

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
        self._discovered = None  # discover again unless the server answers: its endpoints may have moved
        url = metadata.get(endpoint)
        problem = url_problem(url, allow_insecure=self._http.allow_insecure)
        if problem:
            raise InvalidTokenResponse(f"{endpoint} in the server's metadata {problem}")
        identify = endpoint == "device_authorization_endpoint"
        request, reply, sent, correction = self._try(str(url), metadata, fields, identify=identify)
        if correction > _CLOCK_PRECISION and _rejects_assertion(request, reply):  # the times in it were wrong
            request, reply, sent, _ = self._try(str(url), metadata, fields, identify=identify)
        return request, reply, sent

    def _try(
        self, url: str, metadata: Mapping[str, Any], fields: Sequence[tuple[str, str]], *, identify: bool
    ) -> tuple[TokenRequest, Reply, float, float]:
        """Send a request once. The last value returned says by how many seconds the answer has changed the time."""
        request = TokenRequest(self._client_id, url, metadata, self.clock, list(fields))
        self._client_auth.authenticate(request)
        if identify and not any(name == "client_id" for name, _ in request.form):
            # RFC 8628 section 3.1 requires it only of a public client; several servers require it of all.
            request.form.append(("client_id", self._client_id))
        sent = monotonic()
        offset = self.clock.now() - sent
        reply = self._http.send(
            "POST", request.url, form=request.form, headers=request.headers, certificate=request.certificate
        )
        return request, reply, sent, abs(self.clock.now() - monotonic() - offset)

    def _metadata(self) -> Mapping[str, Any]:
        if not isinstance(self._server, str):
            return self._server
        return self._discovered or discover(self._server, self._http)


def _read(reply: Reply, request: TokenRequest) -> dict[str, Any]:
    answer = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(reply.body)
    if not isinstance(answer, dict) or (reply.status >= 300 and not _has_error(answer)):
        kind = _shown(reply.headers.get("Content-Type", "no content type"), request)
        raise InvalidTokenResponse(f"{reply.url}: HTTP {reply.status} with {kind}, which is not an OAuth response")
    return answer


def _rejects_assertion(request: TokenRequest, reply: Reply) -> bool:
    """Whether the server rejected the client's assertion (RFC 7523 section 3.2)."""
    if not _has_assertion(request):
        return False
    with suppress(InvalidTokenResponse):
        return _read(reply, request).get("error") in _CLIENT_ERRORS
    return False


def _has_assertion(request: TokenRequest) -> bool:
    return any(name == "client_assertion" for name, _ in request.form)


def _has_error(answer: dict[str, Any]) -> bool:
    """Whether this is an error response (RFC 6749 section 5.2), which some servers send with HTTP 200."""
    return isinstance(answer.get("error"), str) and answer["error"] != ""


def _refusal(answer: dict[str, Any], reply: Reply, request: TokenRequest) -> TokenError:
    text = answer.get("error_description")
    error, description = _shown(answer["error"], request), _shown(text if isinstance(text, str) else "", request)
    message = f"{reply.url}: {error}" + (f" ({description})" if description else "")
    if error in _TEMPORARY:
        return AuthorizationServerUnavailable(message, retry_after=reply.retry_after, error=error, status=reply.status)
    by_own_clock = error in _CLIENT_ERRORS and _has_assertion(request) and not request.clock.known
    if by_own_clock:
        message += f"; {_own_clock()}; also"
    if error in _CLIENT_ERRORS:
        message += f"{'' if by_own_clock else ';'} check {_what_to_check(error, request)}"
    refusal = TokenRequestRefused(message, error=error, description=description, status=reply.status)
    refusal.permanent = not by_own_clock  # it may be accepted once the clock is right
    return refusal


def _own_clock() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return (
        f"the assertion has the time of this device's clock, {now}, as the server sends no Date: if that is wrong, set "
        "the clock or give client_auth a time_from"
    )


def _what_to_check(error: str, request: TokenRequest) -> str:
    what = "client_id and " + ("client_secret" if _shows_secret(request) else "client_auth")
    # It is the error for a client that may not use this grant, but Keycloak's for a wrong secret too.
    return what if error == "invalid_client" else f"{what}, and whether the server allows the client this grant"


def _shows_secret(request: TokenRequest) -> bool:
    return "Authorization" in request.headers or any(name == "client_secret" for name, _ in request.form)


def _shown(text: str, request: TokenRequest) -> str:
    """Make text from the server safe for a message: without our secrets, on one line, at most 200 characters."""
    from html import unescape  # imported for an error only: its table of entities takes 0.5 MiB

    secrets = {*request.secrets, *(value for name, value in request.form if name not in _PUBLIC_FIELDS)} - {""}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    if any(secret in decoded for decoded in (unquote(text), unquote_plus(text), unescape(text)) for secret in secrets):
        return "a text that contains a secret, not shown"
    return printable(" ".join(text.split()))
