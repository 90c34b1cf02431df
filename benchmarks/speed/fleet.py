"""Many clients of this library in one process, whose tokens all expire at about the same time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.speed.place import HOST, Place, context

if TYPE_CHECKING:
    from mqtt_token_client import Delivery, Event, Message, Token, TokenClient

LIFE = 300.0  # seconds that the tokens are valid; renewal begins at two thirds of it, up to a twentieth of it earlier
JITTER = LIFE / 20
RATE = 500.0  # messages a second, of all clients together

_CONNECTING = 0.015  # seconds, for a client
_LATEST = 20.0  # seconds after the jitter has passed until the last has rotated


async def fleet(place: Place, clients: int) -> dict[str, Any]:
    """Each client sends messages of QoS 1 to itself meanwhile."""
    return _Fleet(place, clients).run()


class _Source:
    """Its first token was issued some minutes ago, so that the renewal is near."""

    def __init__(self, value: str, issued: float) -> None:
        self._value, self._issued, self._fetched = value, issued, 0

    def fetch(self, _previous: Token | None) -> Token:
        from mqtt_token_client import Token

        self._fetched += 1
        since = self._issued if self._fetched == 1 else None
        return Token(f"{self._value}{self._fetched}", LIFE, since=since)


class _Fleet:
    def __init__(self, place: Place, clients: int) -> None:
        from mqtt_token_client.clock import monotonic

        self._monotonic = monotonic
        self._place = place
        self._rotated: list[tuple[float, float]] = []
        self._lost: list[Event] = []
        self._received: set[bytes] = set()
        self._starts = monotonic() + 5 + clients * _CONNECTING  # the renewals, at the earliest
        self._clients = [self._connect(number) for number in range(clients)]
        if monotonic() > self._starts:
            raise RuntimeError("they took too long to connect")

    def _connect(self, number: int) -> TokenClient:
        from mqtt_token_client import TokenClient

        place = self._place
        client = TokenClient(
            f"{'mqtt' if place.ca is None else 'mqtts'}://{HOST}:{place.port}",
            _Source(place.token, self._starts - (LIFE * 2 / 3 - JITTER)),
            client_id=f"{place.name}-{number}",
            protocol=place.protocol,
            tls=context(place.ca),
            on_event=self._on_event,
        )
        client.subscribe(f"fleet/{place.name}/{number}", self._on_message)
        if not client.connect():
            raise RuntimeError(f"client {number} did not connect")
        return client

    def _on_event(self, event: Event) -> None:
        from mqtt_token_client import Disconnected, Rotated

        if isinstance(event, Rotated):
            self._rotated.append((self._monotonic(), event.gap))
        elif isinstance(event, Disconnected):
            self._lost.append(event)

    def _on_message(self, message: Message) -> None:
        self._received.add(message.payload)

    def run(self) -> dict[str, Any]:
        sent = self._send_until_all_have_rotated()
        rotated = self._rotated
        gaps = sorted(gap for _, gap in rotated) or [0.0]
        result = {
            "rotations": len(rotated),
            "time that the jitter gives them": JITTER,
            "time that they took": max(when for when, _ in rotated) - self._starts if rotated else None,
            "longest wait of a publish in a rotation, median": 1000 * gaps[len(gaps) // 2],
            "the same, p99": 1000 * gaps[int(0.99 * (len(gaps) - 1))],
            "messages sent": sent,
            "messages lost": sent - len(self._received),
            "connections lost": len(self._lost),
            "threads beside the program's own": threading.active_count() - 1,
        }
        for client in self._clients:
            client.disconnect(0)
        return result

    def _send_until_all_have_rotated(self) -> int:
        """Returns the number of messages that were sent, after they have arrived or had the time to."""
        deliveries: list[Delivery] = []
        tick, began = threading.Event(), time.monotonic()
        while len(self._rotated) < len(self._clients) and self._monotonic() < self._starts + JITTER + _LATEST:
            number = len(deliveries)
            tick.wait(max(0.0, began + number / RATE - time.monotonic()))
            client = number % len(self._clients)
            topic = f"fleet/{self._place.name}/{client}"
            deliveries.append(self._clients[client].publish(topic, b"%d" % number, qos=1))
        for delivery in deliveries:
            delivery.wait(_LATEST)
        end = time.monotonic() + _LATEST
        while len(self._received) < len(deliveries) and time.monotonic() < end:
            tick.wait(0.05)
        return len(deliveries)
