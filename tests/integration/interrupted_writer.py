"""Kills a writer of a FileStore at random moments and reports what was readable each time; see test_power_cut.py.

It is a separate process, with one thread and everything imported, so that a writer is a fork that starts at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from mqtt_token_client import FileStore, Token
from mqtt_token_client.stores.record import parse


def numbered(number: int) -> Token:
    return Token(f"{number}", 3600, refresh_token=f"{number} " * 600)


def write_on(store: FileStore, number: int, saved: int) -> None:
    """Save one token after the other, and report each."""
    while True:
        number += 1
        store.save("a", numbered(number))
        os.write(saved, f"{number}\n".encode())


def main(folder: Path, kills: int) -> dict[str, int]:
    parse('{"value": "a", "refresh_token": null, "scope": null, "lifetime": 1, "since": 0, "boot": "", "born": 0}')
    store = FileStore(folder)
    began = time.monotonic()
    for _ in range(20):
        store.save("a", numbered(0))
    once = (time.monotonic() - began) / 20
    counts = {"old": 0, "new": 0, "in the middle": 0}
    current = 0
    for _ in range(kills):
        reading, saved = os.pipe()
        if (child := os.fork()) == 0:
            try:
                write_on(store, current, saved)
            finally:
                os._exit(1)
        os.close(saved)
        time.sleep(random.uniform(0, 3 * once))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise RuntimeError("the writer failed by itself")
        with os.fdopen(reading) as lines:
            last = int((lines.read().split() or [str(current)])[-1])
        counts["in the middle"] += any(path.suffix == ".tmp" for path in folder.iterdir())
        found = store.load("a")  # raises for a file that cannot be read
        if found is None or int(found.value) not in (last, last + 1):
            raise RuntimeError(f"{found and found.value} is there after {last} was saved")
        current = int(found.value)
        if found.refresh_token != numbered(current).refresh_token:
            raise RuntimeError(f"{current} is there in part")
        counts["old" if current == last else "new"] += 1
    store.save("a", numbered(0))
    counts["left over"] = sum(path.suffix not in (".token", ".lock", ".key") for path in folder.iterdir())
    return counts


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
