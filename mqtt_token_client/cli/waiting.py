"""WaitingStore: a store for the command, which says that it is waiting for the lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Timer
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..stores import TokenStore
    from ..token import Token

_NOTICE_AFTER = 1.0  # seconds: a renewal by another process takes less, a login takes longer


class WaitingStore:
    """A store that prints a line to stderr if another process holds the lock of the token.

    Args:
        store: the store, which has a lock.
    """

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    @property
    def protection(self) -> str:
        """That of the store."""
        return str(getattr(self._store, "protection", type(self._store).__name__))

    def load(self, key: str) -> Token | None:
        """Load a token."""
        return self._store.load(key)

    def save(self, key: str, token: Token) -> None:
        """Save a token."""
        self._store.save(key, token)

    def delete(self, key: str) -> None:
        """Delete a token."""
        self._store.delete(key)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the lock of a token."""
        notice = Timer(_NOTICE_AFTER, _print_notice)
        notice.daemon = True
        with ExitStack() as held:
            notice.start()
            try:
                held.enter_context(self._store.lock(key))  # type: ignore[attr-defined]  # every store of open_store() has one
            finally:
                notice.cancel()
            yield


def _print_notice() -> None:
    click.echo("mqtt-token: waiting for another login or renewal of this token …", err=True)
