"""A journal is opened while one system call after the other fails; see test_damaged_journal.py.

It runs on devtools/disk/layer.c. The disk is full, read-only or broken for one call, or for three; what was stored
before has to be there for the next process, in the same file.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections import Counter
from itertools import count, product
from pathlib import Path

from devtools.disk.layer import Layer
from mqtt_token_client import Event, MqttTokenError
from mqtt_token_client.journal import writer
from tests.integration.damaged_journal import MESSAGES, Files, flush, good_files, message, opened


def use(path: Path) -> None:
    """Open the journal as a client does, and store one more message."""
    events: list[Event] = []
    journal = opened(path, events)
    journal.load(lambda: None, lambda: None)
    journal.append(message(1000))
    flush(journal)
    journal.close()


def left(path: Path) -> int:
    """How many messages the next process finds."""
    events: list[Event] = []
    journal = opened(path, events)
    try:
        return journal.load(lambda: None, lambda: None).count
    finally:
        journal.close()


def fail_each(layer: Layer, folder: Path, files: Files, error: int, times: int, step: int) -> tuple[int, list[str]]:
    """Fail every ``step``-th call in turn. Return how many there were, and what went wrong."""
    faults = []
    for start in count(1, step):
        layer.fail(0, 1, 0)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        layer.fail(error, start, times)
        what = f"call {start}, {errno.errorcode[error]}, {times} times"
        try:
            use(folder / "outbox")
        except MqttTokenError as raised:
            faults.append(f"{what}: {raised}")
        calls = layer.calls
        layer.fail(0, 1, 0)
        if left(folder / "outbox") < MESSAGES:
            faults.append(f"{what}: lost")
        faults += [f"{what}: set aside" for _ in folder.glob("*.corrupt")]
        if calls < start:
            return start, faults
    raise AssertionError


def main(folder: Path, step: int) -> dict[str, object]:
    layer, calls, faults = Layer(), Counter[str](), []
    writer._FIRST_RETRY = 0.02
    first = folder / "good"
    first.mkdir(mode=0o700)
    good = good_files(first)
    layer.watch(folder / "disk", folder / "log")
    for files, error, times in product(good, (errno.ENOSPC, errno.EIO, errno.EROFS), (1, 3)):
        failed, found = fail_each(layer, folder / "disk", files, error, times, step)
        calls[errno.errorcode[error]] += failed // step
        faults += found
    return {**calls, "faults": faults}


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
