"""This machine: the disk, random numbers, the store and its lock."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

from ...config import Config
from ...errors import MqttTokenError
from ...stores.file import FileStore
from ...stores.folder import default_folder
from ...stores.keyring import KeyringStore
from ...stores.memory import MemoryStore
from ...token import Token
from ..login import token_key
from .findings import FAILED, NOTE, OK, Finding, failed

_LEAST_DISK = 1_000_000  # bytes
_PROBE = "mqtt-token-doctor"


def examine_system(config: Config) -> Iterator[Finding]:
    folder = _existing(_folder(config))
    free = shutil.disk_usage(folder).free
    if free < _LEAST_DISK:
        yield Finding(
            "system", FAILED, f"the disk of {folder} has {free} bytes left", "delete something", explains=("store",)
        )
        return
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        yield Finding("system", NOTE, "the kernel has no random numbers yet", "install rng-tools, or wait after a boot")
        return
    yield Finding("system", OK, f"{free // 1_000_000} MB left on the disk of {folder}")


def _folder(config: Config) -> Path:
    """Where this library writes, or the folder of the file: a user without a home can have a store in memory only."""
    if isinstance(config.store, FileStore):
        return config.store.folder
    return config.path.parent if isinstance(config.store, MemoryStore) else default_folder()


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def examine_store(config: Config) -> Generator[Finding, None, bool]:
    """Store a token, read it back and delete it, under a lock; returns whether that worked."""
    store = config.store
    if isinstance(store, MemoryStore):
        yield Finding("store", NOTE, "tokens are lost when the process ends", 'set store = "file"')
        return True
    key = token_key(config)
    try:
        store.load(key)
        with store.lock(key):  # type: ignore[attr-defined]  # each store of a file has one
            store.save(_PROBE, Token("probe", expires_in=60))
            found = store.load(_PROBE)
            store.delete(_PROBE)
    except MqttTokenError as error:
        fix = 'unlock the keyring, or set store = "file", which needs nobody to log in'
        yield failed("store", error, fix if isinstance(store, KeyringStore) else "")
        return False
    where = str(getattr(store, "protection", type(store).__name__))
    if found is None:
        yield Finding("store", FAILED, f"what was stored is not there: {where}", "choose another store")
        return False
    yield Finding("store", OK, f"kept in {where}")
    return True
