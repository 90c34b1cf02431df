"""What the journal costs the disk and the device, compared with other ways to keep messages; needs root, for a disk."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import recording
from benchmarks.environment import ROOT, peers_python, surroundings, versions
from benchmarks.journal import trials
from benchmarks.journal.disk import Disk
from benchmarks.journal.peers import JOURNAL, PEERS
from benchmarks.journal.report import render
from benchmarks.speed.broker import Broker
from benchmarks.speed.rows import Rows


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    messages: int  # published, or lost
    costed: int  # whose cost is counted
    stored: int  # of a device that starts
    beats: int


LONG = Plan(rounds=3, messages=10_000, costed=400, stored=1_000_000, beats=50)
SHORT = Plan(rounds=1, messages=1_000, costed=100, stored=20_000, beats=20)


def measure(plan: Plan, only: list[str]) -> recording.Document:
    """Measure the parts that are named, or all."""
    packages = {package for peer in PEERS.values() for package in peer.packages} - {*PEERS[JOURNAL].packages}
    python = peers_python([f"-e{ROOT}", *packages])
    about = surroundings() | versions(python, packages)
    rows = Rows()
    with (
        tempfile.TemporaryDirectory() as name,
        closing(Broker(Path(name))) as broker,
        closing(Disk(Path(name))) as disk,
    ):
        bench = trials.Bench(broker, disk, python)
        every: dict[str, Callable[[], None]] = {
            "disk": lambda: trials.disk_cost(bench, rows, plan.costed),
            "speed": lambda: trials.speed(bench, rows, plan.rounds, plan.messages),
            "left": lambda: trials.left(bench, rows, plan.messages),
            "heartbeat": lambda: trials.heartbeat(bench, rows, plan.rounds, plan.beats),
            "start": lambda: trials.start(bench, rows, (1, plan.stored), plan.rounds),
        }
        for part in only or every:
            began = time.monotonic()
            every[part]()
            print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    terms = {"messages": plan.messages, "few": plan.messages // 10, "stored": plan.stored}
    return {**about, "rounds": plan.rounds, "terms": terms, "rows": [asdict(row) for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few messages, to see that it works")
    parser.add_argument("--only", metavar="PARTS", default="", help="some parts, with commas between them")
    recording.add_options(parser, "journal")
    arguments = parser.parse_args()
    if arguments.page:
        recording.regenerate("journal", render)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as for Ctrl-C: the disk is unmounted on the way out
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    only = [part for part in arguments.only.split(",") if part]
    document = measure(SHORT if arguments.short else LONG, only)
    recording.finish("journal", document, render, record=arguments.record)


if __name__ == "__main__":
    main()
