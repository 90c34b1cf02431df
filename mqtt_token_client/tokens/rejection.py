"""What a broker got that rejected a token, and what to compare it with at the broker."""

from __future__ import annotations

from ..clock import ServerClock, monotonic
from ..logs import printable
from ..token import Token

_CLAIMS = ("iss", "aud", "sub", "scope", "scp")  # RFC 7519 section 4.1, RFC 8693 section 4.2; scp is Okta's and Entra's
_LONGEST_CLAIM = 100  # characters
_YOUNG = 60.0  # seconds since the request for a token


def rejection_hint(token: Token, user_name: str | None, client_id: str, server: ServerClock | None = None) -> str:
    """Say which user name and which token the broker got, and what to check there. None of it is a secret.

    Args:
        token: that was rejected.
        user_name: that was sent with it; None for none.
        client_id: the client identifier.
        server: the authorization server's clock, if the source has it.
    """
    sent = f"{_user_name(token, user_name, client_id)}{_token(token)}"
    check = "check that it expects these, has the issuer's keys, and lets this client_id connect"
    return f"{_clocks(token, server)}it got {sent}: {check}"


def _clocks(token: Token, server: ServerClock | None) -> str:
    """Say by how much a broker's clock must not be behind, if the token has just been issued: brokers check nbf and iat
    to the second (RFC 7519 sections 4.1.5 and 4.1.6).
    """
    age = monotonic() - token.since
    times = {name: value for name in ("nbf", "iat") if (value := token.time(name)) is not None}
    if not times or age > _YOUNG:
        return ""
    name = max(times, key=times.__getitem__)
    text = f"it may have rejected the token because its clock is behind: the token was issued {age:.0f} s ago"
    if server is None or not server.from_server:
        return f"{text}; otherwise "
    ahead = times[name] - (server.now() - age)
    return f"{text}, with {name} {ahead:.1f} s ahead of the authorization server's Date; otherwise "


def _user_name(token: Token, name: str | None, client_id: str) -> str:
    if name is None:
        return "no user name (profile= decides that), and "
    if token.value in name:
        return "the token in the user name (profile= decides that): "
    change = "profile=Password(username='…') sends another" if name == client_id else "profile= decides that"
    host, colon, _ = printable(str(name)).rpartition(":")
    if colon:
        change = f"RabbitMQ takes {host!r} for the virtual host; {change}"
    return f"the user name {printable(str(name))!r} ({change}), and "


def _token(token: Token) -> str:
    claims = token.claims
    shown = [f"{name}={printable(_text(claims[name]), _LONGEST_CLAIM)!r}" for name in _CLAIMS if name in claims]
    if shown:
        return f"a token with {', '.join(shown)}"
    return (
        "a JWT without iss, aud, sub and scope"
        if claims
        else "a token that is not a JWT, which only its issuer can check"
    )


def _text(claim: object) -> str:
    return " ".join(map(str, claim)) if isinstance(claim, list) else str(claim)
