"""How small a client is: importing, memory, idling, and many clients in one process."""

from __future__ import annotations

import itertools
import signal
import time
from contextlib import ExitStack

from benchmarks.speed.lab import Answer, CellFailed, Lab, issued_by
from benchmarks.speed.peers import OURS, PAHO
from benchmarks.speed.rows import Rows
from benchmarks.speed.traffic import in_turn
from devtools.servers.oidc import AuthorizationServer

IMPORT, MEMORY, ROTATED = "Importing", "Memory of one client, over TLS", "Memory while tokens change"
IDLE, GROWTH, FLEET = "Idle, over TLS, keepalive 60", "Many clients in one process", "A thousand clients rotate"

PACKAGE = "import mqtt_token_client"
QUEUED = 10_000
SETTLED = 3.0  # seconds after CONNACK until a client counts as idle


def importing(lab: Lab, rows: Rows, rounds: int) -> None:
    """Each in a fresh process, with its compiled modules there."""
    for number in range(rounds + 1):
        for peer in in_turn(lab.able("import"), number):
            seconds, processor = _import(lab, peer, lab.contestants[peer].adapter.imports)
            if number:  # the first round compiles
                rows.add(IMPORT, "time", "ms", peer, 1000 * seconds)
                rows.add(IMPORT, "processor time", "ms", peer, 1000 * processor)


def importing_package(lab: Lab, rows: Rows, rounds: int) -> None:
    """The package of this library alone, which loads names when they are used, and paho-mqtt."""
    for number in range(rounds + 1):
        for peer, statement in ((OURS, PACKAGE), (PAHO, lab.contestants[PAHO].adapter.imports)):
            seconds, _ = _import(lab, peer, statement)
            if number:
                rows.add(IMPORT, f"time, `{PACKAGE}`", "ms", peer, 1000 * seconds)


def _import(lab: Lab, peer: str, statement: str) -> tuple[float, float]:
    """Seconds of time and of processor time that it takes."""
    script = f"""
import time; began, cpu = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - began, time.process_time() - cpu)
"""
    seconds, processor = lab.contestants[peer].run(lab.python, "-c", script).split()
    return float(seconds), float(processor)


def memory(lab: Lab, rows: Rows, rounds: int) -> None:
    """One process at a time, because memory that processes share is divided among them."""
    for number in range(rounds):
        for peer in in_turn([*lab.able("hold"), *lab.bare()], number):
            queue = 0 if "queue" in lab.contestants[peer].adapter.lacks else QUEUED
            with lab.cell(peer) as cell:
                rows.add(MEMORY, "after the import", "MiB", peer, cell.pss())
                cell.begin({"do": "hold", "place": lab.place(tls=True), "clients": 1, "size": 64, "queue": queue})
                cell.receive()
                rows.add(MEMORY, "connected", "MiB", peer, cell.pss())
                if queue:
                    lab.broker.signal(signal.SIGSTOP)
                    try:
                        cell.send()
                        cell.receive()
                        rows.add(MEMORY, f"with {QUEUED:,} messages of 64 B queued", "MiB", peer, cell.pss())
                    finally:
                        lab.broker.signal(signal.SIGCONT)


def rotations(lab: Lab, rows: Rows, oidc: AuthorizationServer, steps: tuple[int, ...]) -> None:
    """Tokens from a real authorization server, a new one for each rotation."""
    for peer in lab.able("rotations"):
        with lab.cell(peer) as cell:
            place = lab.place(tls=True, issuer=issued_by(oidc))
            cell.begin({"do": "hold", "place": place, "clients": 1, "rotations": steps})
            for done in (0, *itertools.accumulate(steps)):
                cell.receive()
                rows.add(ROTATED, f"after {done:,} rotations" if done else "connected", "MiB", peer, cell.pss())
                cell.send()


def idle(lab: Lab, rows: Rows, seconds: float) -> None:
    """All at once: processes that sleep do not disturb each other."""
    with ExitStack() as stack:
        cells = lab.cells(lab.able("hold"), stack)
        for cell in cells:
            cell.begin({"do": "hold", "place": lab.place(tls=True), "clients": 1})
            cell.receive()
        time.sleep(SETTLED)
        before = {cell.peer: (cell.wakes(), cell.cpu()) for cell in cells}
        time.sleep(seconds)
        for cell in cells:
            wakes, cpu = before[cell.peer]
            rows.add(IDLE, "wake-ups a second", "1/s", cell.peer, (cell.wakes() - wakes) / seconds)
            rows.add(IDLE, "processor time a minute", "ms", cell.peer, 60_000 * (cell.cpu() - cpu) / seconds)
            rows.add(IDLE, "threads beside the program's own", "", cell.peer, cell.threads() - 1)


def growth(lab: Lab, rows: Rows, all_sizes: tuple[int, ...]) -> None:
    """From one client to a thousand; plain ones for the difference only."""
    for tls, kind in ((False, "plain"), (True, "TLS")):
        sizes = all_sizes if tls else (1, 100)
        for peer in lab.able("growth"):
            first = None
            for clients in sizes:
                try:
                    answer, memory, threads = _held(lab, peer, clients, tls)
                except CellFailed as error:
                    rows.failed(GROWTH, f"{clients:,} clients, {kind}, a client", "KiB", peer, str(error))
                    continue
                if first is None:
                    first = memory
                else:
                    each = 1024 * (memory - first) / (clients - sizes[0])
                    one = 1000 * answer["seconds"] / clients
                    rows.add(GROWTH, f"{clients:,} clients, {kind}, a client", "KiB", peer, each)
                    rows.add(GROWTH, f"{clients:,} clients, {kind}, to connect one", "ms", peer, one)
                    rows.add(GROWTH, f"{clients:,} clients, {kind}, threads", "", peer, threads - 1)


def _held(lab: Lab, peer: str, clients: int, tls: bool) -> tuple[Answer, float, int]:
    with lab.cell(peer) as cell:
        cell.begin({"do": "hold", "place": lab.place(tls=tls), "clients": clients})
        answer = cell.receive()
        time.sleep(0.5)  # what connected has gone back to sleep
        return answer, cell.pss(), cell.threads()


def fleet(lab: Lab, rows: Rows, clients: int) -> None:
    """Every client of this library gets a new token in the time that the jitter of their renewals gives."""
    with lab.cell(OURS) as cell:
        cell.begin({"do": "fleet", "place": lab.place(tls=True), "clients": clients})
        try:
            answer = cell.receive()
        except CellFailed as error:
            rows.failed(FLEET, "rotations", "", OURS, str(error))
            return
        for name, unit in FLEET_FIGURES.items():
            rows.add(FLEET, name, unit, OURS, answer[name])


FLEET_FIGURES = {
    "rotations": "",
    "time that the jitter gives them": "s",
    "time that they took": "s",
    "longest wait of a publish in a rotation, median": "ms",
    "the same, p99": "ms",
    "messages sent": "",
    "messages lost": "",
    "connections lost": "",
    "threads beside the program's own": "",
}
