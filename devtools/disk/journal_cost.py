"""What a journal costs the disk in a day without the broker: bytes and flushes, for the table of docs/journal.md.

``python -m devtools.disk.journal_cost`` prints the table. Messages of 100 bytes are stored in commits of as many as
come together, and deleted by thousands when the broker is there again. The layer sees what SQLite writes and syncs; a
disk with blocks of 4 KiB writes each block that was touched once a sync. A run is some thousand messages long, from
when the second file has its size, and is multiplied up to a day.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from devtools.disk.layer import Layer, environment
from devtools.disk.power_cut import Operation, read_log
from mqtt_token_client.journal.batch import Batch
from mqtt_token_client.journal.database import Database
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import RecordedMessage

_BLOCK = 4096
_A_MINUTE = (1, 10, 60, 100)  # messages
_COMMIT_EVERY = (0, 1, 10, 60)  # seconds
_COMMITS = 1500  # at least: the second file begins anew each 1,000 pages
_MESSAGES = 6000  # at least
_DELETED_AT_ONCE = 1000
_TOPIC, _PAYLOAD = encode_topic("pump/17/temperature"), bytes(100)


def in_a_commit(a_minute: int, commit_every: int) -> int:
    """How many messages come together until their commit."""
    return max(1, math.ceil(commit_every * a_minute / 60))


def measure(folder: Path, together: int) -> tuple[float, float]:
    """Return the bytes and the flushes of a message that is stored and deleted, if so many are stored at once."""
    (folder / "disk").mkdir()
    layer = Layer()
    layer.watch(folder / "disk", folder / "log")
    database = Database(folder / "disk" / "journal")
    database.claim("pump")
    number = 0

    def store(count: int) -> None:
        nonlocal number
        batch = Batch(database.counters)
        for _ in range(count):
            number += 1
            message = RecordedMessage(_TOPIC, _PAYLOAD, 1, False, b"")
            message.number = number
            batch.append(message, _PAYLOAD, 0.0)
        database.commit(batch)

    def delete(first: int) -> None:
        for start in range(first, number + 1, _DELETED_AT_ONCE):
            batch = Batch(database.counters)
            for one in range(start, min(start + _DELETED_AT_ONCE, number + 1)):
                batch.remove(one)
            database.commit(batch)

    store(_MESSAGES)  # until the second file has its size
    delete(1)
    began, count = layer.changes, max(_COMMITS * together, _MESSAGES)
    first = number + 1
    for _ in range(count // together):
        store(together)
    delete(first)
    database.close()
    size = flushes = seen = 0
    dirty: dict[int, set[int]] = defaultdict(set)
    for operation, file, offset, _name, _second, data in read_log(folder / "log"):
        if operation in (Operation.OPEN, Operation.MAP):
            continue
        seen += 1
        if operation == Operation.WRITE:
            dirty[file].update(range(offset // _BLOCK, (offset + len(data) - 1) // _BLOCK + 1))
        elif operation == Operation.SYNC:
            if seen > began:
                size += _BLOCK * len(dirty[file])
                flushes += 1
            dirty[file].clear()
    return size / count, flushes / count


def main() -> None:
    write = sys.stdout.write
    cost: dict[int, tuple[float, float]] = {}
    for together in sorted({in_a_commit(rate, seconds) for rate in _A_MINUTE for seconds in _COMMIT_EVERY}):
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, "-m", __spec__.name, str(Path(name).resolve()), str(together)]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
        size, flushes = map(float, done.stdout.split())
        cost[together] = size, flushes
        write(f"{together} at once: {cost[together][0]:.0f} bytes, {cost[together][1]:.4f} flushes a message\n")
    write(f"| messages | {' | '.join(f'`commit_every={seconds}`' for seconds in _COMMIT_EVERY)} |\n")
    for rate in _A_MINUTE:
        cells = []
        for seconds in _COMMIT_EVERY:
            size, flushes = cost[in_a_commit(rate, seconds)]
            cells.append(f"{size * rate * 1440 / 1e6:.1f} MB, {flushes * rate * 1440:,.0f}")
        write(f"| {rate} a minute | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(" ".join(map(str, measure(Path(sys.argv[1]), int(sys.argv[2])))))
    else:
        main()
