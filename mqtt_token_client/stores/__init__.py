"""Stores that keep a token across restarts, one file per kind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from ..token import Token


class TokenStore(Protocol):
    """Keeps tokens across restarts, each under a key that says whose it is. Safe to call from any thread."""

    def load(self, key: str) -> Token | None:
        """Return the token of a key; None if there is none."""
        ...

    def save(self, key: str, token: Token) -> None:
        """Replace the token of a key, durably: once this has returned, a power cut does not lose it."""
        ...

    def delete(self, key: str) -> None:
        """Delete the token of a key; no error if there is none."""
        ...


class SharedTokenStore(TokenStore, Protocol):
    """A store that several keepers share, in this process or in others, so that one of them requests a new token and
    the others find it in the store.
    """

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Return a lock that one thread of one process holds at a time, from before it loads the token until it has
        saved a new one. The operating system releases it if that process dies.

        Raises:
            StoreLocked: another holder has not released it within a minute.
            StoreError: the store cannot be locked.
        """
        ...
