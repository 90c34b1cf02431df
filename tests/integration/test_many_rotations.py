"""A hundred handovers in a row, as quick as they come, under messages of every QoS."""

from __future__ import annotations

import threading

import pytest

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.processes import wait_until
from mqtt_token_client import Event, Token
from tests.integration.interfaces import INTERFACES
from tests.integration.traffic import Peer, Traffic

ROTATIONS = 100


class _Minted:
    """A source that costs no request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(600), 600)


@pytest.mark.parametrize(("interface", "protocol"), [("blocking", 4), ("blocking", 5), ("asyncio", 5)])
def test_a_hundred_handovers_lose_repeat_and_reorder_nothing_at_any_qos(
    interface: str, protocol: int, keys: Keys, mosquitto: Mosquitto
) -> None:
    events: list[Event] = []
    name = f"hundred-{protocol}-{interface}"
    client = INTERFACES[interface](
        f"mqtt://127.0.0.1:{mosquitto.port}", _Minted(keys), client_id=name, protocol=protocol, on_event=events.append
    )
    with Traffic(client, Peer(mosquitto.port, name, keys.token(600)), events) as traffic:
        running = threading.Thread(target=traffic.run, args=(12, 300, lambda number: number % 3))
        running.start()
        for number in range(ROTATIONS):
            client.rotate()
            wait_until(lambda wanted=number + 1: client.stats.rotations >= wanted, "the rotation")  # type: ignore[misc]
        running.join()
        traffic.settle()
    up, down = traffic.peer.arrivals, traffic.down
    assert (up.lost_of(traffic.sent), up.duplicated, up.reordered) == (set(), 0, 0)
    assert (down.lost_of(traffic.sent), down.duplicated, down.reordered) == (set(), 0, 0)
    assert traffic.losses == []
    assert {rotation.kind for rotation in traffic.rotations} == {"handover"}
