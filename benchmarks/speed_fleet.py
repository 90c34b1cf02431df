"""Many clients of this library in one process, whose tokens all end at about the same time."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.speed_place import HOST, Place, context

LIFE = 300.0  # seconds, of the tokens; the renewal begins at two thirds of it, up to a twentieth of it earlier
JITTER = LIFE / 20
RATE = 500.0  # messages a second, of all clients together

_CONNECTING = 0.015  # seconds, for a client
_LATEST = 20.0  # seconds after the jitter has passed until the last has rotated


async def fleet(place: Place, clients: int) -> dict[str, Any]:
    """Each sends messages of QoS 1 to itself meanwhile."""
    from mqtt_token_client import Delivery, Disconnected, Event, Message, Rotated, Token, TokenClient
    from mqtt_token_client.clock import monotonic

    starts = monotonic() + 5 + clients * _CONNECTING  # the renewals, at the earliest
    issued = starts - (LIFE * 2 / 3 - JITTER)
    rotated: list[tuple[float, float]] = []
    lost: list[Event] = []
    got: set[bytes] = set()

    class Source:
        """The first token is one of some minutes ago, so that its renewal is near."""

        def __init__(self) -> None:
            self._fetched = 0

        def fetch(self, _previous: Token | None) -> Token:
            self._fetched += 1
            since = issued if self._fetched == 1 else None
            return Token(f"{place.token}{self._fetched}", LIFE, since=since)

    def told(event: Event) -> None:
        if isinstance(event, Rotated):
            rotated.append((monotonic(), event.gap))
        elif isinstance(event, Disconnected):
            lost.append(event)

    def arrived(message: Message) -> None:
        got.add(message.payload)

    scheme = "mqtt" if place.ca is None else "mqtts"
    all_of_them = []
    for number in range(clients):
        client = TokenClient(
            f"{scheme}://{HOST}:{place.port}",
            Source(),
            client_id=f"{place.name}-{number}",
            protocol=place.protocol,
            tls=context(place.ca),
            on_event=told,
        )
        client.subscribe(f"fleet/{place.name}/{number}", arrived)
        if not client.connect():
            raise RuntimeError(f"client {number} did not connect")
        all_of_them.append(client)
    if monotonic() > starts:
        raise RuntimeError("they took too long to connect")
    deliveries: list[Delivery] = []
    tick, began = threading.Event(), time.monotonic()
    while len(rotated) < clients and monotonic() < starts + JITTER + _LATEST:
        number = len(deliveries)
        tick.wait(max(0.0, began + number / RATE - time.monotonic()))
        topic = f"fleet/{place.name}/{number % clients}"
        deliveries.append(all_of_them[number % clients].publish(topic, b"%d" % number, qos=1))
    for delivery in deliveries:
        delivery.wait(_LATEST)
    end = time.monotonic() + _LATEST
    while len(got) < len(deliveries) and time.monotonic() < end:
        tick.wait(0.05)
    gaps = sorted(gap for _, gap in rotated) or [0.0]
    result = {
        "rotations": len(rotated),
        "time that the jitter gives them": JITTER,
        "time that they took": max(when for when, _ in rotated) - starts if rotated else None,
        "longest wait of a publish in a rotation, median": 1000 * gaps[len(gaps) // 2],
        "the same, p99": 1000 * gaps[int(0.99 * (len(gaps) - 1))],
        "messages sent": len(deliveries),
        "messages lost": len(deliveries) - len(got),
        "connections lost": len(lost),
        "threads beside the program's own": threading.active_count() - 1,
    }
    for client in all_of_them:
        client.disconnect(0)
    return result
