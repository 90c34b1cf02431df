"""The store that fits this device."""

from __future__ import annotations

import logging
import threading

from ..errors import ConfigurationError, StoreError
from ..token import Token
from . import TokenStore
from .file import FileStore
from .keyring import KeyringStore
from .memory import MemoryStore

_log = logging.getLogger("mqtt_token_client.stores")

_RIGHT = '"auto", "keyring", "keyring:module.Class", "file", "file:/path/of/a/folder" or "memory"'


def open_store(spec: str = "auto") -> TokenStore:
    """A place to keep tokens.

    ``"auto"`` is the operating system's keyring where a trial shows that it works, else :class:`FileStore`; a line of
    the log ``mqtt_token_client.stores`` says which and why. It decides anew at each start: name one where a keyring
    comes and goes, or where several users or services share the token.

    Args:
        spec: "auto", "keyring", "keyring:module.Class" (a backend of the ``keyring`` library), "file",
            "file:/path/of/a/folder" or "memory".

    Raises:
        ConfigurationError: it is none of these, or what it names cannot be used.
    """
    place, colon, detail = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if bool(colon) != bool(detail):
        raise ConfigurationError(f"store: {_RIGHT} is needed, not {spec!r}")
    match place:
        case "auto" if not detail:
            return _best()
        case "keyring":
            return KeyringStore(backend=detail or None)
        case "file":
            return FileStore(detail or None)
        case "memory" if not detail:
            return MemoryStore()
    raise ConfigurationError(f"store: {_RIGHT} is needed, not {spec!r}")


def _best() -> TokenStore:
    try:
        ring = KeyringStore()
        _try(ring)
    except (StoreError, ConfigurationError) as error:  # the second: no home
        files = FileStore()
        _log.info(
            "tokens are kept in %s (not in a keyring: %s)", files.protection, str(error).removeprefix("keyring: ")
        )
        return files
    _log.info("tokens are kept in %s", ring.protection)
    return ring


def _try(store: KeyringStore) -> None:
    """Keep a token, which reads it back, and forget it.

    Raises:
        StoreError: that does not work.
    """
    key = f"trial {threading.get_native_id()}"  # no two at once have the same
    store.save(key, Token("trial" * 300, 1.0))  # as long as a usual one
    store.delete(key)
