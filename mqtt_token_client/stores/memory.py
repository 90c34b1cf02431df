"""A store that ends with the process."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import StoreLocked
from ..token import Token

_WAIT = 60.0  # seconds


class MemoryStore:
    """Keeps tokens in this process only: for tests, and for several clients that share one token."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def protection(self) -> str:
        """Where the tokens are and how well that is protected, in a sentence."""
        return "the memory of this process only: they end with it"

    def load(self, key: str) -> Token | None:
        return self._tokens.get(key)

    def save(self, key: str, token: Token) -> None:
        self._tokens[key] = token

    def delete(self, key: str) -> None:
        self._tokens.pop(key, None)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held by one thread at a time.

        Raises:
            StoreLocked: another has held it for a minute.
        """
        lock = self._locks[key]
        if not lock.acquire(timeout=_WAIT):
            raise StoreLocked(f"store: somebody else has been asking for a new token for {_WAIT:g} s")
        try:
            yield
        finally:
            lock.release()
