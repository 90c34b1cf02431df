"""Token: what an authorization server issued, as a value."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64decode
from typing import Any

from .clock import monotonic
from .errors import ConfigurationError
from .logs import printable
from .value import hidden


def read_claims(value: str) -> dict[str, Any]:
    """Read the claims of a JWT (RFC 7519) without verifying anything; empty for a token that is not a JWT.

    It is the broker that verifies an access token (RFC 9068 section 6); a device with a wrong clock could not.
    """
    try:
        payload = value.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _number(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # of hundreds of digits
        return None


def _restored(kind: type[Token], value: str, lifetime: float, *more: Any) -> Token:
    refresh_token, scope, since, age_known, refresh_lifetime, refusal = more
    return kind(
        value,
        lifetime,
        refresh_token=refresh_token,
        scope=scope,
        since=since,
        age_known=age_known,
        refresh_expires_in=refresh_lifetime,
    ).with_refusal(refusal)


class Token:
    """An access token and its lifetime. Immutable; its repr shows neither secret.

    Attributes:
        refusal: why the server rejected the refresh token when it was last used; empty if it did not.

    Args:
        value: the access token.
        expires_in: its lifetime in seconds, counted from ``since`` (RFC 6749 section 5.1). Without it, ``exp - iat`` of
            a JWT; without these it does not expire: such a token is renewed only when a broker rejects it.
        refresh_token: the refresh token that came with it.
        scope: the scope that was granted, space-separated.
        since: reading of :func:`~mqtt_token_client.clock.monotonic` when the request for it was sent; now by default.
        age_known: False if it was issued at an unknown time before ``since``, as after a boot without a clock: it is
            renewed at once, and expires after its lifetime at the latest.
        refresh_expires_in: the lifetime of the refresh token in seconds, counted from ``since``; None if it is unknown.

    Raises:
        ConfigurationError: the value is empty or not a string, or ``expires_in`` is not a number.
    """

    __slots__ = (
        "_claims",
        "age_known",
        "lifetime",
        "refresh_lifetime",
        "refresh_token",
        "refusal",
        "scope",
        "since",
        "value",
    )

    value: str
    lifetime: float
    refresh_token: str | None
    scope: str | None
    since: float
    age_known: bool
    refresh_lifetime: float
    refusal: str

    def __init__(
        self,
        value: str,
        expires_in: float | None = None,
        *,
        refresh_token: str | None = None,
        scope: str | None = None,
        since: float | None = None,
        age_known: bool = True,
        refresh_expires_in: float | None = None,
    ) -> None:
        value, refresh_token = hidden(value), hidden(refresh_token)
        if not isinstance(value, str) or not value:
            raise ConfigurationError("token: value must be a string that is not empty")
        claims = read_claims(value)
        issued, expires = _number(claims, "iat"), _number(claims, "exp")
        # Both are the issuer's clock, so their difference holds whatever time this device believes it is.
        by_claims = expires - issued if issued is not None and expires is not None else math.inf
        try:
            lifetime = min(math.inf if expires_in is None else float(expires_in), by_claims)
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"token: expires_in must be a number of seconds, got {type(expires_in).__name__}"
            ) from None
        if math.isnan(lifetime):
            raise ConfigurationError("token: expires_in must be a number of seconds, got nan")
        for name, attribute in (
            ("value", value),
            ("lifetime", lifetime),
            ("refresh_token", refresh_token),
            ("scope", scope),
            ("since", monotonic() if since is None else since),
            ("age_known", age_known),
            ("refresh_lifetime", math.inf if refresh_expires_in is None else refresh_expires_in),
            ("refusal", ""),
            ("_claims", claims),
        ):
            object.__setattr__(self, name, attribute)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Token is immutable; {name} cannot be set")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (
            type(self),
            self.value,
            self.lifetime,
            self.refresh_token,
            self.scope,
            self.since,
            self.age_known,
            self.refresh_lifetime,
            self.refusal,
        )

    def with_refresh_token(
        self, refresh_token: str | None, *, expires_in: float | None = None, scope: str | None = None
    ) -> Token:
        """Return the same access token with another refresh token, or with none, which expires after ``expires_in``
        seconds from ``since``; ``scope`` replaces its own.
        """
        return Token(
            self.value,
            self.lifetime,
            refresh_token=refresh_token,
            scope=scope or self.scope,
            since=self.since,
            age_known=self.age_known,
            refresh_expires_in=expires_in,
        )

    def with_refusal(self, refusal: str) -> Token:
        """Return the same token with :attr:`refusal`."""
        token = self.with_refresh_token(self.refresh_token, expires_in=self.refresh_lifetime)
        object.__setattr__(token, "refusal", refusal)
        return token

    @property
    def renewable_for(self) -> float:
        """Seconds from ``since`` in which it can be renewed without a person: until it expires, or its refresh token if
        that expires first.
        """
        return self.lifetime if self.refresh_token is None else min(self.lifetime, self.refresh_lifetime)

    @property
    def expires_in(self) -> float:
        """Seconds until it expires; negative once it has expired, infinite if it never does.

        If its age is unknown, it may expire earlier.
        """
        return self.lifetime - (monotonic() - self.since)

    @property
    def claims(self) -> dict[str, Any]:
        """The claims of the JWT, which are not verified; empty for an opaque token."""
        return dict(self._claims)  # type: ignore[attr-defined]

    def time(self, name: str) -> float | None:
        """The seconds since the epoch that a claim says, such as ``iat``; None if it is missing or not a number."""
        return _number(self._claims, name)  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        if not hasattr(self, "_claims"):  # of which the constructor raised
            return "Token()"
        jti = self.claims.get("jti")
        name = f"jti=…{printable(str(jti)[-6:])}, " if jti else ""
        return f"Token({name}expires_in={self.expires_in:.1f})"
