"""Sources of tokens, one file per way to obtain one."""

from __future__ import annotations

from typing import Protocol

from ..token import Token


class TokenSource(Protocol):
    """Obtains new tokens. A keeper calls it on one thread at a time, never on the network thread.

    A source may have more attributes. ``key`` is the name of its token in a store. ``scope`` is what it requests,
    space-separated; a token with fewer scopes is reported as :class:`ScopeReduced`.
    """

    def fetch(self, previous: Token | None) -> Token:
        """Obtain a new token; ``previous`` is the one that it replaces, which may have a refresh token.

        Raises:
            TokenError: no token could be obtained; ``permanent`` and ``retry_after`` say what to do.
        """
        ...


class AsyncTokenSource(Protocol):
    """Like :class:`TokenSource`, with a coroutine function. It runs on the event loop of the :class:`AsyncTokenClient`,
    or of the caller of :meth:`TokenKeeper.get_async`.
    """

    async def fetch(self, previous: Token | None) -> Token:
        """Obtain a new token; ``previous`` is the one that it replaces, which may have a refresh token.

        Raises:
            TokenError: no token could be obtained; ``permanent`` and ``retry_after`` say what to do.
        """
        ...
