"""GuardedStore: a store as a keeper uses it, whose failures are reported and never cost a token."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import sleep

from ..errors import MqttTokenError, StoreLocked
from ..events import Event, StoreFailed
from ..token import Token
from . import TokenStore

_REREAD = (0.5, 1.0, 2.0)  # seconds before a store that cannot be read is read again


class GuardedStore:
    """One token in a store, which may be a user's own and may fail in any way.

    Args:
        store: the store.
        key: the key of the token in it.
        report: gets :class:`StoreFailed`.

    Attributes:
        shared: whether the store has a lock.
        readable: whether the last :meth:`load` did not fail.
    """

    def __init__(self, store: TokenStore, key: str, report: Callable[[Event], None]) -> None:
        self._store = store
        self._key = key
        self._report = report
        self.shared = callable(getattr(store, "lock", None))
        self.readable = False

    def load(self, *, patient: bool = False) -> Token | None:
        """Return the stored token; None if there is none or the store fails. If ``patient``, a store that fails is read
        several times, which takes some seconds; it is reported once.
        """
        stored = self._load()
        for pause in _REREAD if patient else ():
            if self.readable:
                break
            sleep(pause)
            stored = self._load(silent=True)
        return stored

    def _load(self, *, silent: bool = False) -> Token | None:
        self.readable = False
        try:
            stored: object = self._store.load(self._key)
        except Exception as error:  # noqa: BLE001 - a user's store
            if not silent:
                self._failed("load", error)
            return None
        self.readable = True
        if stored is None or isinstance(stored, Token):
            return stored
        self._report(
            StoreFailed(MqttTokenError(f"store: load() must return a Token or None, got {type(stored).__name__}"))
        )
        return None

    def save(self, token: Token) -> bool:
        """Store a token; returns whether that succeeded."""
        try:
            self._store.save(self._key, token)
        except Exception as error:  # noqa: BLE001 - a user's store
            self._failed("save", error)
            return False
        return True

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock to hold while a new token is requested; it does nothing if the store has none that works, as
        a token matters more.

        Raises:
            StoreLocked: another holder has not released it within a minute.
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
        self._report(StoreFailed(_as_store_error(method, error)))


class NoStore:
    """In place of a store, for a keeper that has none."""

    shared = False
    readable = True

    def load(self, *, patient: bool = False) -> None:
        """Return None: no token is stored."""

    def save(self, token: Token) -> bool:  # noqa: ARG002 - as GuardedStore has it
        """Do nothing; returns True, as there is nothing to try again."""
        return True

    def lock(self) -> AbstractContextManager[object]:
        """Return a lock that does nothing."""
        return nullcontext()


class _Held(AbstractContextManager[object]):
    """A lock that is held."""

    def __init__(self, held: AbstractContextManager[object], failed: Callable[[str, Exception], None]) -> None:
        self._held = held
        self._failed = failed

    def __exit__(self, *_: object) -> None:
        try:
            self._held.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001 - a user's store
            self._failed("lock", error)


def _as_store_error(method: str, error: Exception) -> MqttTokenError:
    """Return the error to report, without the text of a user's exception, which may contain a secret."""
    if isinstance(error, MqttTokenError):
        return error
    why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return MqttTokenError(f"store: {method}() raised {why}")
