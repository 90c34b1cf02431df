"""The process in which one library, whose name it is given, reads jobs and writes answers, each a line of JSON."""

from __future__ import annotations

import gc
import json
import struct
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.bare_client import BareClient
from benchmarks.speed.peers import PEERS
from benchmarks.speed.place import PATIENCE, Arrived, Peer, Place

Answer = dict[str, Any]
Make = Callable[[Place, Arrived], Peer]
Job = Callable[[Make, Place, Answer], Coroutine[Any, Any, Answer]]

_STAMP = struct.Struct("d")


def report(answer: Answer) -> None:
    print(json.dumps(answer), flush=True)


class Meter:
    """Time and processor time of what is measured."""

    def __init__(self) -> None:
        self._cpu, self._began = time.process_time(), time.monotonic()

    def result(self, count: int) -> Answer:
        """Messages a second until now, and the microseconds of processor time that each cost."""
        cpu, seconds = time.process_time() - self._cpu, time.monotonic() - self._began
        return {"rate": count / seconds, "cpu": 1e6 * cpu / max(count, 1)}


async def publish(make: Make, place: Place, job: Answer) -> Answer:
    """As fast as it goes, until the last is acknowledged; at QoS 0 until another client has the last one."""
    topic, last, payload, qos = f"bench/{place.name}", f"last/{place.name}", bytes(job["size"]), job["qos"]
    client, seen = make(place, _ignore), threading.Event()
    if not qos:
        watcher = BareClient(job["watch"], f"{place.name}-watcher")
        watcher.watch(last, seen.set)
    await client.connect()
    meter = Meter()
    publish = client.publish_each if job["do"] == "await" else client.publish_all
    count = await publish(topic, payload, qos, job["count"], job["limit"])
    if not qos:
        client.publish(last, payload, 0, lambda: None)
        if not await client.wait_for(seen, job["limit"]):
            raise RuntimeError("the last message did not arrive")
    result = meter.result(count)
    await _close(client)
    return result


async def receive(make: Make, place: Place, job: Answer) -> Answer:
    """Until the last message has arrived, with a handler that counts; the feeder knows when the first was sent."""
    topic, count, got = f"bench/{place.name}", job["count"], 0
    done = threading.Event()
    end = 0.0

    def arrived(_: bytes) -> None:
        nonlocal got, end
        got += 1
        if got == count:
            end = time.monotonic()
            done.set()

    client = make(place, arrived)
    await client.connect()
    await client.subscribe(topic, job["qos"])
    meter = Meter()
    report({"ready": topic})
    if not await client.wait_for(done, job["limit"]):
        raise RuntimeError(f"{got} of {count} messages arrived")
    result = meter.result(count) | {"end": end}
    await _close(client)
    return result


async def latency(make: Make, place: Place, job: Answer) -> Answer:
    """Messages of QoS 1 at a steady rate: seconds until each is acknowledged, or until each comes back ("listen")."""
    topic, rest, count, rate = f"bench/{place.name}", bytes(job["size"] - _STAMP.size), job["count"], job["rate"]
    to_ack: list[float] = []
    to_arrival: list[float] = []

    def acknowledged(since: float) -> None:
        to_ack.append(time.monotonic() - since)

    client = make(place, lambda payload: to_arrival.append(time.monotonic() - _STAMP.unpack_from(payload)[0]))
    await client.connect()
    if job["listen"]:
        await client.subscribe(topic, 1)
    waited_for = to_arrival if job["listen"] else to_ack
    began = time.monotonic() + 0.2
    for number in range(count):
        await client.sleep(max(0.0, began + number / rate - time.monotonic()))
        now = time.monotonic()
        client.publish(topic, _STAMP.pack(now) + rest, 1, partial(acknowledged, now))
    end = time.monotonic() + PATIENCE
    while len(waited_for) < count:
        await client.sleep(0.05)
        if time.monotonic() > end:
            raise RuntimeError(f"{len(waited_for)} of {count} after {PATIENCE:g} s")
    await _close(client)
    return {"seconds": sorted(waited_for)}


async def connect(make: Make, place: Place, job: Answer) -> Answer:
    """Seconds from the call to CONNACK, each time with a new client."""
    took = []
    for number in range(job["count"]):
        client = make(replace(place, name=f"{place.name}-{number}"), _ignore)
        began = time.monotonic()
        await client.connect()
        took.append(time.monotonic() - began)
        await _close(client)
    return {"seconds": took}


async def hold(make: Make, place: Place, job: Answer) -> Answer:
    """Go from stage to stage, and wait in each to be examined."""
    clients = []
    began = time.monotonic()
    for number in range(job["clients"]):
        clients.append(make(replace(place, name=f"{place.name}-{number}"), _ignore))
        await clients[-1].connect()
    report({"stage": "connected", "seconds": time.monotonic() - began})
    await clients[0].wait_for_line()
    if job.get("queue"):
        await clients[0].publish_all(f"bench/{place.name}", bytes(job["size"]), 1, job["queue"], 0.0)
        report({"stage": "queued"})
        await clients[0].wait_for_line()
    for rotations in job.get("rotations", ()):
        for _ in range(rotations):
            await clients[0].rotate()
        gc.collect()
        report({"stage": "rotated"})
        await clients[0].wait_for_line()
    for client in clients:
        await _close(client)
    return {}


async def fleet(_make: Make, place: Place, job: Answer) -> Answer:
    """Many clients of this library, whose tokens change."""
    from benchmarks.speed import fleet

    return await fleet.fleet(place, job["clients"])


async def _close(client: Peer) -> None:
    with suppress(Exception):  # the figure is known: a connection that closes badly does not change it
        await client.close()


def _ignore(_: bytes) -> None:
    pass


JOBS: dict[str, Job] = {
    "publish": publish,
    "await": publish,
    "receive": receive,
    "latency": latency,
    "connect": connect,
    "hold": hold,
    "fleet": fleet,
}


def serve(peer: type[Peer], jobs: Mapping[str, Job], kind_of_place: type[Place] = Place) -> None:
    """Do one job after the other with a library."""
    exec(peer.imports, {})
    gc.collect()
    report({"stage": "imported"})
    while line := sys.stdin.readline():
        job = json.loads(line)
        gc.collect()  # what the previous job left
        try:
            report(peer.run(jobs[job["do"]](peer, kind_of_place(**job["place"]), job)))
        except Exception as error:  # noqa: BLE001 - reported, and shown where the library has no figure
            report({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    serve(PEERS[sys.argv[1]], JOBS)
