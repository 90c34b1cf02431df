"""The process in which messages are kept, as ``benchmarks.speed.cell``, with jobs of its own."""

from __future__ import annotations

import sys
import threading
from typing import Any

from benchmarks.journal.peers import PEERS, Journal, StoredPlace
from benchmarks.speed.cell import JOBS, Answer, Make, report, serve
from benchmarks.speed.place import PATIENCE, Place

_HEARTBEAT = 0.1  # seconds
_AT_ONCE = 10_000  # messages


async def each(make: Make, place: Place, job: Answer) -> Answer:
    """Publish a message, or some at once, when those before are acknowledged: many, and then those that count."""
    client, payload, at_once = make(place, _ignore), bytes(job["size"]), job.get("at_once", 1)
    await client.connect()
    for stage in ("warm", "count"):
        for _ in range(job[stage] // at_once):
            if at_once == 1:
                await client.publish_one("journal/each", payload, 1)
            else:
                await client.publish_all("journal/each", payload, 1, at_once, PATIENCE)
        report({"stage": stage})
        await client.wait_for_line()
    await client.close()
    return {}


async def steadily(make: Make, place: Place, job: Answer) -> Answer:
    """Publish at a rate, without waiting: some messages, and then those that count."""
    import time

    client, payload = make(place, _ignore), bytes(job["size"])
    await client.connect()
    for stage in ("warm", "count"):
        began = time.monotonic()
        for number in range(job[stage]):
            await client.sleep(max(0.0, began + number / job["rate"] - time.monotonic()))
            client.publish("journal/steadily", payload, 1, lambda: None)
        report({"stage": stage})
        await client.wait_for_line()
    await client.close()
    return {}


async def fill(make: Make, place: Place, job: Answer) -> Answer:
    """Store numbered messages, and wait to be killed."""
    client: Any = make(place, _ignore)
    await client.connect()
    report({"stage": "connected"})
    await client.wait_for_line()
    payloads = (b"%d" % number for number in range(job["count"]))
    await client.fill(job["topic"], payloads, job["expiry"])
    report({"stage": "stored"})
    await client.wait_for_line()
    return {}


async def store(make: Make, place: Place, job: Answer) -> Answer:
    """Store messages without a broker, and end."""
    client = make(place, _ignore)
    assert isinstance(client, Journal)
    await client.open()
    for _ in range(0, job["count"], _AT_ONCE):  # the Delivery of each takes memory
        await client.fill("journal/stored", (bytes(job["size"]) for _ in range(min(_AT_ONCE, job["count"]))), 0)
    await client.close()
    return {}


async def resume(make: Make, place: Place, job: Answer) -> Answer:  # noqa: ARG001 - every job's
    """Connect, and stay until a line comes."""
    client = make(place, _ignore)
    report({"stage": "made"})
    await client.wait_for_line()
    await client.connect()
    report({"stage": "connected"})
    await client.wait_for_line()
    return {}


async def heartbeat(make: Make, place: Place, job: Answer) -> Answer:
    """The longest delay, in seconds, of a timer of the network thread that is due every tenth of a second, while
    messages are published.
    """
    from mqtt_token_client.clock import monotonic
    from mqtt_token_client.mqtt.runtime.thread import acquire_network_thread, release_network_thread

    client = make(place, _ignore)
    await client.connect()
    runtime, ended, delays = acquire_network_thread(), threading.Event(), list[float]()

    def beat(due: float) -> None:
        delays.append(monotonic() - due)
        if len(delays) == job["beats"]:
            ended.set()
        else:
            due = monotonic() + _HEARTBEAT
            runtime.call_at(due, lambda: beat(due))

    runtime.call_soon(lambda: beat(monotonic()))
    while not ended.wait(0.01):
        client.publish("journal/heartbeat", bytes(job["size"]), 1, lambda: None)
    await client.close()
    release_network_thread()
    return {"delay": max(delays)}


def _ignore(_: bytes) -> None:
    pass


if __name__ == "__main__":
    own = {"each": each, "steadily": steadily, "fill": fill, "store": store, "resume": resume, "heartbeat": heartbeat}
    serve(PEERS[sys.argv[1]], {**JOBS, **own}, StoredPlace)
