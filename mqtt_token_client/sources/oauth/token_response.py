"""What a successful answer of a token endpoint says (RFC 6749 section 5.1), read with care: it comes from outside."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeGuard

from ...clock import ServerClock
from ...errors import InvalidTokenResponse
from ...logs import get_logger
from ...token import Token

_log = get_logger("mqtt_token_client.sources")

_MAX_DURATION = 1e9  # seconds, 31 years: a greater number is a time of day instead of a duration
_ROUNDING = 2.0  # seconds
_VSCHAR = re.compile(r"[\x20-\x7e]+")  # RFC 6749 appendices A.12 and A.17


def token_in(answer: Mapping[str, Any], sent: float, clock: ServerClock) -> Token:
    """Return the token of a successful answer.

    Args:
        sent: when the request was sent, as a reading of :func:`~mqtt_token_client.clock.monotonic`.
        clock: the server's time of day.

    Raises:
        InvalidTokenResponse: there is no usable token in it.
    """
    kind = answer.get("token_type")
    if kind is not None and not (isinstance(kind, str) and kind.lower().startswith("bearer")):
        raise InvalidTokenResponse("token response: token_type must be Bearer; no other can be an MQTT password")
    value = answer.get("access_token")
    if not isinstance(value, str) or not _VSCHAR.fullmatch(value):
        raise InvalidTokenResponse("token response: access_token must be a string of printable ASCII characters")
    issue = functools.partial(
        Token,
        value,
        refresh_token=refresh_token_in(answer),
        scope=_scope(answer.get("scope")),
        since=sent,
        refresh_expires_in=refresh_lifetime_in(answer),
    )
    token = issue(seconds_in(answer, "expires_in"))
    exp = token.claims.get("exp")
    # The server may return a token that it issued earlier, with its full lifetime in expires_in. It issues none that
    # has expired: if its Date says so, that Date was set by something between the server and this device.
    if clock.known and is_finite(exp) and 0 < (remaining := exp - clock.now()) < token.lifetime:
        return issue(remaining)
    return token


def issue_time(token: Token, answer: Mapping[str, Any]) -> float | None:
    """Return when the token of an answer was issued, in seconds since the epoch by the server's clock; None if it does
    not say, or if it may have been issued for an earlier request.
    """
    issued, expires, lifetime = token.claims.get("iat"), token.claims.get("exp"), seconds_in(answer, "expires_in")
    if not (is_finite(issued) and is_finite(expires)) or lifetime is None:
        return None
    return issued if abs(expires - issued - lifetime) <= _ROUNDING else None


def refresh_token_in(answer: Mapping[str, Any]) -> str | None:
    """Return the refresh token of an answer, whatever the rest of it is like."""
    value = answer.get("refresh_token")
    if value is None or value == "":
        return None
    if isinstance(value, str) and _VSCHAR.fullmatch(value):
        return value
    _log.warning("the server's answer: refresh_token is not a string of printable ASCII characters, and is ignored")
    return None


def refresh_lifetime_in(answer: Mapping[str, Any]) -> float | None:
    """Return the lifetime of the refresh token in seconds, which several servers send; 0 stands for no limit."""
    return None if answer.get("refresh_expires_in") == 0 else seconds_in(answer, "refresh_expires_in")


def _scope(value: object) -> str | None:
    """Return the granted scope, which some servers send as a list; None if it is not given in either way."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = " ".join(value)
    return value if isinstance(value, str) else None


def seconds_in(answer: Mapping[str, Any], name: str) -> float | None:
    """Return the duration in a field of an answer, which some servers send as a string.

    A value that is not a valid duration counts as missing (None): RFC 6749 section 5.1 and RFC 8628 section 3.2 have
    a default for that, and an otherwise successful answer must not be lost.
    """
    value = answer.get(name)
    if value is None:
        return None
    seconds = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            seconds = float(value)
    if 0 < seconds <= _MAX_DURATION:
        return seconds
    _log.warning("the server's answer: %s is not a valid duration, and is ignored: %s", name, _short(value))
    return None


def _short(value: object) -> str:
    """Describe a value that should be a number, without showing a long text, which may be something else."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = ""
    return text if 0 < len(text) <= 12 else type(value).__name__


def is_finite(value: object) -> TypeGuard[float]:
    """Whether this is a number that fits a float, as a claim of a JWT need not."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
