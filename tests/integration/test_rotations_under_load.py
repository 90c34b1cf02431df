"""Two hundred rotations, of each kind and in each protocol, under 500 messages a second each way at every QoS."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest

from mqtt_token_client import Credentials, Event, Token, TokenClient, Will
from tests.integration.traffic import Arrivals, Peer, Traffic
from tests.servers.hivemq import HiveMQ
from tests.servers.keys import Keys
from tests.servers.mosquitto import Mosquitto
from tests.servers.processes import wait_until

ROTATIONS, RATE = 5, 500  # a second


class ByMethod:
    """The Authentication Method that the plugin knows."""

    def place(self, token: Token, client_id: str) -> Credentials:
        return Credentials(None, None, token, "OAUTH2-JWT", token.value.encode())


class Minted:
    """A source that costs no request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(600), 600)


@dataclass(frozen=True)
class Case:
    kind: str
    protocol: int
    broker: str = "mosquitto"
    seconds: int = 8

    def options(self) -> dict[str, Any]:
        match self.kind:
            case "reconnect":
                return {"will": Will(f"will/{self.name}", b"lost", qos=1)}
            case "re-authentication":
                return {"profile": ByMethod()}
        return {}

    @property
    def name(self) -> str:
        return f"load-{self.broker}-{self.kind}-{self.protocol}"


CASES = [Case("handover", 4), Case("handover", 5), Case("reconnect", 4), Case("reconnect", 5)]
CASES += [Case("re-authentication", 5)]
CASES += [Case(kind, 5, "hivemq", seconds=4) for kind in ("handover", "reconnect", "re-authentication")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loses_and_reorders_nothing_that_may_not_be_lost(
    case: Case, keys: Keys, mosquitto: Mosquitto, hivemq: HiveMQ
) -> None:
    port = {"mosquitto": mosquitto.port, "hivemq": hivemq.port}[case.broker]
    events: list[Event] = []
    client = TokenClient(
        f"mqtt://127.0.0.1:{port}",
        Minted(keys),
        client_id=case.name,
        protocol=case.protocol,
        on_event=events.append,
        **case.options(),
    )
    with Traffic(client, Peer(port, case.name, keys.token(600)), events) as traffic:
        running = threading.Thread(target=traffic.run, args=(case.seconds, RATE, lambda number: number % 3))
        running.start()
        for number in range(case.seconds * ROTATIONS):
            client.rotate()
            wait_until(lambda wanted=number + 1: client.stats.rotations >= wanted, "the rotation")  # type: ignore[misc]
        running.join()
        for delivery in traffic.deliveries:
            delivery.wait(20)
        wait_until(lambda: lost(traffic.peer.arrivals, traffic.sent, case) == set(), "what may not be lost, up", 20)
        wait_until(lambda: lost(traffic.down, traffic.sent, case, down=True) == set(), "what may not be lost, down", 20)
    assert {rotation.kind for rotation in traffic.rotations} == {case.kind}
    for way in (traffic.peer.arrivals, traffic.down):
        assert way.reordered == 0
        assert [number for number in repeated(way) if number % 3 == 2] == []
    assert traffic.losses == []
    assert traffic.peer.wills == 0


def lost(way: Arrivals, sent: int, case: Case, *, down: bool = False) -> set[int]:
    """What has not arrived; of QoS 0 only where the way of rotation loses none, nor the broker: HiveMQ has nobody to
    send it to while one connection takes over from another.
    """
    qos_0 = case.kind != "reconnect" and not (down and (case.kind, case.broker) == ("handover", "hivemq"))
    return {number for number in way.lost_of(sent) if number % 3 or qos_0}


def repeated(way: Arrivals) -> list[int]:
    numbers = way.numbers
    return sorted({number for number in numbers if numbers.count(number) > 1}) if way.duplicated else []
