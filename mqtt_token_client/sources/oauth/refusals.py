"""Why an authorization server issued no token: its answer as an error that says what to change. Loaded when needed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from html import unescape
from typing import Any
from urllib.parse import unquote, unquote_plus

from ...errors import AuthorizationServerUnavailable, InvalidTokenResponse, TokenError, TokenRequestRefused
from ...logs import LONGEST_TEXT, printable
from .client_auth import TokenRequest
from .http import Reply

CLIENT_ERRORS = ("invalid_client", "unauthorized_client")  # RFC 6749 section 5.2; Keycloak has the second for both
_TEMPORARY = ("temporarily_unavailable", "server_error", "slow_down")  # RFC 6749 section 4.1.2.1, RFC 8628 section 3.5
_PUBLIC_FIELDS = (
    "grant_type",
    "client_id",
    "scope",
    "audience",
    "resource",
    "client_assertion_type",
    "token_type_hint",
)
# Where servers put the reason of an error that is not one of OAuth (RFC 9457 has the last two).
_REASONS = ("error", "error_description", "message", "errorMessage", "title", "detail")
_MOST_READ = 10_000  # characters of a text
_HEAD = LONGEST_TEXT // 3  # characters that are kept of its beginning, if it is too long


def refusal(answer: dict[str, Any], reply: Reply, request: TokenRequest) -> TokenError:
    """Return the error that an error response means (RFC 6749 section 5.2)."""
    text = answer.get("error_description")
    error, description = _shown(answer["error"], request), _shown(text if isinstance(text, str) else "", request)
    message = f"{reply.url}: {error}" + (f" ({description})" if description else "")
    if error in _TEMPORARY:
        return AuthorizationServerUnavailable(message, retry_after=reply.retry_after, error=error, status=reply.status)
    by_own_clock = error in CLIENT_ERRORS and request.timed and not request.clock.known
    if by_own_clock:
        message += f"; {_own_clock()}; also"
    if error in CLIENT_ERRORS:
        message += f"{'' if by_own_clock else ';'} check {_what_to_check(error, request)}"
    refused = TokenRequestRefused(message, error=error, description=description, status=reply.status)
    refused.permanent = not by_own_clock  # it may be accepted once the clock is right
    return refused


def not_oauth(reply: Reply, request: TokenRequest, endpoint: str, *, configured: bool) -> InvalidTokenResponse:
    """Return the error for an answer that OAuth does not know.

    Args:
        endpoint: its name in the server's metadata.
        configured: whether its URL was given by a person, so that only a person can correct it.
    """
    kind = _shown(reply.headers.get("Content-Type", "no content type"), request)
    message = f"{reply.url}: HTTP {reply.status} with {kind}, which is not an OAuth response"
    reason = _shown(reason_in(reply), request)
    if reason:
        message += f": {reason}"
    wrong_url = configured and reply.status in (404, 405)
    error = InvalidTokenResponse(message + (f"; check {endpoint}" if wrong_url else ""))
    error.permanent = wrong_url
    return error


def reason_in(reply: Reply) -> str:
    """Return what an answer says about an error, in whatever form; empty if it says nothing that could be shown."""
    with suppress(ValueError, RecursionError):
        answer = json.loads(reply.body)
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):  # as Google and Microsoft Graph do
            answer = answer["error"]
        if isinstance(answer, dict):
            reasons = [text for name in _REASONS if isinstance(text := answer.get(name), str) and text]
            return ": ".join(reasons[:2])
    if reply.headers.get("Content-Type", "").startswith("text/plain"):
        return reply.body[:_MOST_READ].decode(errors="replace")
    return ""


def one_line(text: str) -> str:
    """Return text from a server as one printable line of at most 200 characters. Of a longer one the beginning and the
    end are kept: several servers put the cause last.
    """
    line = _whole_line(text)
    return line if len(line) <= LONGEST_TEXT else f"{line[:_HEAD]}…{line[_HEAD + 1 - LONGEST_TEXT :]}"


def _whole_line(text: str) -> str:
    return printable(" ".join(text[:_MOST_READ].split()), _MOST_READ)


def _shown(text: str, request: TokenRequest) -> str:
    """Make text from the server safe for a message: without the secrets of the request, on one line, not too long."""
    secrets = {*request.secrets, *(value for name, value in request.form if name not in _PUBLIC_FIELDS)} - {""}
    masked = _masked(text, secrets)
    if _holds(masked, secrets):
        return "a text that contains a secret, not shown"
    return one_line(_masked(_whole_line(masked), secrets))  # a secret may have had something unprintable in it


def _masked(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _holds(text: str, secrets: Iterable[str]) -> bool:
    decoded = [one for decode in (unquote, unquote_plus, unescape) if (one := decode(text)) != text]
    return any(secret in one for text in decoded for one in (text, _whole_line(text)) for secret in secrets)


def _own_clock() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return (
        f"the assertion has the time of this device's clock, {now}, as the server sends no Date: if that is wrong, set "
        "the clock or give client_auth a time_from"
    )


def _what_to_check(error: str, request: TokenRequest) -> str:
    by_secret = "Authorization" in request.headers or any(name == "client_secret" for name, _ in request.form)
    what = f"client_id and {'client_secret' if by_secret else 'client_auth'}"
    # It is the error for a client that may not use this grant, but Keycloak's for a wrong secret too.
    return what if error == "invalid_client" else f"{what}, and whether the server allows the client this grant"
