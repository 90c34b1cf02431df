"""WaitingStore: a store for the command that waits while it is locked, and tries again when it cannot save."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Timer
from time import sleep
from typing import TYPE_CHECKING

import click

from ..errors import StoreError

if TYPE_CHECKING:
    from ..stores import TokenStore
    from ..token import Token

_NOTICE_AFTER = 1.0  # seconds: a renewal by another process takes less, a login takes longer
_SAVE_AGAIN = (0.5, 1.0, 2.0)  # seconds before another attempt


class WaitingStore:
    """A store that prints a line to stderr if another process holds the lock of the token, and that tries several times
    to save one that only a person could replace.

    Args:
        store: the store, which has a lock.
        asks_a_person: whether each token does.
    """

    def __init__(self, store: TokenStore, *, asks_a_person: bool) -> None:
        self._store = store
        self._asks_a_person = asks_a_person

    @property
    def protection(self) -> str:
        """That of the store."""
        return str(getattr(self._store, "protection", type(self._store).__name__))

    def load(self, key: str) -> Token | None:
        """Load a token."""
        return self._store.load(key)

    def save(self, key: str, token: Token) -> None:
        """Save a token. Whoever must not lose it holds an ``ExitGuard`` until this returns, also between two attempts.

        Raises:
            StoreError: the last attempt failed too.
        """
        for pause in _SAVE_AGAIN if self._asks_a_person or token.refresh_token is not None else ():
            try:
                return self._store.save(key, token)
            except StoreError:
                sleep(pause)
        return self._store.save(key, token)

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
