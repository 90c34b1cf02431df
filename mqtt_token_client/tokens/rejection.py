"""What a broker got that rejected a token, and what to compare it with at the broker."""

from __future__ import annotations

from ..logs import printable
from ..token import Token

_CLAIMS = ("iss", "aud", "sub", "scope", "scp")  # RFC 7519 section 4.1, RFC 8693 section 4.2; scp is Okta's and Entra's
_LONGEST_CLAIM = 100  # characters


def rejection_hint(token: Token, user_name: str | None, client_id: str) -> str:
    """Say which user name and which token the broker got, and what to check there. None of it is a secret."""
    sent = f"{_user_name(token, user_name, client_id)}{_token(token)}"
    return f"it got {sent}: check that it expects these, has the issuer's keys, and lets this client_id connect"


def _user_name(token: Token, name: str | None, client_id: str) -> str:
    if name is None:
        return "no user name (profile= decides that), and "
    if token.value in name:
        return "the token in the user name (profile= decides that): "
    change = "profile=Password(username='…') sends another" if name == client_id else "profile= decides that"
    return f"the user name {printable(name)!r} ({change}), and "


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
