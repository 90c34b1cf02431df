"""The places to keep a token: a file each."""

from __future__ import annotations

from contextlib import AbstractContextManager
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


class SharedTokenStore(TokenStore, Protocol):
    """A store that several keepers use at once, in this process or in others, so that one of them asks for a new
    token and the others find it here.
    """

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Held by one thread of one process at a time, from before it loads the token until it has saved a new one.
        The operating system releases it when its holder dies.

        Raises:
            StoreLocked: somebody has held it for a minute.
            StoreError: there is no lock to be had.
        """
        ...
