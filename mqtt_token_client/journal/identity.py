"""Whose database a file is: this library's, another program's, or nobody's yet."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from ..errors import ConfigurationError
from .rows import DamagedError

APPLICATION, VERSION = 0x4D514A4C, 1


def check_unopened(path: Path) -> None:
    """Check a file before :class:`.Database` opens it, which changes it. Damage is left to that, as another process may
    be writing; and so is a file that has a second one, which counts, and that opening leaves as it is.

    Raises:
        ConfigurationError: it is another program's database, or a journal of a newer version.
    """
    if path.with_name(f"{path.name}-wal").exists():
        return
    # Not by open(): its close() would give up the locks of a client in this process that uses the file.
    uri = f"{path.absolute().as_uri()}?immutable=1"
    with suppress(sqlite3.Error, DamagedError), closing(sqlite3.connect(uri, uri=True)) as connection:
        is_new(connection, path)


def is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether a database is empty, and nobody's.

    Raises:
        ConfigurationError: it is another program's, or a journal of a newer version.
        DamagedError: it is a journal, and damaged.
    """
    application, version = integer(connection, "PRAGMA application_id"), integer(connection, "PRAGMA user_version")
    if not application and not integer(connection, "SELECT count(*) FROM sqlite_master"):
        return True
    if application != APPLICATION:
        if integer(connection, "SELECT count(*) FROM sqlite_master WHERE name IN ('messages', 'owner', 'state')"):
            raise DamagedError("the application identifier is wrong")
        raise ConfigurationError(f"journal: {path} is a database of another program; give another path")
    if version != VERSION:
        if version < VERSION or integer(connection, "SELECT max(version) FROM owner") != version:
            raise DamagedError("the version is wrong")
        raise ConfigurationError(
            f"journal: {path} was written by a newer version of mqtt-token-client; install that one, "
            "or give another path"
        )
    return False


def integer(connection: sqlite3.Connection, query: str) -> int:
    """Return the one integer that a query has as result.

    Raises:
        DamagedError: it has another one.
    """
    (value,) = connection.execute(query).fetchone()
    if not isinstance(value, int):
        raise DamagedError(f"{query} returned {value!r}")
    return value
