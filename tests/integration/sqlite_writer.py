"""Cuts the power of a process that writes to SQLite by itself, as the journal does; see test_power_cuts.py.

It shows what the rig is worth: with ``synchronous=NORMAL`` a power cut costs committed rows, with ``FULL`` none. It
runs on devtools/disk/layer.c; each writer is a fork that continues on the disk that the one before has left.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
from pathlib import Path

from devtools.disk.layer import Layer
from devtools.disk.power_cut import Disk, read_log, restore

_MOST_CHANGES = 120  # before a cut


def write_on(folder: Path, synchronous: str, number: int, committed: int) -> None:
    """Commit one row after the other, and report each."""
    database = sqlite3.connect(folder / "rows", isolation_level=None)
    for pragma in ("page_size=1024", "locking_mode=EXCLUSIVE", "journal_mode=WAL", f"synchronous={synchronous}"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("PRAGMA wal_autocheckpoint=60")  # often, so that cuts come in the middle of one
    database.execute("CREATE TABLE IF NOT EXISTS row (number INTEGER PRIMARY KEY, content BLOB)")
    while True:
        number += 1
        with database:
            database.execute("BEGIN")
            database.execute("INSERT INTO row VALUES (?, ?)", (number, bytes(number % 3000)))
            database.execute("DELETE FROM row WHERE number < ? - 20", (number,))
        os.write(committed, b"%d\n" % number)


def rows(folder: Path) -> list[tuple[int, bytes]]:
    """What is in the file.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    with contextlib.closing(sqlite3.connect(folder / "rows")) as database:
        if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise sqlite3.DatabaseError("the integrity check found a fault")
        if not database.execute("SELECT 1 FROM sqlite_schema").fetchall():
            return []  # cut before the table was there
        return database.execute("SELECT number, content FROM row ORDER BY number").fetchall()


def cut(layer: Layer, folder: Path, synchronous: str, number: int, chance: random.Random) -> int:
    """One life, and what the disk has of it; return the last row that was committed."""
    log = folder.parent / "log"
    log.unlink(missing_ok=True)
    disk = Disk(folder)
    reading, committed = os.pipe()
    kill_at = chance.randint(1, _MOST_CHANGES)
    if (child := os.fork()) == 0:
        try:
            layer.watch(folder, log, kill_at)
            write_on(folder, synchronous, number, committed)
        finally:
            os._exit(1)
    os.close(committed)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the writer failed by itself"
    with os.fdopen(reading) as lines:
        last = int((lines.read().split() or [str(number)])[-1])
    records = read_log(log)
    assert len([record for record in records if record[0] not in (1, 10)]) == kill_at, "a change is not in the log"
    disk.replay(records, killed=True)
    assert not disk.mapped, f"{disk.mapped} are written through memory"
    restore(folder, disk.after_cut(chance))
    return last


def main(folder: Path, synchronous: str, cuts: int, seed: int) -> dict[str, int]:
    layer, chance = Layer(), random.Random(seed)
    counts = {"lost": 0, "unreadable": 0, "damaged": 0, "committed": 0}
    number = 0
    for _ in range(cuts):
        before, number = number, cut(layer, folder, synchronous, number, chance)
        counts["committed"] += number - before
        copy = folder.parent / "copy"
        copy.mkdir(exist_ok=True)
        restore(copy, {path.name: path.read_bytes() for path in folder.iterdir()})
        try:
            found = rows(copy)
        except sqlite3.DatabaseError:
            counts["unreadable"] += 1
            restore(folder, {})
            continue
        last = found[-1][0] if found else 0
        counts["lost"] += last < number
        counts["damaged"] += any(content != bytes(row % 3000) for row, content in found)
        number = last
    return counts


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])), sys.stdout)
