"""open_store: the best store that works on this device."""

from __future__ import annotations

import threading

from ..errors import ConfigurationError, StoreError
from ..logs import get_logger
from ..token import Token
from . import TokenStore
from .file import FileStore
from .keyring import KeyringStore
from .memory import MemoryStore

_log = get_logger("mqtt_token_client.stores")

_SPECS = '"auto", "keyring", "keyring:module.Class", "file", "file:/path/of/a/folder" or "memory"'


def open_store(spec: str = "auto") -> TokenStore:
    """Open a store for tokens.

    ``"auto"`` is the operating system's keyring if a trial shows that it works, else :class:`FileStore`; the log
    ``mqtt_token_client.stores`` says which and why. This is decided at each start: name a store if the keyring is not
    always available, or if several users or services share the token.

    Args:
        spec: "auto", "keyring", "keyring:module.Class" (a backend of the ``keyring`` library), "file",
            "file:/path/of/a/folder" or "memory".

    Raises:
        ConfigurationError: ``spec`` is something else, or the store cannot be used.
    """
    place, colon, detail = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if bool(colon) != bool(detail):
        raise ConfigurationError(f"store must be {_SPECS}, got {spec!r}")
    match place:
        case "auto" if not detail:
            return _best()
        case "keyring":
            return KeyringStore(backend=detail or None)
        case "file":
            return FileStore(detail or None)
        case "memory" if not detail:
            return MemoryStore()
    raise ConfigurationError(f"store must be {_SPECS}, got {spec!r}")


def _best() -> TokenStore:
    try:
        ring = KeyringStore()
        _try(ring)
    except (StoreError, ConfigurationError) as error:  # ConfigurationError: the user has no home
        files = FileStore()
        _log.info(
            "tokens are kept in %s (not in a keyring: %s)", files.protection, str(error).removeprefix("keyring: ")
        )
        return files
    _log.info("tokens are kept in %s", ring.protection)
    return ring


def _try(store: KeyringStore) -> None:
    """Store a token, which reads it back, and delete it.

    Raises:
        StoreError: the store does not work.
    """
    key = f"trial {threading.get_native_id()}"  # unique among those that run at the same time
    store.save(key, Token("trial" * 300, 1.0))  # as long as a typical JWT
    store.delete(key)
