"""What a store costs the disk, how fast messages go through it, and what is left of them after a failure."""

from __future__ import annotations

import itertools
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.journal.disk import Disk
from benchmarks.journal.peers import BY_HAND, JOURNAL, MEMORY, OHMQTT, PEERS, StoredPlace
from benchmarks.speed.broker import Broker
from benchmarks.speed.lab import Cell, CellFailed, Contestant
from benchmarks.speed.rows import Rows
from benchmarks.speed.traffic import in_turn
from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.processes import need, wait_until

DISK, SPEED, LEFT = "What a message costs the disk", "Messages a second", "What is lost, and what is sent too late"
START, HEARTBEAT = "Starting with many stored messages", "A disk that takes a second for each flush"

SIZE = 100  # bytes of a message
EACH, IN_TIME = "each stored before it is acknowledged", "acknowledged within `commit_every`, a second"
TEN_A_COMMIT, MANY_UNDER_WAY = "ten a commit", "ten a commit, forty under way"

_PAGES = 1100  # messages after which SQLite's second file has reached its size, at a page each
_STORED_AT_ONCE = 100_000  # messages that one process stores, as no job takes longer than two minutes
_SLOW_WAYS = (OHMQTT, *BY_HAND)  # get a tenth of the messages
_SLOW_DISK = (
    *("strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"),
    *("-e", "inject=fsync,fdatasync:delay_exit=1000000"),
)


class Bench:
    """A broker, a disk, and the processes that keep messages on it."""

    def __init__(self, broker: Broker, disk: Disk, python: str) -> None:
        self.broker, self.disk, self._python = broker, disk, python
        self._numbers = itertools.count()

    def place(self, **more: Any) -> dict[str, Any]:
        """A client that was never there before."""
        name = f"client-{next(self._numbers)}"
        path = str(self.disk.folder / name)
        return asdict(StoredPlace(name, self.broker.port, None, 5, "x" * 600, store=path)) | more

    def cell(self, peer: str, prefix: tuple[str, ...] = ()) -> Cell:
        return Cell(peer, Contestant(peer, cell="benchmarks.journal.cell", prefix=prefix).start(self._python))

    def step(self, cell: Cell) -> None:
        """Let it go on to its next stage, and wait for that."""
        cell.send()
        cell.receive()


def disk_cost(bench: Bench, rows: Rows, count: int) -> None:
    """Bytes and flushes a message, after so many messages that files have reached their size."""
    for peer in PEERS:
        if peer != MEMORY:
            warm, messages = (count // 4, count // 4) if peer in _SLOW_WAYS else (_PAGES, count)
            _count(bench, rows, peer, EACH, 0.01, {"do": "each", "warm": warm, "count": messages}, commit_every=0)
    ten = {"do": "each", "at_once": 10, "warm": 3 * _PAGES, "count": 2 * count}
    _count(bench, rows, JOURNAL, TEN_A_COMMIT, 0.05, ten, commit_every=0.02)
    many = {"do": "steadily", "rate": 400, "warm": 3 * _PAGES, "count": 2 * count}
    _count(bench, rows, JOURNAL, MANY_UNDER_WAY, 0.1, many, commit_every=0.025)
    _count(bench, rows, JOURNAL, IN_TIME, 0.1, {"do": "steadily", "rate": 500, "warm": count, "count": 4 * count})


def _count(
    bench: Bench, rows: Rows, peer: str, name: str, away: float, job: dict[str, Any], commit_every: float = 1.0
) -> None:
    """``away`` is the round trip to the broker in seconds: more than a commit takes, unless none is due."""
    with closing(DelayProxy(bench.broker.port, away)) as proxy, bench.cell(peer) as cell:
        try:
            cell.begin({"size": SIZE, "place": bench.place(port=proxy.port, commit_every=commit_every), **job})
            cell.receive()
            bench.disk.settle()
            written, flushes = bench.disk.counts()
            bench.step(cell)
        except CellFailed as error:
            rows.failed(DISK, f"bytes, {name}", "", peer, str(error))
            return
        # What the kernel has kept back counts as bytes; the flushes that writing them back takes are not the library's.
        flushed = bench.disk.counts()[1] - flushes
        bench.disk.settle()
        rows.add(DISK, f"bytes, {name}", "", peer, (bench.disk.counts()[0] - written) / job["count"])
        rows.add(DISK, f"flushes, {name}", "", peer, flushed / job["count"])


def speed(bench: Bench, rows: Rows, rounds: int, count: int) -> None:
    """One client publishes as fast as it can, until the last message is acknowledged."""
    for number in range(rounds):
        for peer in in_turn([*PEERS], number):
            messages = count // 10 if peer in _SLOW_WAYS else count
            with bench.cell(peer) as cell:
                job = {"do": "publish", "size": SIZE, "qos": 1, "count": messages, "limit": 60, "watch": 0}
                try:
                    cell.begin({"place": bench.place(), **job})
                    answer = cell.receive()
                except CellFailed as error:
                    rows.failed(SPEED, "publish, QoS 1", "1/s", peer, str(error), more=True)
                    continue
                rows.add(SPEED, "publish, QoS 1", "1/s", peer, answer["rate"], more=True)
                rows.add(SPEED, "publish, QoS 1: processor time a message", "µs", peer, answer["cpu"])


def left(bench: Bench, rows: Rows, count: int) -> None:
    """Messages are stored while the broker does not answer; the device loses power, and the broker the session."""
    for peer in PEERS:
        messages = count // 10 if peer in _SLOW_WAYS else count
        if peer != MEMORY:
            _lose(bench, rows, peer, "lost after an outage longer than the session expiry and a reboot", messages, 0)
            _lose(bench, rows, peer, "expired messages that are sent after a reboot", max(messages // 10, 100), 1)


def _lose(bench: Bench, rows: Rows, peer: str, name: str, count: int, expiry: int) -> None:
    topic, place = f"left/{next(bench._numbers)}", bench.place()  # noqa: SLF001 - of this module
    try:
        with bench.cell(peer) as cell:
            cell.begin({"do": "fill", "place": place, "topic": topic, "count": count, "expiry": expiry})
            cell.receive()
            bench.broker.signal(signal.SIGSTOP)
            bench.step(cell)
    except CellFailed as error:
        rows.failed(LEFT, name, "%", peer, str(error))
        return
    finally:
        bench.broker.restart()
    time.sleep(expiry + 1 if expiry else 0)
    with _arrivals(bench.broker.port, topic) as arrived, bench.cell(peer) as cell:
        try:
            cell.begin({"do": "resume", "place": place})
            cell.receive()
            bench.step(cell)
        except CellFailed as error:
            rows.failed(LEFT, name, "%", peer, str(error))
            return
        seen, since = -1, time.monotonic()
        while len(arrived) < count and time.monotonic() < since + 5:
            if len(arrived) > seen:
                seen, since = len(arrived), time.monotonic()
            time.sleep(0.05)
        rows.add(LEFT, name, "%", peer, 100 * (len(arrived) if expiry else count - len(arrived)) / count)


@contextmanager
def _arrivals(port: int, topic: str) -> Iterator[set[bytes]]:
    """The payloads that arrive, each once."""
    arrived, subscribed = set[bytes](), list[object]()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"arrivals-{topic.replace('/', '-')}")
    client.on_subscribe = lambda *_: subscribed.append(None)
    client.on_message = lambda _client, _userdata, message: arrived.add(bytes(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    wait_until(client.is_connected, "the connection")
    client.subscribe(topic, 1)
    wait_until(lambda: bool(subscribed), "the subscription")
    yield arrived
    client.disconnect()
    client.loop_stop()


def start(bench: Bench, rows: Rows, counts: tuple[int, ...], rounds: int) -> None:
    """From CONNACK to the first PUBLISH, and memory once messages go out; the broker is a socket that answers once."""
    for count in counts:
        stored = bench.place(port=1)
        for before in range(0, count, _STORED_AT_ONCE):
            with bench.cell(JOURNAL) as cell:
                some = min(_STORED_AT_ONCE, count - before)
                cell.begin({"do": "store", "place": stored, "size": SIZE, "count": some})
                cell.receive()
        for _ in range(rounds):
            with socket.create_server(("127.0.0.1", 0)) as server, bench.cell(JOURNAL) as cell:
                began = time.monotonic()
                cell.begin({"do": "resume", "place": stored | {"port": server.getsockname()[1]}})
                cell.receive()
                rows.add(START, f"{count:,}: to open the journal", "ms", JOURNAL, 1000 * (time.monotonic() - began))
                cell.send()
                with server.accept()[0] as device:
                    device.recv(65_536)  # CONNECT
                    device.sendall(b"\x20\x03\x00\x00\x00")
                    connected = time.monotonic()
                    device.recv(1)
                    took = time.monotonic() - connected
                    cell.receive()
                    time.sleep(1.0)
                    rows.add(START, f"{count:,}: from CONNACK to the first PUBLISH", "ms", JOURNAL, 1000 * took)
                    rows.add(START, f"{count:,}: memory", "MiB", JOURNAL, cell.pss())


def heartbeat(bench: Bench, rows: Rows, rounds: int, beats: int) -> None:
    """How late the network thread is for a timer that is due every 100 ms."""
    need("strace", packages="strace")
    for number in range(rounds):
        for peer in in_turn([JOURNAL, MEMORY], number):
            with bench.cell(peer, _SLOW_DISK) as cell:
                place = bench.place(commit_every=0)
                cell.begin({"do": "heartbeat", "place": place, "size": SIZE, "beats": beats})
                rows.add(HEARTBEAT, "longest delay of a timer", "ms", peer, 1000 * cell.receive()["delay"])
