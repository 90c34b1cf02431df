"""MemoryStore: tokens in memory, lost when the process ends."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import StoreLocked
from ..forking import reset_after_fork
from ..token import Token

_LOCK_TIMEOUT = 60.0  # seconds


class MemoryStore:
    """Keeps tokens in this process only: for tests, and for several clients that share one token."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        reset_after_fork(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        reset_after_fork(self)  # a copy was not made by __init__()

    def after_fork(self) -> None:
        """In a child: no lock is held, as the threads that held them are the parent's."""
        self._locks.clear()

    @property
    def protection(self) -> str:
        """Where the tokens are and how they are protected, as a phrase."""
        return "the memory of this process only, and lost when it ends"

    def load(self, key: str) -> Token | None:
        return self._tokens.get(key)

    def save(self, key: str, token: Token) -> None:
        self._tokens[key] = token

    def delete(self, key: str) -> None:
        self._tokens.pop(key, None)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Return a lock that one thread holds at a time.

        Raises:
            StoreLocked: another thread has not released it within a minute.
        """
        lock = self._locks[key]
        if not lock.acquire(timeout=_LOCK_TIMEOUT):
            raise StoreLocked(f"store: another thread has been requesting a new token for {_LOCK_TIMEOUT:g} s")
        try:
            yield
        finally:
            lock.release()
