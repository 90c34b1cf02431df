"""KeyringStore: tokens in the operating system's keyring."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, StoreError
from ..token import Token
from ..value import hidden
from .folder import prepare, user_folder
from .limit import TimeLimit
from .lock import file_lock
from .record import dump, parse

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_TIME_LIMIT = 3.0  # seconds: a keyring that waits to be unlocked, with nobody there, never answers
_PART_SIZE = 1200  # characters: Windows allows 2560 bytes of UTF-16
_ATTEMPTS = 3

_SESSION_KEYRING = "the Secret Service of this session (GNOME Keyring or another)"
# Only these are chosen automatically. Any installed package may add another, with any priority: one that stores plain
# text, asks on the terminal, or stores nothing.
_SYSTEM = {
    "linux": {
        "keyring.backends.SecretService.Keyring": _SESSION_KEYRING,
        "keyring.backends.libsecret.Keyring": _SESSION_KEYRING,
        "keyring.backends.kwallet.DBusKeyring": "KWallet",
    },
    "darwin": {"keyring.backends.macOS.Keyring": "the keychain of macOS"},
    "win32": {"keyring.backends.Windows.WinVaultKeyring": "the Windows Credential Manager"},
}.get(sys.platform, {})


class KeyringStore:
    """Keeps tokens in the keyring of the operating system: Secret Service, KWallet, the macOS keychain, the Windows
    Credential Manager. Other backends of the ``keyring`` library, and ``$PYTHON_KEYRING_BACKEND``, are ignored unless
    ``backend`` names one.

    A call of the keyring may take 3 s, and while one hangs, further operations fail at once. What is written is read
    back. A token is written in parts, as keyrings limit the size of an entry, under one of two generations, then the
    head entry that points to it, then the other generation is deleted: whenever this is interrupted, a complete token
    is there.

    Args:
        service: the name of the entries in the keyring.
        backend: the class of another backend to use, ``"module.Class"``, however weak it is.

    Raises:
        ConfigurationError: the service is empty, there is no such backend, or the user has no home for the locks.
    """

    def __init__(self, service: str = "mqtt-token-client", *, backend: str | None = None) -> None:
        if not isinstance(service, str) or not service:
            raise ConfigurationError(f"service must be a name for the entries in the keyring, got {service!r}")
        self._service = service
        self._classes = None if backend is None else [_backend(backend)]
        self._limit = TimeLimit("keyring", _TIME_LIMIT)
        self._locks = user_folder()  # not that of a systemd service, as the keyring is the user's
        self._ring: KeyringBackend | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ring": None}  # a backend may be connected to a service

    @property
    def name(self) -> str:
        """The class of the backend, ``module.Class``, which is chosen at the first use.

        Raises:
            StoreError: no backend is usable.
        """
        if self._ring is None:
            with self._entries():
                pass
        return f"{type(self._ring).__module__}.{type(self._ring).__qualname__}"

    @property
    def protection(self) -> str:
        """Where the tokens are and how they are protected, as a phrase."""
        try:
            name = self.name
        except StoreError as error:
            return f"nowhere: {error}"
        if name not in _SYSTEM:
            return f"{name}, which was chosen by name; see its documentation for how it protects them"
        return (
            f"{_SYSTEM[name]}, with {name}: encrypted on the disk with the user's password; while it is unlocked, "
            "readable by all programs of this user and by root"
        )

    def load(self, key: str) -> Token | None:
        """Return the token of a key; None if there is none.

        Raises:
            StoreError: there is no keyring, or it is locked, hangs or fails, or the token is damaged.
        """
        with self._entries() as entries:
            head = entries.get(_head(key))
            for _ in range(_ATTEMPTS):  # another process that saves now changes the head, then the parts
                if head is None:
                    return None
                generation, count, digest = _parse_head(head)
                parts = [entries.get(_part(key, generation, number)) for number in range(count)]
                record = hidden("".join(part or "" for part in parts))
                if _digest(record) == digest:
                    return parse(record)
                head, seen = entries.get(_head(key)), head
                if head == seen:
                    break
        raise StoreError("keyring: the stored token is incomplete")

    def save(self, key: str, token: Token) -> None:
        """Replace the token of a key, and read it back.

        Raises:
            StoreError: there is no keyring, or it is locked, hangs, fails or does not keep the token. The previous one
                is still there, unless the call that hung was the one that replaces it.
        """
        record = dump(token)
        parts = [hidden(record[start : start + _PART_SIZE]) for start in range(0, len(record), _PART_SIZE)]
        with self._entries() as entries:
            old = entries.get(_head(key))
            generation = "b" if _generation(old) == "a" else "a"
            for number, part in enumerate(parts):
                entries.set(_part(key, generation, number), part)
            entries.set(_head(key), json.dumps([generation, len(parts), _digest(record)]))
            entries.drop(key, generation, len(parts))  # of a longer token whose writing was interrupted
            entries.drop(key, "a" if generation == "b" else "b", 0)

    def delete(self, key: str) -> None:
        """Delete the token of a key; no error if there is none.

        Raises:
            StoreError: there is no keyring, or it is locked, hangs or fails.
        """
        with self._entries() as entries:
            if entries.get(_head(key)) is not None:
                entries.delete(_head(key))
            for generation in "ab":
                entries.drop(key, generation, 0)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Return a lock that one thread of one process holds at a time; see
        :class:`~mqtt_token_client.stores.SharedTokenStore`. It is a file in the user's state folder, as keyrings have
        no locks.
        """
        try:
            prepare(self._locks)
        except OSError as error:
            raise StoreError(f"store: {self._locks}: {error.strerror}") from None
        name = sha256(f"{self._service}\n{key}".encode()).hexdigest()[:32]
        with file_lock(self._locks / f"keyring-{name}.lock"):
            yield

    @contextmanager
    def _entries(self) -> Iterator[_Entries]:
        classes = (_system_backends() if self._classes is None else self._classes) if self._ring is None else []
        with self._limit.operation() as call:
            if self._ring is None:
                self._ring = call(_best, classes)
            yield _Entries(self._ring, self._service, call)


class _Entries:
    """The entries of a service, for one operation."""

    def __init__(self, ring: KeyringBackend, service: str, call: Callable[..., Any]) -> None:
        self._ring = ring
        self._service = service
        self._call = call

    def get(self, entry: str) -> str | None:
        content: str | None = hidden(self._call(self._ring.get_password, self._service, entry))
        return content

    def set(self, entry: str, content: str) -> None:
        self._call(self._ring.set_password, self._service, entry, content)
        if self.get(entry) != content:
            name = f"{type(self._ring).__module__}.{type(self._ring).__qualname__}"
            raise StoreError(f"keyring: {name} does not return what was stored in it")

    def delete(self, entry: str) -> None:
        self._call(self._ring.delete_password, self._service, entry)

    def drop(self, key: str, generation: str, start: int) -> None:
        """Delete the parts of a generation from a number on. The last one goes first: if this is interrupted, there is
        no gap that the next call would take for the end.
        """
        end = start
        while self.get(_part(key, generation, end)) is not None:
            end += 1
        for number in reversed(range(start, end)):
            self.delete(_part(key, generation, number))


def _head(key: str) -> str:
    return f"{key} head"


def _part(key: str, generation: str, number: int) -> str:
    return f"{key} {generation}{number}"


def _digest(record: str) -> str:
    return sha256(record.encode()).hexdigest()


def _parse_head(head: str) -> tuple[str, int, str]:
    try:
        generation, count, digest = json.loads(head)
        return str(generation), int(count), str(digest)
    except (ValueError, TypeError, RecursionError):
        pass
    raise StoreError("keyring: the stored entry is not a token")


def _generation(head: str | None) -> str | None:
    try:
        return None if head is None else _parse_head(head)[0]
    except StoreError:  # it is going to be replaced
        return None


def _backend(name: str) -> type[KeyringBackend]:
    """Return the class of a backend by its name, which may be any importable one.

    Raises:
        ConfigurationError: there is no such class, or the library ``keyring`` is not installed.
    """
    try:
        from keyring.backend import KeyringBackend
    except ImportError:
        raise ConfigurationError(
            "the library keyring is not installed: pip install keyring, or store tokens in files"
        ) from None
    module, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # noqa: BLE001 - importing a module may raise anything
        why = type(error).__name__
    else:
        if isinstance(found, type) and issubclass(found, KeyringBackend):
            return found
        why = "not a KeyringBackend"
    raise ConfigurationError(f"backend must be module.Class of a keyring backend, got {name!r} ({why})")


def _system_backends() -> list[type[KeyringBackend]]:
    """Return the backends of the operating system, usable or not. If none can be usable, nothing is imported, which
    would take seconds on a small device.
    """
    bus = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "bus")
    if sys.platform == "linux" and not os.environ.get("DBUS_SESSION_BUS_ADDRESS") and not bus.exists():
        raise StoreError("keyring: there is no D-Bus session, which a keyring needs")
    try:
        return [_backend(name) for name in _SYSTEM]
    except ConfigurationError as error:
        raise StoreError(f"keyring: {error}") from None


def _best(classes: list[type[KeyringBackend]]) -> KeyringBackend:
    usable, errors = [], []
    for each in classes:
        try:
            usable.append((each.priority, each))
        except Exception as error:  # noqa: BLE001 - a backend that is not usable here raises any exception
            errors.append(str(error) if isinstance(error, RuntimeError) else type(error).__name__)
    if not usable:
        raise StoreError(f"no backend is usable here: {'; '.join(errors) or 'there is none for this operating system'}")
    return max(usable, key=lambda one: one[0])[1]()
