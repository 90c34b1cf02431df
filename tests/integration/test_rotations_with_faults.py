"""Rotations under load of which every fifth goes wrong, or the broker dies: nothing of QoS 1 and 2 is lost."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from mqtt_token_client import Backoff, Event, Token, TokenClient, TokenError
from mqtt_token_client.errors import AuthorizationServerUnavailable
from tests.integration.test_rotations_under_load import Case, repeated
from tests.integration.traffic import Peer, Traffic
from tests.servers.delay_proxy import DelayProxy
from tests.servers.keys import Keys
from tests.servers.mosquitto import Mosquitto
from tests.servers.processes import wait_until

ROTATIONS, RATE, SECONDS = 40, 200, 12
CASES = [Case("handover", 4), Case("handover", 5), Case("reconnect", 4), Case("re-authentication", 5)]


class Troubled:
    """Makes tokens, unless it is told to make one that the broker refuses, or none."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.next: list[str] = []

    def fetch(self, previous: Token | None) -> Token:
        match self.next.pop(0) if self.next else "good":
            case "none":
                raise AuthorizationServerUnavailable("out of order")
            case "refused":
                return Token(self._keys.token(600, "client"), 600)
        return Token(self._keys.token(600), 600)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lose_and_reorder_nothing_of_qos_1_and_2(
    case: Case, keys: Keys, mosquitto: Mosquitto, delay: Callable[..., DelayProxy]
) -> None:
    events: list[Event] = []
    source, proxy, name = Troubled(keys), delay(mosquitto.port, round_trip=0.002), f"faults-{case.name}"
    client = TokenClient(
        f"mqtt://127.0.0.1:{proxy.port}",
        source,
        client_id=name,
        protocol=case.protocol,
        backoff=Backoff(initial=0.05, maximum=0.2),
        on_event=events.append,
        **case.options(),
    )
    moments = itertools.cycle([0.0, 0.001, 0.004, 0.008, 0.012])
    with Traffic(client, Peer(mosquitto.port, name, keys.token(600)), events) as traffic:
        running = threading.Thread(target=traffic.run, args=(SECONDS, RATE, lambda number: number % 2 + 1))
        running.start()
        for number in range(ROTATIONS):
            match number % 20:
                case 4:
                    source.next = ["refused"]
                case 9:
                    source.next = ["none"]
                case 14 | 19:
                    threading.Timer(next(moments), proxy.cut).start()  # in the middle of it, wherever that is
            before = client.stats
            try:
                client.rotate()
            except TokenError:
                continue
            wait_until(
                lambda before=before: (  # type: ignore[misc]
                    client.stats.rotations + client.stats.connects > before.rotations + before.connects
                    and client.state == "connected"
                ),
                "a connection on another token",
            )
            time.sleep(0.05)
        running.join()
        traffic.settle()
    assert client.stats.rotations >= ROTATIONS / 2
    for way in (traffic.peer.arrivals, traffic.down):
        assert way.reordered == 0
        assert [number for number in repeated(way) if number % 2] == [], "QoS 2"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lose_nothing_of_qos_1_and_2_when_the_broker_is_killed_in_the_middle_of_one(
    case: Case, keys: Keys, mosquitto: Mosquitto
) -> None:
    events: list[Event] = []
    name = f"killed-{case.name}"
    client = TokenClient(
        f"mqtt://127.0.0.1:{mosquitto.port}",
        Troubled(keys),
        client_id=name,
        protocol=case.protocol,
        backoff=Backoff(initial=0.05, maximum=0.2),
        on_event=events.append,
        **case.options(),
    )
    with Traffic(client, Peer(mosquitto.port, name, keys.token(600), session=True), events) as traffic:
        running = threading.Thread(target=traffic.run, args=(6, 100, lambda number: number % 2 + 1))
        running.start()
        for number in range(10):
            client.rotate()
            if number in (3, 7):
                mosquitto.kill(save=True)
                mosquitto.start()
            wait_until(lambda: client.state == "connected", "a connection on another token")
            time.sleep(0.2)
        running.join()
        traffic.settle()
    assert len(traffic.losses) >= 2
    for way in (traffic.peer.arrivals, traffic.down):
        assert [number for number in repeated(way) if number % 2] == [], "QoS 2"
