"""TokenEndpoint: exchanges a grant for a token at an authorization server (RFC 6749 sections 3.2 and 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from ...clock import ServerClock, monotonic
from ...errors import (
    InvalidTokenResponse,
    TokenError,
    TokenRequestRefused,
)
from ...token import Token
from ...value import hide
from .client_auth import ClientAuthentication, TokenRequest
from .discovery import discover
from .http import HttpClient, Reply, url_problem
from .token_response import issue_time, token_in

_CLOCK_PRECISION = 1.0  # seconds: a Date has no fractions


_SECRET_FIELDS = ("access_token", "refresh_token", "id_token", "device_code")  # of an answer


class TokenEndpoint:
    """Requests tokens from one authorization server, for any grant. Safe to use from several threads.

    Args:
        client_id: the client that requests them.
        client_auth: authenticates the client.
        server: the issuer, whose metadata is fetched before the first request and again after a failure or a refusal of
            the client; or the metadata itself, if there is no discovery.
        http: sends the requests.
        given: endpoints that count instead of those in the metadata.
    """

    def __init__(
        self,
        client_id: str,
        client_auth: ClientAuthentication,
        server: str | Mapping[str, Any],
        http: HttpClient,
        given: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._client_id = client_id
        self._client_auth = client_auth
        self._server = server
        self._http = http
        self._given = given
        self._discovered: Mapping[str, Any] | None = None

    @property
    def clock(self) -> ServerClock:
        """The server's time of day."""
        return self._http.clock

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The server's metadata (RFC 8414), which is fetched if that has not been done. Blocks.

        Raises:
            TokenError: it could not be fetched.
        """
        return self._metadata("token_endpoint")

    def keys(self) -> set[str]:
        """The identifiers of the keys that the server signs with, which are fetched (RFC 7517); empty if its metadata
        do not say where they are. Blocks.

        Raises:
            TokenError: they could not be fetched.
        """
        url = self._metadata("jwks_uri").get("jwks_uri")
        if not isinstance(url, str) or url_problem(url, allow_insecure=self._http.allow_insecure):
            return set()
        reply = self._http.send("GET", url)
        with suppress(ValueError, RecursionError, TypeError, AttributeError, KeyError):
            return {key["kid"] for key in json.loads(reply.body)["keys"] if isinstance(key.get("kid"), str)}
        return set()

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
        answer = self._read(endpoint, request, reply)
        refused = _has_error(answer) and answer["error"] not in expected
        if not (refused and _rejects_client(answer)):  # how it proves who it is, and where, is in the metadata
            self._discovered = request.metadata
        if refused:
            raise _refusal(answer, reply, request)
        return answer, sent

    def offers(self, endpoint: str) -> bool:
        """Whether the server has an endpoint of that name.

        Raises:
            TokenError: its metadata could not be fetched.
        """
        metadata = self._metadata(endpoint)
        offered = metadata.get(endpoint) is not None
        self._discovered = metadata if offered else None  # if it is missing now, look again the next time
        return offered

    def supports(self, name: str, value: str) -> bool:
        """Whether the server's metadata has a list of that name with this value in it.

        Raises:
            TokenError: its metadata could not be fetched.
        """
        self._discovered = metadata = self._metadata("token_endpoint")
        values = metadata.get(name)
        return isinstance(values, list) and value in values

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
            refusal = _refusal(self._read("revocation_endpoint", request, reply), reply, request)
            if isinstance(refusal, TokenRequestRefused) and refusal.error == "unsupported_token_type":
                return False
            raise refusal
        self._discovered = request.metadata
        return True  # whatever the body says (section 2.2)

    def _send(self, endpoint: str, fields: Sequence[tuple[str, str]]) -> tuple[TokenRequest, Reply, float]:
        metadata = self._metadata(endpoint)
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

    def _read(self, endpoint: str, request: TokenRequest, reply: Reply) -> dict[str, Any]:
        answer = _object_in(reply)
        if answer is None:
            from .refusals import not_oauth

            configured = endpoint in self._given or not isinstance(self._server, str)
            raise not_oauth(reply, request, endpoint, configured=configured)
        return answer

    def _metadata(self, endpoint: str) -> Mapping[str, Any]:
        """Return the server's metadata, from wherever they have this endpoint."""
        known: Mapping[str, Any] | None = self._discovered
        if not isinstance(self._server, str):
            known = self._server
        elif known is None or (endpoint not in known and endpoint not in self._given):
            known = discover(self._server, self._http, endpoint)
        return {**known, **self._given}


def _refusal(answer: dict[str, Any], reply: Reply, request: TokenRequest) -> TokenError:
    from .refusals import refusal  # with a table of entities that takes 0.5 MiB

    return refusal(answer, reply, request)


def _object_in(reply: Reply) -> dict[str, Any] | None:
    """Return the JSON object of an answer if it is one of OAuth: a success or an error response. HTTP 404 and 405 mean
    that there is no such endpoint, also with a body that looks like an error of OAuth, as Keycloak's does.
    """
    answer = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(reply.body)
    if not isinstance(answer, dict) or reply.status in (404, 405) or (reply.status >= 300 and not _has_error(answer)):
        return None
    return hide(answer, answer if _has_error(answer) else _SECRET_FIELDS)  # an error may repeat what was sent


def _rejects_assertion(request: TokenRequest, reply: Reply) -> bool:
    """Whether the server rejected the client's assertion (RFC 7523 section 3.2)."""
    answer = _object_in(reply)
    return request.timed and answer is not None and _has_error(answer) and _rejects_client(answer)


def _rejects_client(answer: dict[str, Any]) -> bool:
    """Whether this error response is about who the client is."""
    from .refusals import CLIENT_ERRORS

    return answer["error"] in CLIENT_ERRORS


def _has_error(answer: dict[str, Any]) -> bool:
    """Whether this is an error response (RFC 6749 section 5.2), which some servers send with HTTP 200."""
    return isinstance(answer.get("error"), str) and answer["error"] != ""
