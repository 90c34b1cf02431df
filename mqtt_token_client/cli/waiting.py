"""A store for the command: it says when its lock is not to be had at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Timer
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..stores import TokenStore
    from ..token import Token

_PATIENCE = 1.0  # seconds: a renewal by somebody else takes less, a login takes a person


class WaitingStore:
    """A store that tells on stderr, in a line, that it waits for somebody else who holds the lock of the token.

    Args:
        store: where the tokens are kept; one with a lock.
    """

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    @property
    def protection(self) -> str:
        return str(getattr(self._store, "protection", type(self._store).__name__))

    def load(self, key: str) -> Token | None:
        return self._store.load(key)

    def save(self, key: str, token: Token) -> None:
        self._store.save(key, token)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        notice = Timer(_PATIENCE, _tell)
        notice.daemon = True
        with ExitStack() as held:
            notice.start()
            try:
                held.enter_context(self._store.lock(key))  # type: ignore[attr-defined]  # each of open_store() has one
            finally:
                notice.cancel()
            yield


def _tell() -> None:
    click.echo("mqtt-token: waiting for another login or renewal of this token …", err=True)
