"""How fast messages go: throughput, latency, a distant broker, connecting."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.speed.lab import Answer, Cell, CellFailed, Lab, issued_by
from benchmarks.speed.peers import AIOMQTT, ZMQTT
from benchmarks.speed.place import TASKS
from benchmarks.speed.rows import Rows
from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.oidc import AuthorizationServer

THROUGHPUT, PROCESSOR = "Messages a second", "Processor time a message"
BROKER = "How busy the broker is with what is received"
LATENCY, FAR = "Latency", "Messages a second over a round trip of 100 ms"
CONNECT, START = "Connecting", "From the start of the process to CONNACK, over TLS"

_LIMIT = 30.0  # seconds, for a burst
_WORDS = {"await": f"publish by {TASKS} tasks that await each"}
_SHARES = {"median": 0.5, "p99": 0.99}
_SHARE = {AIOMQTT: 4, ZMQTT: 4}  # get a part of the messages, because they take that many times longer


@dataclass(frozen=True)
class Traffic:
    """One burst of messages.

    Attributes:
        do: "publish", "receive", or "await": publish by tasks that await each message.
        backlog: the client is stopped until all messages wait for it at the broker.
    """

    do: str
    qos: int
    size: int = 64
    protocol: int = 5
    tls: bool = False
    backlog: bool = False

    @property
    def name(self) -> str:
        size = f"{self.size} B" if self.size < 1024 else f"{self.size // 1024} KiB"
        protocol = "MQTT 5" if self.protocol == 5 else "MQTT 3.1.1"
        do = f"{self.do} a backlog" if self.backlog else _WORDS.get(self.do, self.do)
        return f"{do}, QoS {self.qos}, {size}, {protocol}{', TLS' if self.tls else ''}"

    def count(self, peer: str, messages: int) -> int:
        """How many to send, where ``messages`` small ones of QoS 0 or 1 would be sent."""
        share = {64: 1, 1024: 2}.get(self.size, 10) * (2 if self.qos == 2 else 1) * _SHARE.get(peer, 1)
        return max(messages // share, 200)


BOTH = ("publish", "receive")
SMALL = [
    *(Traffic(do, qos, protocol=protocol) for protocol, do, qos in product((5, 4), BOTH, (0, 1, 2))),
    *(Traffic("await", 1, protocol=protocol) for protocol in (5, 4)),
    *(Traffic("receive", qos, protocol=protocol, backlog=True) for protocol, qos in product((5, 4), (0, 1))),
]
OTHERS = [
    *(Traffic(do, qos, size=size) for size, do, qos in product((1024, 65_536), BOTH, (0, 1, 2))),
    *(Traffic(do, qos, tls=True) for do, qos in product(BOTH, (0, 1, 2))),
    *(Traffic(do, 1, size=65_536, tls=True) for do in BOTH),
]


def in_turn(peers: list[str], number: int) -> list[str]:
    """Each round begins with the next one."""
    start = number % len(peers)
    return peers[start:] + peers[:start]


def throughput(lab: Lab, rows: Rows, bursts: Iterable[Traffic], rounds: int, messages: int) -> None:
    """Every burst with every library, then again: what slows the machine for a while slows them all."""
    for number in range(rounds):
        with ExitStack() as stack:
            able = sorted({*lab.able("publish"), *lab.able("receive")})
            cells = {peer: stack.enter_context(lab.cell(peer)) for peer in able}
            for burst in bursts:
                for peer in in_turn(lab.able(burst.do, qos=burst.qos, protocol=burst.protocol), number):
                    try:
                        result = _burst(lab, cells[peer], burst, burst.count(peer, messages))
                    except CellFailed as error:
                        rows.failed(THROUGHPUT, burst.name, "1/s", peer, str(error), more=True)
                        cells[peer] = stack.enter_context(lab.cell(peer))
                        continue
                    rows.add(THROUGHPUT, burst.name, "1/s", peer, result["rate"], more=True)
                    rows.add(PROCESSOR, burst.name, "µs", peer, result["cpu"])
                    # At QoS 2 the broker's work begins with PUBLISH, the measured time with PUBREL.
                    if "broker" in result and not burst.backlog and burst.qos < 2:
                        rows.add(BROKER, burst.name, "%", peer, result["broker"])


def _burst(lab: Lab, cell: Cell, burst: Traffic, count: int) -> Answer:
    place = lab.place(tls=burst.tls, protocol=burst.protocol)
    work = {"size": burst.size, "qos": burst.qos, "count": count, "limit": _LIMIT, "watch": lab.broker.port}
    cell.begin({"do": burst.do, "place": place} | work)
    answer = cell.receive()
    if "ready" in answer:
        if burst.backlog:
            cell.signal(signal.SIGSTOP)
        spent = lab.broker.cpu()
        began = lab.feeder.feed(answer["ready"], bytes(burst.size), burst.qos, count)
        if burst.backlog:
            began = time.monotonic()
            cell.signal(signal.SIGCONT)
        answer = cell.receive()
        took = answer["end"] - began
        answer["rate"] = count / took
        answer["broker"] = 100 * (lab.broker.cpu() - spent) / took
    return answer


def far(lab: Lab, rows: Rows, rounds: int, seconds: float) -> None:
    """The cost of a small window: publish for ``seconds`` at most."""
    with closing(DelayProxy(lab.broker.port, 0.1)) as proxy:
        for number in range(rounds):
            for peer in in_turn(lab.able("publish"), number):
                work = {"size": 64, "qos": 1, "count": 20_000, "limit": seconds, "watch": lab.broker.port}
                with lab.cell(peer) as cell:
                    cell.begin({"do": "publish", "place": lab.place(port=proxy.port)} | work)
                    name = "publish, QoS 1, 64 B, MQTT 5"
                    try:
                        rows.add(FAR, name, "1/s", peer, cell.receive()["rate"], more=True)
                    except CellFailed as error:
                        rows.failed(FAR, name, "1/s", peer, str(error), more=True)


def latency(lab: Lab, rows: Rows, rounds: int, seconds: float) -> None:
    """Messages of QoS 1 at two rates; the low one is that of a client with little to do."""
    for number in range(rounds):
        for rate, (listen, what) in product((50, 1000), enumerate(("acknowledgement", "arrival"))):
            for peer in in_turn(lab.able("latency"), number):
                names = {f"publish() to {what}, {share}, {rate} a second": part for share, part in _SHARES.items()}
                with lab.cell(peer) as cell:
                    work = {"size": 64, "count": int(rate * seconds), "rate": rate, "listen": bool(listen)}
                    cell.begin({"do": "latency", "place": lab.place()} | work)
                    try:
                        times = cell.receive()["seconds"]
                    except CellFailed as error:
                        for name in names:
                            rows.failed(LATENCY, name, "ms", peer, str(error))
                        continue
                for name, part in names.items():
                    rows.add(LATENCY, name, "ms", peer, 1000 * times[int(part * (len(times) - 1))])


def connecting(lab: Lab, rows: Rows, rounds: int, times: int) -> None:
    """From the call to CONNACK, next to the broker and 20 ms away."""
    with closing(DelayProxy(lab.broker.tls_port, 0.02)) as proxy:
        ways: dict[str, Callable[[], Answer]] = {
            "plain": lab.place,
            "TLS": lambda: lab.place(tls=True),
            "TLS, 20 ms round trip": lambda: lab.place(tls=True, port=proxy.port),
        }
        for number in range(rounds):
            for name, place in ways.items():
                for peer in in_turn(lab.able("connect"), number):
                    with lab.cell(peer) as cell:
                        cell.begin({"do": "connect", "place": place(), "count": times})
                        try:
                            rows.add(CONNECT, name, "ms", peer, 1000 * statistics.median(cell.receive()["seconds"]))
                        except CellFailed as error:
                            rows.failed(CONNECT, name, "ms", peer, str(error))


def starting(lab: Lab, rows: Rows, rounds: int, oidc: AuthorizationServer | None = None) -> None:
    """What a device waits for after it has booted: Python, the imports, the TLS context, CONNECT; and the same with a
    token from a real authorization server.
    """
    ways: list[tuple[str, str, dict[str, Any]]] = [("with a token in hand", "hold", {})]
    if oidc:
        ways.append(("with a token from an authorization server", "rotations", {"issuer": issued_by(oidc)}))
    for number in range(rounds + 1):
        for name, job, more in ways:
            peers = [*lab.able(job), *(lab.bare() if job == "hold" else [])]
            for peer in in_turn(peers, number):
                place, began = lab.place(tls=True, **more), time.monotonic()
                with lab.cell(peer) as cell:
                    cell.begin({"do": "hold", "place": place, "clients": 1})
                    cell.receive()
                    if number:  # the first round compiles
                        rows.add(START, name, "ms", peer, 1000 * (time.monotonic() - began))
