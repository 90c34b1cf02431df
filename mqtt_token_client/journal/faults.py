"""Errors of the disk, and those that say that the file is damaged."""

from __future__ import annotations

import sqlite3

from ..errors import JournalError
from .rows import DamagedError

# Python cannot decode a message of SQLite that quotes what is damaged.
DAMAGES = (DamagedError, UnicodeDecodeError)
FAILURES = (sqlite3.Error, OSError, JournalError, *DAMAGES)
# Errors of SQLite that say nothing about the content of the file.
_OF_THE_DISK = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
}


def result_code(error: Exception) -> int:
    """Return the primary result code of SQLite, 0 if there is none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: Exception) -> bool:
    """Whether an error says that the content of the file is damaged."""
    return isinstance(error, DAMAGES) or (isinstance(error, sqlite3.Error) and result_code(error) not in _OF_THE_DISK)
