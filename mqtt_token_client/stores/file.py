"""FileStore: each token in an encrypted file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, StoreError
from ..logs import get_logger
from ..token import Token
from .folder import default_folder, prepare, problem, replace, sync
from .lock import file_lock
from .record import dump, parse

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_log = get_logger("mqtt_token_client.stores")

_CREDENTIAL_NAME = "mqtt-token-client.key"
_KEY_FILE = "store.key"

_GIVEN_KEY = "a key from the program: protected from other users, and otherwise as safe as that key"
_CREDENTIAL_KEY = (
    f"the key in the systemd credential {_CREDENTIAL_NAME}: protected from other users, and, if that credential is "
    "encrypted for this machine's TPM, from a thief of the disk or a backup; not from root"
)
_KEY_IN_FOLDER = (
    f"a key in the same folder, {_KEY_FILE}: protected from other users, but not from root, nor from a thief of the "
    "whole folder, such as of an SD card or a backup"
)


class _Unreadable(Exception):  # noqa: N818 - used in this file only
    """A token file that is damaged, or was written with another key."""


class FileStore:
    """Keeps each token in a file of its own: encrypted (Fernet: AES-128-CBC and HMAC-SHA256), with mode 600 in a folder
    of mode 700, replaced as a whole and flushed to the disk. Any number of threads and processes may use one folder.

    A file that cannot be read, because it is damaged or was written with another key, is set aside as ``….corrupt``,
    where the right key could still read it: ``load()`` raises StoreError once, and finds no token from then on.

    The encryption key is the ``key`` argument; else the systemd credential ``mqtt-token-client.key`` of this service
    (``$CREDENTIALS_DIRECTORY``, systemd.exec(5)); else the file ``store.key`` in the folder, which is created with the
    first token.

    Args:
        path: the folder, which is created if necessary; by default ``mqtt-token-client`` in the first of
            ``$STATE_DIRECTORY``, ``$XDG_STATE_HOME``, ``~/.local/state``.
        key: 32 bytes in URL-safe base64, as ``Fernet.generate_key()`` returns.

    Raises:
        ConfigurationError: the folder is open to other users or belongs to one, or the key is not a Fernet key.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, key: str | bytes | None = None) -> None:
        if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
            raise ConfigurationError(f"path must be the path of a folder, got {path!r}")
        try:
            self._folder = default_folder() if path is None else Path(path).expanduser().absolute()
            why = problem(self._folder)
        except (RuntimeError, ValueError) as error:  # the home of an unknown user; a null byte
            why = str(error)
        if why:
            raise ConfigurationError(f"path: {why}")
        self._cipher: Fernet | None = None  # None: that of the key file
        self._protection = _KEY_IN_FOLDER
        if key is not None:
            self._cipher, self._protection = _cipher(key), _GIVEN_KEY
            if self._cipher is None:
                raise ConfigurationError("key must be 32 bytes in URL-safe base64, as Fernet.generate_key() returns")
        elif credential := _credential():
            self._cipher, self._protection = credential, _CREDENTIAL_KEY

    @property
    def protection(self) -> str:
        """Where the tokens are and how they are protected, as a phrase."""
        return f"encrypted files in {self._folder}, with {self._protection}"

    def load(self, key: str) -> Token | None:
        """Return the token of a key; None if there is none.

        Raises:
            StoreError: it cannot be read. If the file is damaged, it has been set aside, and the next call returns
                None.
        """
        file = self._file(key)
        with self._os_errors():
            with suppress(_Unreadable):
                return self._read(file)
            with self._writing():  # no other process can replace it now
                try:
                    return self._read(file)
                except _Unreadable:
                    aside = self._set_aside(file)
        raise StoreError(f"store: {file} is damaged or was written with another key; set aside as {aside.name}")

    def save(self, key: str, token: Token) -> None:
        """Replace the token of a key; once this has returned, a power cut does not lose it.

        Raises:
            StoreError: it could not be written; the previous one is still there.
            StoreLocked: another process has been writing for a minute.
        """
        with self._os_errors(), self._writing():
            cipher = self._cipher or self._cipher_of_file() or self._new_key()
            replace(self._file(key), cipher.encrypt(dump(token).encode()))

    def delete(self, key: str) -> None:
        """Delete the token of a key, also one that was set aside; no error if there is none.

        Raises:
            StoreError: it is still there.
            StoreLocked: another process has been writing for a minute.
        """
        file = self._file(key)
        with self._os_errors():
            if not self._folder.exists():
                return
            with self._writing():
                for path in (file, *(file.with_name(f"{file.name}.{end}") for end in ("corrupt", "tmp"))):
                    path.unlink(missing_ok=True)
                sync(self._folder)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Return a lock that one thread of one process holds at a time; see
        :class:`~mqtt_token_client.stores.SharedTokenStore`.
        """
        with self._os_errors():
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

    # The key file is read each time, so that all processes notice if it is replaced.

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
        _log.warning("created a new key, %s; tokens are kept in %s", file, self.protection)
        return Fernet(key)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time in the whole folder."""
        prepare(self._folder)
        with file_lock(self._folder / "store.lock"):
            yield

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        """Raise OSError as StoreError."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"store: {error.filename or self._folder}: {error.strerror}") from None


def _cipher(key: str | bytes) -> Fernet | None:
    """Return the cipher of a key; None if it is not a key."""
    from cryptography.fernet import Fernet

    try:
        return Fernet(key.strip())
    except (ValueError, TypeError, AttributeError):
        return None


def _credential() -> Fernet | None:
    """Return the cipher of the systemd credential of this service; None if it has none."""
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
        raise ConfigurationError(f"{file} must be 32 bytes in URL-safe base64, as Fernet.generate_key() returns")
    return cipher
