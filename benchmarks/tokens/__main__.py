"""What libraries do with tokens when something fails: this one and four others, side by side on one machine."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from benchmarks import recording
from benchmarks.environment import peers_python, versions
from benchmarks.tokens.bench import Bench, Lab
from benchmarks.tokens.cell import Cell
from benchmarks.tokens.peers import OURS, PEERS
from benchmarks.tokens.report import render
from benchmarks.tokens.trials import TRIALS
from devtools.servers.keys import Keys
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki

AT_ONCE = 8  # trials; most of their time is waiting

Rows = dict[str, dict[str, Cell]]


def run(lab: Lab, peers: list[str], trials: list[str]) -> Rows:
    """Every trial with every library, several at once."""

    def one(trial: str, peer: str) -> Cell:
        with Bench(peer, lab) as bench:
            cell = TRIALS[trial](bench)
        print(f"{trial} | {peer} | {cell.text}", file=sys.stderr)
        return cell

    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = {trial: {peer: pool.submit(one, trial, peer) for peer in peers} for trial in trials}
        return {trial: {peer: cell.result() for peer, cell in cells.items()} for trial, cells in begun.items()}


def ahead(rows: Rows) -> list[str]:
    """The rows in which another library did better than this one."""
    better = []
    for trial, cells in rows.items():
        ours = cells[OURS].cost
        for peer, cell in cells.items():
            if ours is not None and cell.cost is not None and cell.cost < ours:
                better.append(f"{peer}: {trial}")
    return better


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="only the rows whose name contains TEXT")
    parser.add_argument("--peer", choices=PEERS, help="only this library")
    recording.add_options(parser, "tokens")
    arguments = parser.parse_args()
    if arguments.page:
        recording.regenerate("tokens", render)
        return
    packages = [package for name in PEERS if name != OURS for package in PEERS[name].packages]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as for Ctrl-C: the servers are stopped on the way out
    others = peers_python(["requests", *packages])
    pythons = {peer: sys.executable if peer == OURS else others for peer in PEERS}
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        **versions(sys.executable, PEERS[OURS].packages),
        **versions(others, packages),
    }
    chosen = [trial for trial in TRIALS if arguments.only in trial]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tls").mkdir()
        with closing(AuthorizationServer(Keys(folder), folder)) as oidc:
            lab = Lab(oidc, Pki(folder / "tls"), pythons, folder)
            rows = run(lab, [arguments.peer] if arguments.peer else list(PEERS), chosen)
    document = {
        **about,
        "rows": {trial: {peer: asdict(cell) for peer, cell in row.items()} for trial, row in rows.items()},
        "another_is_better": ahead(rows) if OURS in next(iter(rows.values())) else [],
    }
    recording.finish("tokens", document, render, record=arguments.record)


if __name__ == "__main__":
    main()
