"""Where libraries are measured: a broker, and a process for each, whose memory and wake-ups the kernel reports."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any, Self

from benchmarks.bare_client import BareClient
from benchmarks.environment import ROOT
from benchmarks.speed.broker import Broker
from benchmarks.speed.peers import BARE, LIBMOSQUITTO, PEERS
from benchmarks.speed.place import Peer
from benchmarks.speed.proc import processor_time, tasks
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import BUILD, need

Answer = dict[str, Any]

LIMIT = 120.0  # seconds, for a job
TOKEN = "x" * 600  # as long as a JWT is; the broker does not look at it

_numbers = itertools.count()


@cache
def libmosquitto() -> Path:
    """The compiled program that uses the C library."""
    need("gcc", packages="gcc libc6-dev libmosquitto-dev libcjson-dev")
    BUILD.mkdir(exist_ok=True)
    program = BUILD / "speed_libmosquitto"
    source = Path(__file__).parent / "libmosquitto.c"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-lmosquitto", "-lcjson", "-lpthread"]
    subprocess.run(["gcc", str(source), "-o", str(program), *flags], check=True)
    return program


class CellFailed(Exception):  # noqa: N818 - a result of the library's
    """A library did not do a job, or its process ended."""


@dataclass(frozen=True)
class Contestant:
    """One column of the tables.

    Attributes:
        library: its name in PEERS.
        environment: the environment variables of its processes, besides those of this process.
        cell: the module that runs in them.
        prefix: a command that starts them.
    """

    library: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cell: str = "benchmarks.speed.cell"
    prefix: tuple[str, ...] = ()

    @property
    def adapter(self) -> type[Peer]:
        return PEERS[self.library]

    def run(self, python: str, *arguments: str) -> str:
        """What Python prints, run with these arguments as this contestant."""
        answer = subprocess.run(
            [python, *arguments], check=True, cwd=ROOT, env=self._variables(), capture_output=True, text=True
        )
        return answer.stdout

    def start(self, python: str) -> subprocess.Popen[str]:
        """The process of a cell."""
        module = [*self.prefix, python, "-m", self.cell, self.library]
        return subprocess.Popen(
            [str(libmosquitto())] if self.library == LIBMOSQUITTO else module,
            cwd=ROOT,
            env=self._variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment}


class Cell:
    """A process that uses one library; a context manager that ends it."""

    def __init__(self, peer: str, process: subprocess.Popen[str]) -> None:
        self.peer = peer
        self._process = process
        self.receive()  # imported

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, job: Answer) -> None:
        self.send(json.dumps(job))

    def send(self, line: str = "") -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CellFailed("its process has ended") from None

    def receive(self) -> Answer:
        """Its next answer.

        Raises:
            CellFailed: it has none, or reports an error.
        """
        assert self._process.stdout
        timer = Timer(LIMIT, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise CellFailed(f"its process ended, or took longer than {LIMIT:g} s")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise CellFailed(answer["error"])
        return answer

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def pss(self) -> float:
        """Its memory in MiB: shared pages count in part."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return next(float(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss:"))

    def threads(self) -> int:
        return len(list(tasks(self._process.pid, "comm")))

    def wakes(self) -> int:
        """How many times its threads went to sleep so far."""
        lines = [line for status in tasks(self._process.pid, "status") for line in status.splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

    def cpu(self) -> float:
        return processor_time(self._process.pid)


def _all() -> dict[str, Contestant]:
    return {name: Contestant(name) for name in PEERS}


@dataclass
class Lab:
    """What all measurements share.

    Attributes:
        python: the interpreter that has all the libraries.
        contestants: the columns of the tables, by their titles.
    """

    broker: Broker
    python: str
    contestants: Mapping[str, Contestant] = field(default_factory=_all)
    feeder: BareClient = field(init=False)

    def __post_init__(self) -> None:
        self.feeder = BareClient(self.broker.port, f"feeder-{next(_numbers)}")

    def able(self, job: str, *, qos: int = 1, protocol: int = 5) -> list[str]:
        """The contestants that can do such a job."""
        if job == "await":
            return [name for name in self.able("publish", qos=qos, protocol=protocol) if self._awaits(name)]
        required = {job, *(["QoS 2"] if qos == 2 else []), *(["MQTT 3.1.1"] if protocol == 4 else [])}
        return [name for name, one in self.contestants.items() if not required & one.adapter.lacks]

    def _awaits(self, name: str) -> bool:
        return self.contestants[name].adapter.publish_one is not Peer.publish_one

    def bare(self) -> list[str]:
        """The contestant that is no library, if it takes part."""
        return [name for name, one in self.contestants.items() if one.library == BARE]

    def cell(self, peer: str) -> Cell:
        return Cell(peer, self.contestants[peer].start(self.python))

    def cells(self, peers: list[str], stack: ExitStack) -> list[Cell]:
        return [stack.enter_context(self.cell(peer)) for peer in peers]

    def place(self, *, tls: bool = False, protocol: int = 5, port: int | None = None, **more: Any) -> Answer:
        """Where a client connects, under a name that none had before."""
        return {
            "name": f"client-{next(_numbers)}",
            "port": port or (self.broker.tls_port if tls else self.broker.port),
            "ca": self.broker.ca if tls else None,
            "protocol": protocol,
            "token": TOKEN,
            **more,
        }


def issued_by(oidc: AuthorizationServer) -> dict[str, str]:
    """A place's ``issuer``."""
    return {
        "endpoint": oidc.token_endpoint,
        "client_id": oidc.client_id,
        "client_secret": oidc.client_secret,
        "scope": oidc.scope,
    }
