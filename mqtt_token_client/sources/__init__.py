"""The ways to get a token: a file each."""

from __future__ import annotations

from typing import Protocol

from ..token import Token


class TokenSource(Protocol):
    """Makes a new token. A keeper calls it from one thread at a time, never from the network thread."""

    def fetch(self, previous: Token | None) -> Token:
        """A new token; ``previous`` is the one that it replaces, which may hold a refresh token.

        Raises:
            TokenError: none could be obtained; ``permanent`` and ``retry_after`` say what to do.
        """
        ...
