"""FileStore: each token in an encrypted file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from ..errors import ConfigurationError, StoreError, StoreKeyMissing
from ..logs import get_logger
from ..token import Token
from ..value import hidden
from .encryption import CREDENTIAL_NAME, KEY_FILE, Key, Place, is_encrypted, missing, place_of, protection
from .folder import default_folder, prepare, problem, replace, sync
from .lock import file_lock
from .record import dump, parse

_log = get_logger("mqtt_token_client.stores")


class FileStore:
    """Keeps each token in a file of its own: encrypted (Fernet: AES-128-CBC and HMAC-SHA256), with mode 600 in a folder
    of mode 700, replaced as a whole and flushed to the disk. Any number of threads and processes may use one folder.

    A damaged file is set aside as ``….corrupt`` when the token is saved the next time. A file that was written with a
    key that this process does not have is never touched: ``load()`` and ``save()`` raise :class:`StoreKeyMissing`. Only
    if that key was ``store.key``, and it is lost, the file is set aside too. No ``store.key`` is created or used in a
    folder whose tokens were written with one of the other keys, which protect better.

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
        key = hidden(key)
        self._key: Key | None = None  # None: that of the key file
        if key is not None:
            try:
                self._key = Key("argument", key)
            except ValueError:
                raise ConfigurationError(
                    "key must be 32 bytes in URL-safe base64, as Fernet.generate_key() returns"
                ) from None
        else:
            self._key = _credential()

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    @property
    def protection(self) -> str:
        """Where the tokens are and how they are protected, as a phrase."""
        return f"encrypted files in {self._folder}, with {protection(self._place)}"

    @property
    def _place(self) -> Place:
        return "file" if self._key is None else self._key.place

    def load(self, key: str) -> Token | None:
        """Return the token of a key; None if there is none. Changes nothing.

        Raises:
            StoreKeyMissing: it was written with a key that this process does not have.
            StoreError: it cannot be read.
        """
        file = self._file(key)
        with self._os_errors():
            content = _content(file)
            return None if content is None else self._parse(file, content)

    def save(self, key: str, token: Token) -> None:
        """Replace the token of a key; once this has returned, a power cut does not lose it.

        Raises:
            StoreKeyMissing: this process does not have the key with which the previous one was written.
            StoreError: it could not be written; the previous one is still there.
            StoreLocked: another process has been writing for a minute.
        """
        file = self._file(key)
        with self._os_errors(), self._writing():
            content = _content(file)
            if content is not None:
                self._set_aside_if_damaged(file, content)
            if self._key is None:
                self._check_no_better_key()
            replace(file, (self._key or self._key_of_file() or self._new_key()).encrypt(dump(token)))

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

    def _parse(self, file: Path, content: bytes) -> Token:
        key = self._key
        if key is None or (place_of(content) == "file" and not key.wrote(content)):
            key = self._key_of_file()  # a token from before there was a better key
        if key is not None and key.wrote(content):
            with suppress(StoreError):
                return parse(key.decrypt(content))
        elif is_encrypted(content) and not self._is_key_lost(content):
            raise missing(file, content, self._place)
        raise StoreError(f"store: {file} is damaged, or {KEY_FILE} is; it is set aside when a token is saved")

    def _is_key_lost(self, content: bytes) -> bool:
        """Whether a file was written with a key file that is lost, and with none of the better keys."""
        return place_of(content) == "file" or (
            place_of(content) is None and self._key is None and (self._folder / KEY_FILE).exists()
        )

    def _set_aside_if_damaged(self, file: Path, content: bytes) -> None:
        try:
            self._parse(file, content)
        except StoreKeyMissing:
            raise
        except StoreError:
            self._set_aside(file)

    def _check_no_better_key(self) -> None:
        """Check that this process is not another one's, run without its key."""
        for file in self._folder.glob("*.token"):
            content = _content(file)
            if content is not None and place_of(content) in ("argument", "credential"):
                raise missing(file, content, "file")

    def _set_aside(self, file: Path) -> None:
        file.replace(file.with_name(f"{file.name}.corrupt"))
        sync(self._folder)

    # The key file is read each time, so that all processes notice if it is replaced.

    def _key_of_file(self) -> Key | None:
        with suppress(FileNotFoundError, ValueError):
            return Key("file", (self._folder / KEY_FILE).read_bytes())
        return None

    def _new_key(self) -> Key:
        from cryptography.fernet import Fernet

        file, key = self._folder / KEY_FILE, Fernet.generate_key()
        if file.exists():
            self._set_aside(file)
        replace(file, key)
        _log.warning("created a new key, %s; tokens are kept in %s", file, self.protection)
        return Key("file", key)

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


def _content(file: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return file.read_bytes()
    return None


def _credential() -> Key | None:
    """Return the key in the systemd credential of this service; None if it has none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    file = Path(folder) / CREDENTIAL_NAME
    try:
        return Key("credential", file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(
            f"{file} must be 32 bytes in URL-safe base64, as Fernet.generate_key() returns"
        ) from None
