"""Speed and smallness of this library beside other MQTT libraries, on one machine in one run."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import speed_footprint, speed_traffic
from benchmarks.environment import peers_python, versions
from benchmarks.rotation import surroundings
from benchmarks.speed_broker import Broker
from benchmarks.speed_lab import ROOT, Lab
from benchmarks.speed_peers import OURS, PEERS
from benchmarks.speed_plots import PLOTS
from benchmarks.speed_report import report
from benchmarks.speed_rows import Rows
from devtools.servers.keys import Keys
from devtools.servers.oidc import AuthorizationServer


@dataclass(frozen=True)
class Plan:
    """How much is measured; times in seconds."""

    rounds: int  # of the messages a second at 64 B, which are what most is said about
    other_rounds: int  # of everything else
    messages: int  # of 64 B at QoS 0 and 1
    bursts: tuple[speed_traffic.Traffic, ...]
    other_bursts: tuple[speed_traffic.Traffic, ...]
    latency: float
    far: float
    imports: int
    idle: float
    rotations: tuple[int, ...]
    clients: tuple[int, ...]
    fleet: int

    @property
    def told(self) -> str:
        return f"{self.rounds} rounds at 64 B, plain, of {self.other_rounds} elsewhere and {self.imports} imports"


SHORT = Plan(
    rounds=2,
    other_rounds=1,
    messages=10_000,
    bursts=tuple(
        burst for burst in speed_traffic.SMALL if burst.qos < 2 and (burst.protocol == 5 or not burst.backlog)
    ),
    other_bursts=(),
    latency=1.0,
    far=3.0,
    imports=5,
    idle=10.0,
    rotations=(20, 100),
    clients=(1, 100),
    fleet=0,
)
LONG = Plan(
    rounds=5,
    other_rounds=3,
    messages=20_000,
    bursts=tuple(speed_traffic.SMALL),
    other_bursts=tuple(speed_traffic.OTHERS),
    latency=2.0,
    far=5.0,
    imports=15,
    idle=60.0,
    rotations=(100, 900),
    clients=(1, 10, 100, 1000),
    fleet=1000,
)


def parts(plan: Plan, lab: Lab, rows: Rows, folder: Path) -> dict[str, Callable[[], None]]:
    """What there is to measure."""

    def throughput() -> None:
        speed_traffic.throughput(lab, rows, plan.bursts, plan.rounds, plan.messages)
        speed_traffic.throughput(lab, rows, plan.other_bursts, plan.other_rounds, plan.messages)

    def starting() -> None:
        with _authorization_server(folder) as oidc:
            speed_traffic.starting(lab, rows, oidc, plan.other_rounds + 2)

    def rotations() -> None:
        with _authorization_server(folder) as oidc:
            speed_footprint.rotations(lab, rows, oidc, plan.rotations)

    def fleet() -> None:
        if plan.fleet:
            speed_footprint.fleet(lab, rows, plan.fleet)

    return {
        "throughput": throughput,
        "latency": lambda: speed_traffic.latency(lab, rows, plan.other_rounds, plan.latency),
        "far": lambda: speed_traffic.far(lab, rows, plan.other_rounds, plan.far),
        "connecting": lambda: speed_traffic.connecting(lab, rows, plan.other_rounds, 10),
        "starting": starting,
        "importing": lambda: speed_footprint.importing(lab, rows, plan.imports),
        "memory": lambda: speed_footprint.memory(lab, rows, plan.other_rounds),
        "rotations": rotations,
        "idle": lambda: speed_footprint.idle(lab, rows, plan.idle),
        "growth": lambda: speed_footprint.growth(lab, rows, plan.clients),
        "fleet": fleet,
    }


@contextmanager
def _authorization_server(folder: Path) -> Iterator[AuthorizationServer]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        with closing(AuthorizationServer(Keys(own), own)) as oidc:
            oidc.config(at=3600)
            yield oidc


@contextmanager
def _lab(folder: Path, python: str) -> Iterator[Lab]:
    with closing(Broker(folder)) as broker:
        yield Lab(broker, python)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance", description=__doc__)
    parser.add_argument("--long", action="store_true", help="everything, for the record")
    parser.add_argument("--only", metavar="PARTS", help="some parts, with commas between them")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.md", help="also FILE.json with every figure, and the plots"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the servers are stopped on the way out
    # This library is not installed by pip, which compiles the others: it has to keep what it compiles.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for a thousand clients, here and in the broker

    plan = LONG if arguments.long else SHORT
    packages = {package for peer in PEERS.values() for package in peer.packages} - {*PEERS[OURS].packages}
    # All in one environment, this library too: what an import costs depends on what is installed beside it.
    python = peers_python([f"-e{ROOT}", *packages, *(["matplotlib"] if arguments.output else [])])
    about = surroundings() | versions(python, packages) | {"rounds": plan.told}
    rows = Rows()
    with tempfile.TemporaryDirectory() as name, _lab(Path(name), python) as lab:
        everything = parts(plan, lab, rows, Path(name))
        for part in arguments.only.split(",") if arguments.only else everything:
            began = time.monotonic()
            everything[part]()
            print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)

    terms: dict[str, Any] = {
        "imports": PEERS[OURS].imports,
        "far": plan.far,
        "idle": plan.idle,
        "settled": speed_footprint.SETTLED,
        "clients": plan.fleet,
    }
    output: Path | None = arguments.output
    plots = [f"{output.stem}-{plot}.svg" for plot in PLOTS] if output else []
    text = report(rows, about, terms, ROOT / "docs" / "rotation.json", plots)
    print(text)
    if output:
        output.write_text(text)
        document: dict[str, Any] = {**about, "libraries": list(PEERS), "rows": [asdict(row) for row in rows]}
        source = output.with_suffix(".json")
        source.write_text(json.dumps(document, indent=1) + "\n")
        subprocess.run([python, "-m", "benchmarks.speed_plots", str(source)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
