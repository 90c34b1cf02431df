"""The record of a token in a store: enough to tell its age after a reboot, even if the clock is wrong then."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from ..clock import boot_id, monotonic, wall
from ..errors import ConfigurationError, StoreError
from ..token import Token
from ..value import hidden, hide

_TOLERANCE = 60.0  # seconds that this device's clock may be behind the issuer's


def dump(token: Token) -> str:
    """Return the record of a token, as JSON."""
    record: str = hidden(
        json.dumps(
            {
                "value": token.value,
                "refresh_token": token.refresh_token,
                "scope": token.scope,
                "lifetime": token.lifetime if math.isfinite(token.lifetime) else None,
                "since": token.since,
                "boot": boot_id() if token.age_known else "",
                "born": _born(token),
                "refusal": token.refusal,
                "refresh_lifetime": token.refresh_lifetime if math.isfinite(token.refresh_lifetime) else None,
            }
        )
    )
    return record


def parse(record: str | bytes) -> Token:
    """Return the token of a record.

    In the boot that wrote it, the monotonic clock tells its age. After a reboot the wall clock does, unless it shows a
    time before the token was requested, as on a device without a clock chip: then the age is unknown.

    Raises:
        StoreError: it is not such a record.
    """
    record = hidden(record)
    try:
        fields = hide(json.loads(record), ("value", "refresh_token"))
        lifetime = math.inf if fields["lifetime"] is None else float(fields["lifetime"])
        since = _since(_number(fields["since"]), _number(fields["born"]), fields["boot"])
        return Token(
            fields["value"],
            lifetime,
            refresh_token=_text(fields["refresh_token"]),
            scope=_text(fields["scope"]),
            since=since,
            age_known=since is not None or math.isinf(lifetime),
            refresh_expires_in=_optional(fields.get("refresh_lifetime")),
        ).with_refusal(_text(fields.get("refusal")) or "")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError, ConfigurationError):
        pass
    raise StoreError("store: the stored record is not a token record")  # here: the context would hold the record


def _born(token: Token) -> float:
    """When the token was issued, in seconds since the epoch: by the issuer's clock, if the token has an ``exp``."""
    with suppress(ValueError, TypeError, OverflowError):
        if math.isfinite(token.lifetime):
            return _number(token.claims.get("exp")) - token.lifetime
    return wall() - (monotonic() - token.since)


def _since(since: float, born: float, boot: object) -> float | None:
    """When the token was issued, as a reading of the monotonic clock; None if that is unknown."""
    now = monotonic()
    if boot and boot == boot_id() and since <= now:
        return since
    age = wall() - born
    return None if age < -_TOLERANCE else now - max(age, 0.0)


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise TypeError


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError
