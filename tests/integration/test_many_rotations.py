"""A hundred handovers in a row, as quick as they come, under messages of every QoS."""

from __future__ import annotations

import threading

import pytest

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.processes import wait_until
from mqtt_token_client import Event, Token
from tests.integration.interfaces import INTERFACES, through_both
from tests.integration.traffic import Peer, Traffic

ROTATIONS = 100


class _Minted:
    """A source that costs no request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(600), 600)


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_hundred_handovers_lose_repeat_and_reorder_nothing_at_any_qos(
    protocol: int, keys: Keys, mosquitto: Mosquitto
) -> None:
    def check(interface: str) -> None:
        events: list[Event] = []
        name, enough = f"hundred-{protocol}-{interface}", threading.Event()
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        client = INTERFACES[interface](url, _Minted(keys), client_id=name, protocol=protocol, on_event=events.append)
        with Traffic(client, Peer(mosquitto.port, name, keys.token(600)), events) as traffic:
            running = threading.Thread(target=traffic.run, args=(100, 300, lambda number: number % 3, enough))
            running.start()
            for number in range(ROTATIONS):
                client.rotate()
                wait_until(lambda wanted=number + 1: client.stats.rotations >= wanted, "the rotation")  # type: ignore[misc]
            enough.set()
            running.join()
            traffic.settle()
        up, down = traffic.peer.arrivals, traffic.down
        assert (up.lost_of(traffic.sent), up.duplicated, up.reordered) == (set(), 0, 0)
        assert (down.lost_of(traffic.sent), down.duplicated, down.reordered) == (set(), 0, 0)
        assert traffic.losses == []
        assert {rotation.kind for rotation in traffic.rotations} == {"handover"}

    through_both(check)
