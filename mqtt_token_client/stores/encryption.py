"""Key: encrypts the records of a FileStore, and the messages of a journal."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Literal

from ..errors import StoreError, StoreKeyMissing
from ..value import hidden

Place = Literal["argument", "credential", "file"]

CREDENTIAL_NAME = "mqtt-token-client.key"
KEY_FILE = "store.key"

_NAMES: dict[Place, str] = {
    "argument": "a key that the program gives, FileStore(key=…)",
    "credential": f"the systemd credential {CREDENTIAL_NAME} of a service",
    "file": KEY_FILE,
}
_PROTECTION: dict[Place, str] = {
    "argument": "a key from the program: protected from other users, and otherwise as safe as that key",
    "credential": (
        f"the key in the systemd credential {CREDENTIAL_NAME}: protected from other users, and, if that credential is "
        "encrypted for this machine's TPM, from a thief of the disk or a backup; not from root"
    ),
    "file": (
        f"a key in the same folder, {KEY_FILE}: protected from other users, but not from root, nor from a thief of the "
        "whole folder, such as of an SD card or a backup"
    ),
}
_HEAD = re.compile(rb"(argument|credential|file):([0-9a-f]{16})\n")
_FERNET = b"gAAAAA"  # how all content begins that Fernet encrypted; a version of 0.1 wrote nothing before it


class Key:
    """A Fernet key (AES-128-CBC and HMAC-SHA256), and where it comes from.

    Args:
        place: where it comes from.
        key: 32 bytes in URL-safe base64.

    Attributes:
        place: the same.
        id: says which key it is, and is not a secret.

    Raises:
        ValueError: it is not a key.
    """

    def __init__(self, place: Place, key: str | bytes) -> None:
        key = hidden(key)
        from cryptography.fernet import Fernet

        try:
            key = hidden(key.strip())
            self._fernet = Fernet(key)
        except (TypeError, AttributeError):
            raise ValueError from None
        self.place = place
        self.id = sha256(b"mqtt-token-client " + (key.encode() if isinstance(key, str) else key)).hexdigest()[:16]

    def seal(self, content: bytes) -> bytes:
        """Encrypt bytes; return bytes as well."""
        return urlsafe_b64decode(self._fernet.encrypt(content))

    def unseal(self, sealed: bytes) -> bytes:
        """Return what :meth:`seal` encrypted with this key.

        Raises:
            StoreError: it is damaged, or was encrypted with another key.
        """
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(urlsafe_b64encode(sealed))
        except InvalidToken:
            raise StoreError("it cannot be decrypted") from None

    def encrypt(self, record: str) -> bytes:
        """Return the content of a file: its key, then the encrypted record."""
        return f"{self.place}:{self.id}\n".encode() + self._fernet.encrypt(record.encode())

    def decrypt(self, content: bytes) -> bytes:
        """Return the record of a file that was written with this key.

        Raises:
            StoreError: it is damaged.
        """
        from cryptography.fernet import InvalidToken

        head = _HEAD.match(content)
        try:
            return hidden(self._fernet.decrypt(content[head.end() if head else 0 :]))  # type: ignore[no-any-return]
        except InvalidToken:
            raise StoreError("store: the file is damaged") from None

    def wrote(self, content: bytes) -> bool:
        """Whether a file was written with this key."""
        head = _HEAD.match(content)
        if head is None:
            try:
                self.decrypt(content)
            except StoreError:
                return False
            return True
        return head[2].decode() == self.id


def protection(place: Place) -> str:
    """How a key from a place protects what is encrypted with it, as a phrase."""
    return _PROTECTION[place]


def place_of(content: bytes) -> Place | None:
    """Where the key of a file comes from; None if the file is damaged, or does not say it."""
    head = _HEAD.match(content)
    return None if head is None else head[1].decode()  # type: ignore[return-value]  # as in the pattern


def is_encrypted(content: bytes) -> bool:
    """Whether this looks like the content of a file, with whatever key."""
    return _HEAD.match(content) is not None or content.startswith(_FERNET)


def missing(file: object, content: bytes, own: Place) -> StoreKeyMissing:
    """The error for a file that was written with another key than that of this process."""
    place = place_of(content)
    if place is None:
        which = f"another key than {_NAMES[own]}"
    elif place == own:
        which = f"another key than the present one ({_NAMES[own]})"
    else:
        which = f"{_NAMES[place]}, which this process does not have"
    return StoreKeyMissing(
        f"store: {file} was written with {which}; it is left as it is: provide that key, as the service does, "
        "or delete the token with mqtt-token logout"
    )
