"""Refresh tokens for one use each (RFC 9700 section 4.14.2), and their revocation (RFC 7009)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc6749.grants import RefreshTokenGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint


@dataclass(frozen=True)
class Family:
    """A person's approval, and which of the refresh tokens that follow from it is valid. For Authlib it is that token,
    and that person too (``authlib.oauth2.rfc6749.TokenMixin``).

    Attributes:
        good: the SHA-256 of the valid token, in hexadecimal, so that a reader of the state file cannot refresh.
    """

    client_id: str
    subject: str
    scope: str
    good: str

    def check_client(self, client: Any) -> bool:
        return bool(client.get_client_id() == self.client_id)

    def get_scope(self) -> str:
        return self.scope

    def get_user_id(self) -> str:
        return self.subject


class RefreshTokens:
    """All families. A refresh token that is used a second time revokes its family, however soon that is: it may have
    been stolen.

    Args:
        families: the families at the start.
        save: gets all families before a change takes effect.
    """

    def __init__(self, families: Mapping[str, Family], save: Callable[[Mapping[str, Family]], None]) -> None:
        self._families = dict(families)
        self._save = save
        self._lock = threading.RLock()

    def issue(self, client_id: str, subject: str, scope: str) -> str:
        """Return the first refresh token of a new family."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            return self._next(name, Family(client_id, subject, scope, good=""))

    def find(self, token: str) -> Family | None:
        """Return the family whose valid token this is; revokes it if the token was used before."""
        name = _name(token)
        with self._lock:
            family = self._families.get(name)
            if family is None or family.good == _digest(token):
                return family
            self._end(name)
            return None

    def rotate(self, token: str) -> str | None:
        """Return the successor of a valid token, which becomes invalid."""
        with self._lock:
            family = self.find(token)
            return None if family is None else self._next(_name(token), family)

    def revoke(self, token: str) -> None:
        """Revoke the family of a token."""
        with self._lock:
            self._end(_name(token))

    def _next(self, name: str, family: Family) -> str:
        token = f"{name}.{secrets.token_urlsafe(32)}"
        self._change({**self._families, name: replace(family, good=_digest(token))})
        return token

    def _end(self, name: str) -> None:
        self._change({other: family for other, family in self._families.items() if other != name})

    def _change(self, families: dict[str, Family]) -> None:
        self._save(families)
        self._families = families


def _name(token: str) -> str:
    return token.partition(".")[0]


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


# The classes for Authlib. ``server.refresh_tokens`` is a RefreshTokens.


class Refresh(RefreshTokenGrant):  # type: ignore[misc]  # Authlib has no types
    """The grant type ``refresh_token`` (RFC 6749 section 6), for a public client."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def authenticate_refresh_token(self, refresh_token: str) -> Family | None:
        family: Family | None = self.server.refresh_tokens.find(refresh_token)
        return family

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        # Authlib's own method writes the token to its debug log, and two requests at once could use one refresh token.
        family: Family = self.request.refresh_token
        scope = self.request.payload.scope or family.scope
        token = self.generate_token(user=family, scope=scope, include_refresh_token=False)
        successor = self.server.refresh_tokens.rotate(
            self.request.form["refresh_token"]
        )  # last, as it cannot be undone
        if successor is None:
            raise InvalidGrantError
        return 200, {**token, "refresh_token": successor}, self.TOKEN_RESPONSE_HEADER


class _RevocationError(OAuth2Error):  # type: ignore[misc]  # Authlib has no types, and its own answers with HTTP 401
    error = "unsupported_token_type"
    description = "A JWT is valid until it expires."


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib has no types
    """The revocation endpoint (RFC 7009). A hint changes nothing (section 2.1), unlike in Authlib."""

    CLIENT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")

    def authenticate_token(self, request: Any, client: Any) -> Family | None:
        token = request.form.get("token")
        if not token:
            raise InvalidRequestError("Missing 'token' in request.")
        family: Family | None = self.server.refresh_tokens.find(token)
        if family is None and token.count(".") == 2:
            raise _RevocationError
        if family is not None and not family.check_client(client):
            raise InvalidGrantError
        return family

    def revoke_token(self, _family: Family, request: Any) -> None:
        self.server.refresh_tokens.revoke(request.form["token"])
