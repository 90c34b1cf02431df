"""Tokens in the operating system's keyring."""

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
from .folder import prepare, user_folder
from .limit import TimeLimit
from .lock import file_lock
from .record import dump, parse

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_LIMIT = 3.0  # seconds: a keyring that asks somebody who is not there to unlock it never answers
_PART = 1200  # characters: Windows takes 2560 bytes of UTF-16
_TRIES = 3

_SESSION_KEYRING = "the Secret Service of this session (GNOME Keyring or another)"
# Only these are chosen unasked. Any installed package may bring another, of any priority: in plain text, asking on the
# terminal, or keeping nothing.
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
    Credential Manager. What else is installed for the ``keyring`` library, and ``$PYTHON_KEYRING_BACKEND``, count only
    if ``backend`` says so.

    A call of the keyring has 3 s, and while one hangs further operations fail at once. What is written is read back.
    A token is written in parts, as keyrings have limits, under one of two generations, then the head entry that points
    there, then the other generation is deleted: whenever that is cut off, a whole token is there.

    Args:
        service: the name of the entries in the keyring.
        backend: the class of another backend to use, ``"module.Class"``, however weak it is.

    Raises:
        ConfigurationError: the service is empty, there is no such backend, or the user has no home for the locks.
    """

    def __init__(self, service: str = "mqtt-token-client", *, backend: str | None = None) -> None:
        if not isinstance(service, str) or not service:
            raise ConfigurationError("service: a name for the entries in the keyring is needed")
        self._service = service
        self._classes = None if backend is None else [_backend(backend)]
        self._limit = TimeLimit("keyring", _LIMIT)
        self._locks = user_folder()  # not a service's own: the keyring is the user's
        self._ring: KeyringBackend | None = None

    @property
    def name(self) -> str:
        """The class of the backend in use, ``module.Class``, chosen now if it has not been.

        Raises:
            StoreError: there is no usable one.
        """
        if self._ring is None:
            with self._entries():
                pass
        return f"{type(self._ring).__module__}.{type(self._ring).__qualname__}"

    @property
    def protection(self) -> str:
        """Where the tokens are and how well that is protected, in a sentence."""
        try:
            name = self.name
        except StoreError as error:
            return f"nowhere: {error}"
        if name not in _SYSTEM:
            return f"{name}, which was asked for by name; how safe that is, is for its documentation to say"
        return (
            f"{_SYSTEM[name]}, by {name}: encrypted on the disk with the user's password; while it is unlocked, open "
            "to all programs of this user and to root"
        )

    def load(self, key: str) -> Token | None:
        """The token kept under a key, or None.

        Raises:
            StoreError: no keyring, or it is locked, hangs or fails; or what it holds is damaged.
        """
        with self._entries() as entries:
            head = entries.get(_head(key))
            for _ in range(_TRIES):  # somebody who saves at this moment changes the head, and then the parts
                if head is None:
                    return None
                generation, count, digest = _parse_head(head)
                parts = [entries.get(_part(key, generation, number)) for number in range(count)]
                record = "".join(part or "" for part in parts)
                if _digest(record) == digest:
                    return parse(record)
                head, seen = entries.get(_head(key)), head
                if head == seen:
                    break
        raise StoreError("keyring: what is stored is no whole token")

    def save(self, key: str, token: Token) -> None:
        """Keep a token; when this returns, the keyring has given it back.

        Raises:
            StoreError: no keyring, or it is locked, hangs, fails or does not keep it. The predecessor is still there,
                unless it was just that call which hung.
        """
        record = dump(token)
        parts = [record[start : start + _PART] for start in range(0, len(record), _PART)]
        with self._entries() as entries:
            old = entries.get(_head(key))
            generation = "b" if _generation(old) == "a" else "a"
            for number, part in enumerate(parts):
                entries.set(_part(key, generation, number), part)
            entries.set(_head(key), json.dumps([generation, len(parts), _digest(record)]))
            entries.drop(key, generation, len(parts))  # of a longer token whose writing was cut off
            entries.drop(key, "a" if generation == "b" else "b", 0)

    def delete(self, key: str) -> None:
        """Forget the token of a key; no error if there is none.

        Raises:
            StoreError: no keyring, or it is locked, hangs or fails.
        """
        with self._entries() as entries:
            if entries.get(_head(key)) is not None:
                entries.delete(_head(key))
            for generation in "ab":
                entries.drop(key, generation, 0)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held by one thread of one process at a time; see :class:`~mqtt_token_client.stores.SharedTokenStore`. A file
        in the user's state folder, as keyrings have no locks.
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
        content: str | None = self._call(self._ring.get_password, self._service, entry)
        return content

    def set(self, entry: str, content: str) -> None:
        self._call(self._ring.set_password, self._service, entry, content)
        if self.get(entry) != content:
            name = f"{type(self._ring).__module__}.{type(self._ring).__qualname__}"
            raise StoreError(f"keyring: {name} does not give back what it was given to keep")

    def delete(self, entry: str) -> None:
        self._call(self._ring.delete_password, self._service, entry)

    def drop(self, key: str, generation: str, start: int) -> None:
        """Delete the parts of a generation from a number on: the last one first, so that being cut off leaves no gap
        at which the next one would take them for all.
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
    raise StoreError("keyring: what is stored is no token")


def _generation(head: str | None) -> str | None:
    try:
        return None if head is None else _parse_head(head)[0]
    except StoreError:  # it is about to be replaced
        return None


def _backend(name: str) -> type[KeyringBackend]:
    """The class of a backend by its name, which may be any importable one."""
    from keyring.backend import KeyringBackend

    module, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # noqa: BLE001 - whatever that module does as it is imported
        why = type(error).__name__
    else:
        if isinstance(found, type) and issubclass(found, KeyringBackend):
            return found
        why = "no KeyringBackend"
    raise ConfigurationError(f"backend: module.Class of a keyring backend is needed, not {name!r} ({why})")


def _system_backends() -> list[type[KeyringBackend]]:
    """The operating system's, usable or not. Where nothing can be, nothing is imported: on a small device that takes
    seconds.
    """
    bus = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "bus")
    if sys.platform == "linux" and not os.environ.get("DBUS_SESSION_BUS_ADDRESS") and not bus.exists():
        raise StoreError("keyring: there is no D-Bus session, and so no keyring")
    return [_backend(name) for name in _SYSTEM]


def _best(classes: list[type[KeyringBackend]]) -> KeyringBackend:
    usable, faults = [], []
    for each in classes:
        try:
            usable.append((each.priority, each))
        except Exception as error:  # noqa: BLE001 - a backend that is not usable here says so by raising
            faults.append(str(error) if isinstance(error, RuntimeError) else type(error).__name__)
    if not usable:
        raise StoreError(f"none is usable here: {'; '.join(faults) or 'this operating system has none'}")
    return max(usable, key=lambda one: one[0])[1]()
