"""The authorization server, its clock, and the token that it issues."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import jwt

from ...clock import wall
from ...config import Config
from ...errors import MqttTokenError
from ...logs import printable
from ...sources.oauth.device_flow import DeviceFlow
from ...sources.oauth.token_endpoint import TokenEndpoint
from ...token import Token
from ...tokens.keeper import TokenKeeper
from ...tokens.validity import missing_scopes
from .findings import NOTE, OK, Finding, duration, failed

_CLOCK_TOLERANCE = 30.0  # seconds; most servers and brokers allow a minute
_NOT_BEFORE_TOLERANCE = 2.0  # seconds


def examine_discovery(endpoint: TokenEndpoint) -> Generator[Finding, None, bool]:
    try:
        metadata = endpoint.metadata
    except MqttTokenError as error:
        yield failed("authorization server", error)
        yield from examine_clock(endpoint)
        return False
    yield Finding("authorization server", OK, printable(f"token endpoint {metadata.get('token_endpoint')}"))
    return True


def examine_clock(endpoint: TokenEndpoint) -> Iterator[Finding]:
    if not endpoint.clock.known:
        return
    ahead = wall() - endpoint.clock.now()
    if abs(ahead) <= _CLOCK_TOLERANCE:
        yield Finding("clock", OK, "as the server's")
        return
    text = f"this machine's clock is {duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the server's"
    yield Finding("clock", NOTE, text, "set the clock: timedatectl set-ntp true", explains=("connection",))


def examine_token(config: Config, keeper: TokenKeeper) -> Generator[Finding, None, Token | None]:
    """Obtain a token; returns it, None if there is none."""
    try:
        token = keeper.get() if isinstance(config.source, DeviceFlow) else keeper.renew()
    except MqttTokenError as error:
        yield failed("token", error)
        return None
    left = token.expires_in
    validity = "does not expire" if left == float("inf") else f"valid for {duration(left)}"
    yield Finding("token", OK, f"{validity}, {len(token.value)} bytes")
    missing = missing_scopes(getattr(config.source, "scope", None), token)
    if missing:
        text = printable(f"the server did not grant the scope {missing!r}")
        fix = "allow the client this scope at the authorization server, or correct source.scope"
        yield Finding("token", NOTE, text, fix, explains=("login", "publish", "subscribe"))
    return token


def examine_claims(token: Token, endpoint: TokenEndpoint | None) -> Iterator[Finding]:
    claims = token.claims
    if not claims:
        yield Finding("claims", NOTE, "the token is opaque", "most brokers accept a JWT only: ask the server for one")
        return
    try:
        header = jwt.get_unverified_header(token.value)
    except jwt.InvalidTokenError:
        header = {}
    names = ("iss", "aud", "sub", "scope")
    shown = [f"{name}={claims[name]}" for name in names if claims.get(name)]
    shown += [f"{name}={header[name]}" for name in ("alg", "kid") if name in header]
    yield Finding("claims", OK, printable(", ".join(shown)))
    if endpoint is None:
        return
    begins = max((claims[name] for name in ("iat", "nbf") if isinstance(claims.get(name), int | float)), default=0)
    ahead = begins - endpoint.clock.now()
    if endpoint.clock.known and ahead > _NOT_BEFORE_TOLERANCE:
        text = f"the token begins {duration(ahead)} after the server's own time"
        yield Finding("claims", NOTE, text, "correct the server's clock, or its nbf", explains=("login",))
    try:
        keys = endpoint.keys()
    except MqttTokenError as error:
        yield Finding("signing keys", NOTE, printable(str(error)), "a broker that fetches them would fail, too")
        return
    if keys and header.get("kid") not in keys:
        text = printable(f"the token is signed with the key {header.get('kid')!r}, which is not in the server's JWKS")
        fix = "a broker that checks tokens by that JWKS rejects this one: publish the key, or wait for its cache"
        yield Finding("signing keys", NOTE, text, fix, explains=("login",))
