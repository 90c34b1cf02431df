"""What a disk may hold after a power cut: what was synced, and of everything else any part.

The log of layer.c is replayed on a model of a filesystem with its page cache. A sector of 512 bytes is written as a
whole or not at all, in any order, at any time before the sync that awaits it; so is the size of a file. Changes of a
directory that were not synced are lost from one of them on, as a journaling filesystem writes them in order, or are
lost one by one.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("<BHHIQQ")
_SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)  # of the sectors that were not synced: how many reach the disk


class Operation(IntEnum):
    """As in layer.c."""

    OPEN = 1
    CREATE = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC = 5
    DIRSYNC = 6
    RENAME = 7
    UNLINK = 8
    MKDIR = 9
    MAP = 10


Record = tuple[Operation, int, int, str, str, bytes]  # file and offset; names; data


def read_log(log: Path) -> list[Record]:
    """The records of a log, in order; of one that was cut off while it was written, nothing."""
    data, at, records = log.read_bytes(), 0, []
    while at + _HEAD.size <= len(data):
        operation, name, second, size, file, offset = _HEAD.unpack_from(data, at)
        parts = at + _HEAD.size
        at = parts + name + second + size
        if at <= len(data):
            names = data[parts : parts + name].decode(), data[parts + name : parts + name + second].decode()
            records.append((Operation(operation), file, offset, *names, data[at - size : at]))
    return records


class File:
    """One file in the page cache and on the disk.

    Args:
        content: what is on the disk.
    """

    def __init__(self, content: bytes = b"") -> None:
        self._cache = bytearray(content)
        self._disk = bytearray(content)
        self._sizes = [len(content)]  # that the disk may have
        self._versions: dict[int, list[bytes]] = {}  # of each sector that was written and not synced

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self._cache):
            self._resize(end)
        self._cache[offset:end] = data
        self._changed(offset, end)

    def truncate(self, size: int) -> None:
        before = len(self._cache)
        self._resize(size)
        self._cache += bytes(
            max(0, before - size)
        )  # a size that stays behind on the disk shows zeros, or what was there
        self._changed(size, before)
        del self._cache[size:]

    def _resize(self, size: int) -> None:
        del self._cache[size:]
        self._cache += bytes(size - len(self._cache))
        self._sizes.append(size)

    def _changed(self, start: int, end: int) -> None:
        for sector in range(start // SECTOR, -(-end // SECTOR)):
            version = bytes(self._cache[sector * SECTOR : (sector + 1) * SECTOR])
            self._versions.setdefault(sector, []).append(version)

    def sync(self) -> None:
        size = len(self._cache)
        del self._disk[size:]
        self._disk += bytes(size - len(self._disk))
        for sector in self._versions:
            start = sector * SECTOR
            self._disk[start : start + SECTOR] = self._cache[start : start + SECTOR]
        self._sizes, self._versions = [size], {}

    def after_cut(self, chance: random.Random, share: float) -> bytes:
        """What the disk may have of it, if about ``share`` of what was not synced reached it."""
        size = self._sizes[0] if chance.random() >= share else chance.choice(self._sizes)
        size = self._sizes[-1] if share == 1.0 else size
        found = self._disk[:size] + bytes(max(0, size - len(self._disk)))
        for sector, versions in self._versions.items():
            start = sector * SECTOR
            if start < size and chance.random() < share:
                version = versions[-1] if share == 1.0 else chance.choice(versions)
                found[start : start + SECTOR] = version.ljust(SECTOR, b"\0")
        return bytes(found[:size])


class Disk:
    """A folder on a disk, its page cache, and a process that changes it.

    Args:
        folder: the real folder; the process begins with what is in it, all of which is on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._initial = {
            str(path.relative_to(folder)): File(path.read_bytes()) if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }
        self._names = dict(self._initial)  # None for a directory
        self._durable = dict(self._initial)
        self._pending: list[tuple[Operation, str, str, File | None]] = []
        self._files: dict[int, File] = {}
        self.mapped: set[str] = set()  # files that were written through memory, where no record is made

    def replay(self, records: list[Record], *, killed: bool) -> None:
        """Do what a log says.

        Args:
            records: of the log.
            killed: whether the process was killed in the last one: then it may not be complete.
        """
        for number, (operation, file, offset, name, second, data) in enumerate(records):
            incomplete = killed and number == len(records) - 1
            match operation:
                case Operation.OPEN:
                    known = self._names.get(name)
                    assert known is not None, f"{name} was opened, and is not there"
                    self._files[file] = known
                case Operation.CREATE:
                    self._files[file] = File()
                    self._change(operation, name, "", self._files[file])
                case Operation.WRITE:
                    self._files[file].write(offset, data)
                case Operation.TRUNCATE:
                    self._files[file].truncate(offset)
                case Operation.SYNC if not incomplete:
                    self._files[file].sync()
                case Operation.DIRSYNC if not incomplete:
                    self._sync_directory(name)
                case Operation.RENAME | Operation.UNLINK | Operation.MKDIR:
                    self._change(operation, name, second, self._names.get(name))
                case Operation.MAP:
                    self.mapped.add(next(path for path, one in self._names.items() if one is self._files[file]))

    def _change(self, operation: Operation, name: str, second: str, file: File | None) -> None:
        self._pending.append((operation, name, second, file))
        _apply(self._names, operation, name, second, file)

    def _sync_directory(self, directory: str) -> None:
        """All earlier changes are on the disk, too, if they are in the same directory."""
        kept = []
        for change in self._pending:
            if str(Path(change[1]).parent) == (directory or "."):
                _apply(self._durable, *change)
            else:
                kept.append(change)
        self._pending = kept

    def after_cut(self, chance: random.Random) -> dict[str, bytes | None]:
        """What the disk may have: the content of each file by its path, None for a directory."""
        share = chance.choice(_SHARES)
        names = dict(self._durable)
        for change in self._surviving(chance, share):
            _apply(names, *change)
        return {name: None if file is None else file.after_cut(chance, share) for name, file in names.items()}

    def _surviving(self, chance: random.Random, share: float) -> Iterator[tuple[Operation, str, str, File | None]]:
        if chance.random() < 0.5:
            yield from self._pending[: round(share * len(self._pending))]
        else:
            yield from (change for change in self._pending if chance.random() < share)


def _apply(names: dict[str, File | None], operation: Operation, name: str, second: str, file: File | None) -> None:
    if operation in (Operation.CREATE, Operation.MKDIR):
        names[name] = file
    elif operation == Operation.UNLINK:
        names.pop(name, None)
    else:  # with a directory moves everything in it
        for path in [path for path in names if path == name or path.startswith(f"{name}/")]:
            names[second + path.removeprefix(name)] = names.pop(path)


def restore(folder: Path, content: dict[str, bytes | None]) -> None:
    """Make a folder hold this, and nothing else."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()
        else:
            path.rmdir()
    for name, data in sorted(content.items()):
        path = folder / name
        if data is None:
            path.mkdir(mode=0o700)
        else:
            path.touch(mode=0o600)
            path.write_bytes(data)
