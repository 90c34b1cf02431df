"""What a keeper asks about tokens: whether one can be used, is new, or replaces another."""

from __future__ import annotations

from typing import TypeGuard

from ..errors import InvalidTokenResponse, TokenError, TokenUnchanged
from ..profiles.credentials import MAX_LENGTH
from ..token import Token

_ROUNDING = 2.0  # seconds by which the expiry of one and the same token may seem to move


def is_usable(token: Token | None) -> TypeGuard[Token]:
    """Whether there is a token that MQTT can send, and it is valid for long enough to connect with."""
    return token is not None and token.expires_in > min(1.0, 0.02 * token.lifetime) and _size(token) <= MAX_LENGTH


def is_same(one: Token, other: Token) -> bool:
    """Whether two tokens have the same secrets. Their times may differ: that of a stored token may be a guess."""
    return one == other and one.refresh_token == other.refresh_token


def is_extended(token: Token, previous: Token) -> bool:
    """Whether a token is a new one, or expires later than it did before."""
    return token != previous or _expiry(token) - _expiry(previous) > _ROUNDING


def is_newer(stored: Token, current: Token, *, saved: bool) -> bool:
    """Whether a stored token replaces the current one: it was issued later, as far as is known, or it has a new refresh
    token, which another process got without an access token.

    Args:
        saved: whether the current token was loaded from the store, or stored there.
    """
    if is_same(stored, current):
        return False
    if stored == current:
        rejected = current.refresh_token is None and stored.refusal  # this process removed it for that reason
        return saved and stored.refresh_token is not None and not rejected
    if stored.age_known and (current.age_known or not saved):
        return stored.since > current.since
    # A current token of unknown age is older than its `since` says, and another process has replaced it in the store.
    return not current.age_known


def problem(token: object, previous: Token | None, refused: Token | None) -> TokenError | None:
    """Say what is wrong with the object that a source returned; None if it is a new token that can be used."""
    if not isinstance(token, Token):
        return InvalidTokenResponse(f"source: fetch() must return a Token, got {type(token).__name__}")
    if token == refused:
        return TokenUnchanged("source: fetch() returned the same token that the broker rejected")
    if (size := _size(token)) > MAX_LENGTH:
        too_long = f"{size} bytes, MQTT accepts at most {MAX_LENGTH}; use a token with fewer claims"
        return InvalidTokenResponse(f"source: fetch() returned a token of {too_long}")
    if not is_usable(token):
        if token == previous:
            return TokenUnchanged("source: fetch() returned the same token, which has expired")
        return InvalidTokenResponse("source: fetch() returned a token that has expired already")
    return None


def with_successor(token: object, previous: Token | None) -> Token | None:
    """Return what to keep of a token that cannot be used: its new refresh token, as the previous one is used up.
    None if it has no new one.
    """
    if not isinstance(token, Token):
        return None
    if token == previous:
        return token
    if token.refresh_token is None or (previous is not None and token.refresh_token == previous.refresh_token):
        return None
    if previous is None:
        return token
    expires_in = token.since + token.refresh_lifetime - previous.since  # it counts from the previous token's `since`
    return previous.with_refresh_token(token.refresh_token, expires_in=expires_in, scope=token.scope)


def missing_scopes(requested: object, token: Token) -> str:
    """Return the scopes that were requested and not granted, space-separated.

    A server that names no scope has granted what was requested (RFC 6749 section 5.1). Names that stand for others, as
    Entra's ``/.default``, and ``offline_access``, where there is a refresh token, are not named even if granted.
    """
    if not isinstance(requested, str) or token.scope is None:
        return ""
    granted = {*token.scope.split(), *(["offline_access"] if token.refresh_token else [])}
    return " ".join(scope for scope in requested.split() if scope not in granted and not scope.endswith("/.default"))


def _size(token: Token) -> int:
    """Return the size of a token in bytes."""
    return len(token.value.encode(errors="replace"))  # of one that UTF-8 does not allow, the profile says what is wrong


def _expiry(token: Token) -> float:
    return token.since + token.lifetime
