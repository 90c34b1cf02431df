"""A token as it is stored: with what is needed to judge its age after a reboot, whatever the clock says then."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from typing import Any

from ..clock import boot_id, monotonic
from ..errors import ConfigurationError, StoreError
from ..token import Token

_TOLERANCE = 60.0  # seconds that this device's clock may be behind the issuer's
# A token whose age nobody can tell counts as due for renewal, and as good until then: the broker knows.
_AGE_IF_UNKNOWN = 2 / 3


def dump(token: Token) -> str:
    """The record of a token, as JSON."""
    return json.dumps(
        {
            "value": token.value,
            "refresh_token": token.refresh_token,
            "scope": token.scope,
            "lifetime": token.lifetime if math.isfinite(token.lifetime) else None,
            "since": token.since,
            "boot": boot_id(),
            "born": _born(token),
        }
    )


def parse(record: str | bytes) -> Token:
    """The token of a record.

    In the boot that wrote it, the monotonic clock tells its age. After a reboot the wall clock does, unless it is
    before the token was requested, as on a device without a clock chip.

    Raises:
        StoreError: it is no such record.
    """
    try:
        fields = json.loads(record)
        lifetime = math.inf if fields["lifetime"] is None else float(fields["lifetime"])
        return Token(
            fields["value"],
            lifetime,
            refresh_token=_text(fields["refresh_token"]),
            scope=_text(fields["scope"]),
            since=_since(_number(fields["since"]), _number(fields["born"]), fields["boot"], lifetime),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, ConfigurationError):
        pass
    raise StoreError("store: what is stored is no token record")  # here: the context would hold the record


def _born(token: Token) -> float:
    """Seconds since the epoch at which the token's life began: by the issuer's clock, where the token tells."""
    with suppress(ValueError, TypeError, OverflowError):
        if math.isfinite(token.lifetime):
            return _number(token.claims.get("exp")) - token.lifetime
    return time.time() - (monotonic() - token.since)


def _since(since: float, born: float, boot: object, lifetime: float) -> float:
    now = monotonic()
    if boot and boot == boot_id() and since <= now:
        return since
    age = time.time() - born
    if age < -_TOLERANCE:
        age = _AGE_IF_UNKNOWN * lifetime if math.isfinite(lifetime) else 0.0
    return now - max(age, 0.0)


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise TypeError


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError
