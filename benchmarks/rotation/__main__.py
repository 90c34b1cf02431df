"""How long a rotation interrupts traffic: this library's ways and those of others, compared on one machine."""

from __future__ import annotations

import argparse
import gc
import signal
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

from benchmarks import recording
from benchmarks.environment import peers_packages, surroundings
from benchmarks.rotation import asyncio_peers, peers, ways
from benchmarks.rotation.report import PACKAGES, render
from benchmarks.rotation.ways import LONG_LIFETIME, PATIENCE, ROTATIONS, Client, Place
from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.processes import wait_until
from tests.integration.traffic import Arrivals, Peer, payload, trusting

WAYS: dict[str, Callable[[Place], Client]] = {
    "this library, handover, MQTT 3.1.1": partial(ways.Library, protocol=4),
    "this library, handover, MQTT 5": ways.Library,
    "this library, re-authentication, MQTT 5": partial(ways.Library, kind="re-authentication"),
    "this library, with a will and no delay": partial(ways.Library, kind="reconnect"),
    "paho-mqtt by hand, publishing meanwhile": ways.PahoByHand,
    "paho-mqtt by hand, publish() held meanwhile": ways.PahoByHandHeld,
    "paho-mqtt left to itself": ways.PahoLeftToItself,
    "this library, asyncio, handover, MQTT 5": asyncio_peers.LibraryInAsyncio,
    "gmqtt by hand, publishing meanwhile": asyncio_peers.Gmqtt,
    "mqttium by hand, publish() held meanwhile": asyncio_peers.Mqttium,
    "zMQTT by hand, publish() held meanwhile": asyncio_peers.Zmqtt,
    "aiomqtt by hand, publish() held meanwhile": asyncio_peers.Aiomqtt,
    "awscrt by hand, publish() held meanwhile": peers.AwsCrt,
    "no rotation: the noise": ways.Unrotated,
}

RATE = 200  # messages a second, each way
RUNS = 3

# Seconds, all of them.
ROUND_TRIPS = (0.0, 0.02, 0.1)
LEAD = 1.0  # of traffic before the first rotation
APART = 2.0  # of traffic after each
REST = 0.5  # and two round trips, for what is in flight at the end


def qos_of(number: int) -> int:
    """Every fourth message is of QoS 0."""
    return 1 if number % 4 else 0


@dataclass(frozen=True)
class Figures:
    """Of one run: ``gap`` and ``wait`` in milliseconds, the rest in messages; down is to the client that rotates."""

    gap: float
    wait: float
    lost_qos_0_down: int
    lost_qos_0_up: int
    lost_qos_1_down: int
    lost_qos_1_up: int
    duplicates_down: int
    duplicates_up: int
    sent: int
    connections: int


class Servers:
    """The authorization server, and the broker that trusts it."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.pki = Keys(folder), Pki(folder)
        self.mosquitto = Mosquitto(self.keys, self.pki, folder)
        self.mosquitto.start()
        self.oidc = AuthorizationServer(self.keys, folder)

    def close(self) -> None:
        self.mosquitto.stop()
        self.oidc.close()


def measure(connect: Callable[[Place], Client], name: str, servers: Servers, round_trip: float) -> Figures:
    """One run of one way, under a client id that no run before had."""
    down, ready, stop = Arrivals(), threading.Event(), threading.Event()

    def arrived(topic: str, content: bytes) -> None:
        if topic.endswith("/ready"):
            ready.set()
        else:
            down.add(topic, content, time.monotonic())

    tls = trusting(servers.pki.ca)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    gc.collect()
    with ExitStack() as stack:
        proxy = stack.enter_context(closing(DelayProxy(servers.mosquitto.tls_port, round_trip)))
        peer = stack.enter_context(closing(Peer(servers.mosquitto.port, name, servers.keys.token(LONG_LIFETIME))))
        place = Place(name, proxy.port, tls, str(servers.pki.ca), servers.oidc, arrived)
        client = stack.enter_context(closing(connect(place)))
        wait_until(lambda: _reaches(peer, name, ready), "the subscription works", PATIENCE)
        with ThreadPoolExecutor(2) as senders:
            # A thread for each direction: a publish() that blocks in one must not affect the other.
            downward = senders.submit(_send, lambda n: peer.publish(f"down/{name}/n", n, qos_of(n)), stop)
            upward = senders.submit(_send, lambda n: client.publish(f"up/{name}/n", payload(n), qos_of(n)), stop)
            try:
                time.sleep(LEAD)
                for _ in range(ROTATIONS):
                    client.rotate()
                    time.sleep(APART)
            finally:
                stop.set()
        sent = downward.result() + upward.result()
        time.sleep(REST + 2 * round_trip)
        up = peer.arrivals
        lost_down, lost_up = _lost(down, downward.result()), _lost(up, upward.result())
        connections = proxy.connections
    return Figures(
        gap=round(1000 * down.longest_gap(), 1),
        wait=round(1000 * _longest_extra_wait(up), 1),
        lost_qos_0_down=len(lost_down) - sum(map(qos_of, lost_down)),
        lost_qos_0_up=len(lost_up) - sum(map(qos_of, lost_up)),
        lost_qos_1_down=sum(map(qos_of, lost_down)),
        lost_qos_1_up=sum(map(qos_of, lost_up)),
        duplicates_down=down.duplicated,
        duplicates_up=up.duplicated,
        sent=sent,
        connections=connections,
    )


def _reaches(peer: Peer, name: str, ready: threading.Event) -> bool:
    peer.publish(f"down/{name}/ready", 0)
    return ready.wait(0.2)


def _send(publish: Callable[[int], None], stop: threading.Event) -> int:
    """Publish numbered messages until ``stop`` is set; returns how many."""
    began, number = time.monotonic(), 0
    while not stop.wait(max(0.0, began + number / RATE - time.monotonic())):
        publish(number)
        number += 1
    return number


def _lost(arrivals: Arrivals, sent: int) -> set[int]:
    """The messages that have not arrived after enough time."""
    began = time.monotonic()
    while lost := arrivals.lost_of(sent):
        if time.monotonic() - began > (PATIENCE if any(map(qos_of, lost)) else 1.0):
            break
        time.sleep(0.05)
    return lost


def _longest_extra_wait(arrivals: Arrivals) -> float:
    """Seconds from publish() to the first arrival, beyond the median; of one topic, whose lists are parallel."""
    first: dict[int, float] = {}
    for number, delay in zip(arrivals.numbers, arrivals.delays, strict=True):
        first.setdefault(number, delay)
    return max(first.values()) - statistics.median(first.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotation", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one run at one round trip, to see that it works")
    parser.add_argument(
        "--only",
        metavar="TEXT",
        default="",
        help="the ways whose names have one of these texts, with commas; --record keeps the others as they are",
    )
    recording.add_options(parser, "rotation")
    arguments = parser.parse_args()
    if arguments.page:
        recording.regenerate("rotation", render)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as for Ctrl-C: the servers are stopped on the way out
    runs, round_trips = (1, (0.02,)) if arguments.short else (RUNS, ROUND_TRIPS)
    peers_packages(PACKAGES)
    about = surroundings() | {name: version(name) for name in PACKAGES}
    chosen = [way for way in WAYS if any(text in way for text in arguments.only.split(","))]
    rows: dict[tuple[float, str], list[Figures]] = {key: [] for key in product(round_trips, chosen)}
    with tempfile.TemporaryDirectory() as folder, closing(Servers(Path(folder))) as servers:
        # All ways in turn, then again: what slows the machine for a while slows them all.
        for number, (_, (round_trip, way)) in enumerate(product(range(runs), rows)):
            figures = measure(WAYS[way], f"device-{number}", servers, round_trip)
            rows[round_trip, way].append(figures)
            print(f"{round_trip * 1000:.0f} ms, {way}: {figures}", file=sys.stderr)
    document: recording.Document = {
        **about,
        "rate": RATE,
        "rotations": ROTATIONS,
        "remarks": {},
        "rows": [
            {"round_trip": round_trip, "way": way, "runs": [asdict(run) for run in figures]}
            for (round_trip, way), figures in rows.items()
        ],
    }
    if arguments.only and arguments.record:
        document = recording.beside(document, recording.load("rotation"), "way")
        document["rows"].sort(key=lambda row: (row["round_trip"], [*WAYS].index(row["way"])))
    recording.finish("rotation", document, render, record=arguments.record)


if __name__ == "__main__":
    main()
