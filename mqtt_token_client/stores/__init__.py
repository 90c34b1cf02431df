"""The places to keep a token: a file each."""

from __future__ import annotations

from typing import Protocol

from ..token import Token


class TokenStore(Protocol):
    """Keeps tokens across restarts, each under a key that names whose it is. Safe to call from any thread."""

    def load(self, key: str) -> Token | None:
        """The token kept under a key, or None."""
        ...

    def save(self, key: str, token: Token) -> None:
        """Keep a token; when this returns, it has replaced its predecessor durably."""
        ...

    def delete(self, key: str) -> None:
        """Forget the token of a key; no error if there is none."""
        ...
