"""Tokens in encrypted files, one each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, StoreError
from ..token import Token
from .folder import default_folder, fault, prepare, replace, sync
from .lock import file_lock
from .record import dump, parse

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_log = logging.getLogger("mqtt_token_client.stores")

_CREDENTIAL_NAME = "mqtt-token-client.key"
_KEY_FILE = "store.key"

_GIVEN = "a key from the program: safe from other users, and otherwise as safe as that key"
_CREDENTIAL = (
    f"the key in the systemd credential {_CREDENTIAL_NAME}: safe from other users, and, if that credential is "
    "encrypted for this machine's TPM, from whoever gets the disk or a backup; not from root"
)
_BESIDE = (
    f"a key that lies beside them, {_KEY_FILE}: safe from other users, but not from root, nor from whoever gets the "
    "whole folder, as with a stolen SD card or a backup"
)


class _Unreadable(Exception):  # noqa: N818 - never leaves this file
    """A token file that is damaged, or was written with another key."""


class FileStore:
    """Keeps each token in a file of its own: encrypted (Fernet: AES-128-CBC and HMAC-SHA256), mode 600 in a folder of
    mode 700, replaced whole and written through to the disk. Any number of threads and processes may use one folder.

    A file that cannot be read, because it is damaged or was written with another key, is set aside as ``….corrupt``,
    where the right key could still read it: ``load()`` raises StoreError once, and finds no token from then on.

    The encryption key is the ``key`` argument; else the systemd credential ``mqtt-token-client.key`` of this service
    (``$CREDENTIALS_DIRECTORY``, systemd.exec(5)); else the file ``store.key`` in the folder, made with the first token.

    Args:
        path: the folder, made if it is not there; by default ``mqtt-token-client`` in the first of
            ``$STATE_DIRECTORY``, ``$XDG_STATE_HOME``, ``~/.local/state``.
        key: 32 bytes in URL-safe base64, as ``Fernet.generate_key()`` makes it.

    Raises:
        ConfigurationError: the folder is open to other users or belongs to one, or the key is no Fernet key.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, key: str | bytes | None = None) -> None:
        if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
            raise ConfigurationError("path: the path of a folder is needed")
        try:
            self._folder = default_folder() if path is None else Path(path).expanduser().absolute()
            why = fault(self._folder)
        except (RuntimeError, ValueError) as error:  # the home of an unknown user; a null byte
            why = str(error)
        if why:
            raise ConfigurationError(f"path: {why}")
        self._cipher: Fernet | None = None  # of the key file, if there is no other
        self._how = _BESIDE
        if key is not None:
            self._cipher, self._how = _cipher(key), _GIVEN
            if self._cipher is None:
                raise ConfigurationError("key: 32 bytes in URL-safe base64 are needed, as Fernet.generate_key() makes")
        elif credential := _credential():
            self._cipher, self._how = credential, _CREDENTIAL

    @property
    def protection(self) -> str:
        """Where the tokens are and how well that is protected, in a sentence."""
        return f"encrypted files in {self._folder}, with {self._how}"

    def load(self, key: str) -> Token | None:
        """The token kept under a key, or None.

        Raises:
            StoreError: it cannot be read; if that is the file's fault, it has been set aside, and the next call
                returns None.
        """
        file = self._file(key)
        with self._told():
            with suppress(_Unreadable):
                return self._read(file)
            with self._writing():  # nobody replaces it now
                try:
                    return self._read(file)
                except _Unreadable:
                    aside = self._set_aside(file)
        raise StoreError(f"store: {file} is damaged or was written with another key; set aside as {aside.name}")

    def save(self, key: str, token: Token) -> None:
        """Keep a token; when this returns, it has replaced its predecessor on the disk.

        Raises:
            StoreError: it could not be written; the predecessor is still there.
            StoreLocked: another process has been writing for a minute.
        """
        with self._told(), self._writing():
            cipher = self._cipher or self._cipher_of_file() or self._new_key()
            replace(self._file(key), cipher.encrypt(dump(token).encode()))

    def delete(self, key: str) -> None:
        """Forget the token of a key, also one set aside; no error if there is none.

        Raises:
            StoreError: it is still there.
            StoreLocked: another process has been writing for a minute.
        """
        file = self._file(key)
        with self._told():
            if not self._folder.exists():
                return
            with self._writing():
                for path in (file, *(file.with_name(f"{file.name}.{end}") for end in ("corrupt", "tmp"))):
                    path.unlink(missing_ok=True)
                sync(self._folder)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held by one thread of one process at a time; see :class:`~mqtt_token_client.stores.SharedTokenStore`."""
        with self._told():
            prepare(self._folder)
        with file_lock(self._file(key).with_suffix(".lock")):
            yield

    def _file(self, key: str) -> Path:
        return self._folder / f"{sha256(key.encode()).hexdigest()[:32]}.token"

    def _read(self, file: Path) -> Token | None:
        from cryptography.fernet import InvalidToken

        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        cipher = self._cipher or self._cipher_of_file()
        if cipher is not None:
            with suppress(InvalidToken, StoreError):
                return parse(cipher.decrypt(content))
        raise _Unreadable

    def _set_aside(self, file: Path) -> Path:
        aside = file.replace(file.with_name(f"{file.name}.corrupt"))
        sync(self._folder)
        return aside

    # The key file is read each time, so that all processes follow if it is exchanged.

    def _cipher_of_file(self) -> Fernet | None:
        with suppress(FileNotFoundError):
            return _cipher((self._folder / _KEY_FILE).read_bytes())
        return None

    def _new_key(self) -> Fernet:
        from cryptography.fernet import Fernet

        file, key = self._folder / _KEY_FILE, Fernet.generate_key()
        if file.exists():
            self._set_aside(file)
        replace(file, key)
        _log.warning("a new key was made, %s; tokens are in %s", file, self.protection)
        return Fernet(key)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time in the whole folder."""
        prepare(self._folder)
        with file_lock(self._folder / "store.lock"):
            yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"store: {error.filename or self._folder}: {error.strerror}") from None


def _cipher(key: str | bytes) -> Fernet | None:
    """What encrypts with a key; None if it is none."""
    from cryptography.fernet import Fernet

    try:
        return Fernet(key.strip())
    except (ValueError, TypeError, AttributeError):
        return None


def _credential() -> Fernet | None:
    """What encrypts with the key that systemd gave this service; None if it gave none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    file = Path(folder) / _CREDENTIAL_NAME
    try:
        cipher = _cipher(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    if cipher is None:
        raise ConfigurationError(f"{file}: 32 bytes in URL-safe base64 are needed, as Fernet.generate_key() makes")
    return cipher
