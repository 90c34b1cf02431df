"""A store as a keeper uses it: what goes wrong with it is told, and costs no token."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from ..errors import MqttTokenError, StoreLocked
from ..events import Event, StoreFailed
from ..token import Token
from . import TokenStore


class GuardedStore:
    """One token in a store that may be anybody's and may fail in any way.

    Args:
        store: where it is kept.
        key: the name under which it is kept.
        tell: gets :class:`StoreFailed`.
    """

    def __init__(self, store: TokenStore, key: str, tell: Callable[[Event], None]) -> None:
        self._store = store
        self._key = key
        self._tell = tell
        self.shared = callable(getattr(store, "lock", None))

    def load(self) -> Token | None:
        """The token kept, or None where there is none or the store fails."""
        try:
            stored: object = self._store.load(self._key)
        except Exception as error:  # noqa: BLE001 - a user's store
            self._failed("load", error)
            return None
        if stored is None or isinstance(stored, Token):
            return stored
        self._tell(StoreFailed(MqttTokenError(f"store: load() returned {type(stored).__name__}, not a Token")))
        return None

    def save(self, token: Token) -> None:
        try:
            self._store.save(self._key, token)
        except Exception as error:  # noqa: BLE001 - a user's store
            self._failed("save", error)

    def lock(self) -> AbstractContextManager[object]:
        """Held while a new token is asked for. Without a lock that works there is none, rather than no token.

        Raises:
            StoreLocked: somebody else is asking.
        """
        if not self.shared:
            return nullcontext()
        try:
            held: AbstractContextManager[object] = self._store.lock(self._key)  # type: ignore[attr-defined]  # shared
            held.__enter__()
        except StoreLocked:
            raise
        except Exception as error:  # noqa: BLE001 - a user's store
            self._failed("lock", error)
            return nullcontext()
        return _Held(held, self._failed)

    def _failed(self, method: str, error: Exception) -> None:
        self._tell(StoreFailed(_named(method, error)))


class NoStore:
    """Where a keeper has no store: nothing is kept, and nobody shares it."""

    shared = False

    def load(self) -> None:
        """Return None: no token is kept."""

    def save(self, token: Token) -> None:
        """Keep nothing."""

    def lock(self) -> AbstractContextManager[object]:
        """Return a lock that is always free."""
        return nullcontext()


class _Held(AbstractContextManager[object]):
    """A lock that is held already."""

    def __init__(self, held: AbstractContextManager[object], failed: Callable[[str, Exception], None]) -> None:
        self._held = held
        self._failed = failed

    def __exit__(self, *_: object) -> None:
        try:
            self._held.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - a user's store
            self._failed("lock", error)


def _named(method: str, error: Exception) -> MqttTokenError:
    """The error of a store, without a text that may hold a secret."""
    if isinstance(error, MqttTokenError):
        return error
    why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return MqttTokenError(f"store: {method}() raised {why}")
