"""A journal's promises, across power cuts, kills and disks that fail.

Run as ``python -m tests.integration.power_cuts --cuts 15000 --kills 1000 --failures 1000 --damages 10000``, which
prints what it has seen as JSON; test_power_cuts.py runs some. Nothing that was stored is lost, reordered within its
topic and QoS or delivered twice at QoS 2, and no file is unreadable.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.pki import Pki
from tests.integration import damaged_journal
from tests.integration.journal_rig import Plan, Result, Rig

_MEMORY = Path("/dev/shm")  # where a file costs no disk


def cuts(count: int, seed: int) -> Iterator[Plan]:
    """Devices for so many power cuts: first one for each of the first changes of a disk, then random ones."""
    chance, number = random.Random(seed), 0
    while count > 0:
        number += 1
        each = number <= min(300, count // 3)
        lives = 1 if each else min(count, chance.randint(1, 25))
        count -= lives
        yield Plan(f"cut-{seed}-{number}", chance.getrandbits(32), lives, number if each else 0)


def kills(count: int, seed: int) -> Iterator[Plan]:
    """Devices for so many kills."""
    chance, number = random.Random(seed), 0
    while count > 0:
        number += 1
        lives = min(count, chance.randint(1, 25))
        count -= lives
        yield Plan(f"kill-{seed}-{number}", chance.getrandbits(32), lives, kills=True)


def failures(count: int, seed: int) -> Iterator[Plan]:
    """So many devices whose disk fails in their second life: each call in turn, with each error, once or longer."""
    chance = random.Random(seed)
    ways = list(product((errno.ENOSPC, errno.EIO, errno.EROFS), (1, 5, -1)))
    for number in range(count):
        call, way = divmod(number, len(ways))
        error, times = ways[way]
        yield Plan(f"fails-{seed}-{number}", chance.getrandbits(32), lives=2, fails=(error, call + 1, times))


def run(
    plans: Iterator[Plan],
    broker: Mosquitto,
    keys: Keys,
    folder: Path,
    *,
    restarts: bool = False,
    beside: int = 3,
    traces: Path | None = None,
) -> Result:
    """Let devices live and die, beside a broker that is killed every few seconds if ``restarts``.

    Args:
        plans: of the devices.
        broker: started.
        keys: that it trusts.
        folder: for everything on disk.
        restarts: whether the broker is killed; it has saved what it has acknowledged.
        beside: how many devices live beside each other.
        traces: a folder for all reports of the devices with a fault.
    """
    over = threading.Event()

    def restart() -> None:
        while not over.wait(3.0):
            broker.kill(save=True)
            broker.start()

    restarter = threading.Thread(target=restart)
    with Rig(folder.resolve(), broker.port, [keys.token(lifetime=20_000) for _ in range(50)], traces) as rig:
        if restarts:
            restarter.start()
        try:
            return rig.run(plans, beside)
        finally:
            over.set()
            if restarts:
                restarter.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=0, help="how often the power is cut")
    parser.add_argument("--kills", type=int, default=0, help="how often a process is killed")
    parser.add_argument("--failures", type=int, default=0, help="how many devices have a disk that fails")
    parser.add_argument("--damages", type=int, default=0, help="how many damaged files are opened")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--beside", type=int, default=3, help="devices beside each other")
    parser.add_argument("--traces", type=Path, help="a folder for all that the devices with a fault have reported")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    settings = {"beside": arguments.beside, "traces": arguments.traces}
    if arguments.damages:
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
            found, faults = damaged_journal.run(Path(name), arguments.damages, arguments.seed)
            results["damages"] = {**found, "faults": faults}
    for what in (cuts, kills, failures):
        count = getattr(arguments, what.__name__)
        if not count:
            continue
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
            folder, began = Path(name), time.monotonic()
            keys = Keys(folder)
            broker = Mosquitto(keys, Pki(folder), folder)
            broker.start()
            try:
                plans = what(count, arguments.seed)
                result = run(plans, broker, keys, folder, restarts=what is kills, **settings)
            finally:
                broker.stop()
            results[what.__name__] = dataclasses.asdict(result) | {"seconds": round(time.monotonic() - began)}
    sys.stdout.write(json.dumps(results, indent=1) + "\n")
    return int(any(result["faults"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
