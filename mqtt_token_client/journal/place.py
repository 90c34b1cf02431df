"""Where a journal is: one file in a folder that other users cannot write to."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import JournalError
from ..stores.folder import sync

_ASIDE = ("", "-2", "-3")  # endings of their names; the last one is replaced, as a disk has little room


def create(file: Path) -> None:
    """Create the file (mode 600) and its folder (mode 700), unless they exist.

    Raises:
        OSError: one of them cannot be created.
        JournalError: other users can write to the folder.
    """
    folder = file.parent
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)
    mode = folder.stat().st_mode
    if mode & 0o022 and not mode & stat.S_ISVTX:
        raise JournalError(f"journal: other users can write to {folder}; chmod it to 700, or give another folder")
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        sync(folder)


def set_aside(file: Path) -> Path:
    """Rename a damaged file, and the second one that belongs to it; return the new name. The first few files are kept,
    as each may have messages that no other has.

    Raises:
        OSError: it failed.
    """
    *names, last = ([file.with_name(f"{file.name}.corrupt{ending}{wal}") for wal in ("-wal", "")] for ending in _ASIDE)
    new = next((pair for pair in names if not any(name.exists() for name in pair)), last)
    if new is last:
        last[0].unlink(missing_ok=True)  # SQLite would apply it to the file that takes its place
    for old, name in zip((file.with_name(f"{file.name}-wal"), file), new, strict=True):  # the first is useless alone
        with suppress(FileNotFoundError):
            old.replace(name)
    sync(file.parent)
    return new[1]
