"""Speed and footprint of this library compared with other MQTT libraries, on one machine in one run."""

from __future__ import annotations

import argparse
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

from benchmarks import recording
from benchmarks.environment import ROOT, peers_python, surroundings, versions
from benchmarks.speed import against, footprint, traffic
from benchmarks.speed.broker import Broker
from benchmarks.speed.lab import Lab
from benchmarks.speed.peers import OURS, PEERS
from benchmarks.speed.report import render
from benchmarks.speed.rows import Rows
from devtools.servers.keys import Keys
from devtools.servers.oidc import AuthorizationServer


@dataclass(frozen=True)
class Plan:
    """How much is measured; times in seconds."""

    rounds: int  # of the messages a second at 64 B, which matter most
    other_rounds: int  # of everything else
    messages: int  # of 64 B at QoS 0 and 1
    bursts: tuple[traffic.Traffic, ...]
    other_bursts: tuple[traffic.Traffic, ...]
    latency: float
    far: float
    imports: int
    idle: float
    rotations: tuple[int, ...]
    clients: tuple[int, ...]
    fleet: int

    @property
    def summary(self) -> str:
        return f"{self.rounds} rounds at 64 B, plain, of {self.other_rounds} elsewhere and {self.imports} imports"


SHORT = Plan(
    rounds=2,
    other_rounds=1,
    messages=10_000,
    bursts=tuple(burst for burst in traffic.SMALL if burst.qos < 2 and (burst.protocol == 5 or not burst.backlog)),
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
    bursts=tuple(traffic.SMALL),
    other_bursts=tuple(traffic.OTHERS),
    latency=2.0,
    far=5.0,
    imports=15,
    idle=60.0,
    rotations=(100, 900, 1000),
    clients=(1, 10, 100, 1000),
    fleet=1000,
)


def parts(plan: Plan, lab: Lab, rows: Rows, folder: Path) -> dict[str, Callable[[], None]]:
    """The parts that can be measured, by the names that ``--only`` takes."""

    def throughput() -> None:
        traffic.throughput(lab, rows, plan.bursts, plan.rounds, plan.messages)
        traffic.throughput(lab, rows, plan.other_bursts, plan.other_rounds, plan.messages)

    def starting() -> None:
        with _authorization_server(folder) as oidc:
            traffic.starting(lab, rows, plan.other_rounds + 2, oidc)

    def importing() -> None:
        footprint.importing(lab, rows, plan.imports)
        footprint.importing_package(lab, rows, plan.imports)

    def rotations() -> None:
        with _authorization_server(folder) as oidc:
            footprint.rotations(lab, rows, oidc, plan.rotations)

    def fleet() -> None:
        if plan.fleet:
            footprint.fleet(lab, rows, plan.fleet)

    return {
        "throughput": throughput,
        "latency": lambda: traffic.latency(lab, rows, plan.other_rounds, plan.latency),
        "far": lambda: traffic.far(lab, rows, plan.other_rounds, plan.far),
        "connecting": lambda: traffic.connecting(lab, rows, plan.other_rounds, 10),
        "starting": starting,
        "importing": importing,
        "memory": lambda: footprint.memory(lab, rows, plan.other_rounds),
        "rotations": rotations,
        "idle": lambda: footprint.idle(lab, rows, plan.idle),
        "growth": lambda: footprint.growth(lab, rows, plan.clients),
        "fleet": fleet,
    }


@contextmanager
def _authorization_server(folder: Path) -> Iterator[AuthorizationServer]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        own = Path(name)
        with closing(AuthorizationServer(Keys(own), own)) as oidc:
            oidc.config(at=3600)
            yield oidc


def measure(plan: Plan, only: list[str]) -> recording.Document:
    """Measure the parts that are named, or all."""
    packages = {package for peer in PEERS.values() for package in peer.packages} - {*PEERS[OURS].packages}
    # All in one environment, this library too: what an import costs depends on what is installed beside it.
    python = peers_python([f"-e{ROOT}", *packages])
    about = surroundings() | versions(python, packages)
    rows = Rows()
    with tempfile.TemporaryDirectory() as name, closing(Broker(Path(name))) as broker:
        every = parts(plan, Lab(broker, python), rows, Path(name))
        for part in only or every:
            began = time.monotonic()
            every[part]()
            print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return {
        **about,
        "rounds": plan.summary,
        "libraries": list(PEERS),
        "terms": {
            "imports": PEERS[OURS].imports,
            "far": plan.far,
            "idle": plan.idle,
            "settled": footprint.SETTLED,
            "clients": plan.fleet,
        },
        "remarks": {},
        "rows": [asdict(row) for row in rows],
    }


def draw_plots() -> None:
    """From the results that are kept, beside them."""
    python = peers_python([f"-e{ROOT}", "matplotlib"])
    subprocess.run([python, "-m", "benchmarks.speed.plots"], check=True, cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--long", action="store_true", help="measure everything, for the record, in an hour")
    parser.add_argument(
        "--only", metavar="PARTS", default="", help="some parts, with commas; --record keeps what it has of the others"
    )
    parser.add_argument("--plots", action="store_true", help="measure nothing, draw the plots of the results kept")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="compare with this library in another checkout"
    )
    parser.add_argument(
        "--rounds", type=int, default=10, help="with --against: how often each is measured, at least 5 times"
    )
    recording.add_options(parser, "speed")
    arguments = parser.parse_args()
    if arguments.rounds < 5:
        parser.error("--rounds must be at least 5: the noise cannot be estimated from fewer")
    only = [part for part in arguments.only.split(",") if part]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as for Ctrl-C: the servers are stopped on the way out
    # This library is not installed by pip, which compiles the others: it has to keep what it compiles.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for a thousand clients, here and in the broker

    if arguments.page:
        recording.regenerate("speed", render)
    elif arguments.plots:
        draw_plots()
    elif arguments.against:
        print(against.compare(arguments.against.resolve(), arguments.rounds, only))
    else:
        document = measure(LONG if arguments.long else SHORT, only)
        if only and arguments.record:
            document = recording.beside(document, recording.load("speed"), "section")
        recording.finish("speed", document, render, record=arguments.record)


if __name__ == "__main__":
    main()
