"""Clients that share a keeper, at a broker: one request renews the token, and they move onto it one after another."""

from __future__ import annotations

import itertools
from typing import Any

from mqtt_token_client import Connected, Disconnected, RenewalPolicy, Rotated, TokenKeeper
from tests.unit.device import Device, Make, Source, password
from tests.unit.packets import CONNECT
from tests.unit.scripted_broker import Peer, ScriptedBroker
from tests.unit.stepped_time import stepped

LIFE = 300.0  # seconds: a third of it is left when the token is renewed
LEFT = LIFE / 3


class Herd:
    """Devices that share a keeper and a broker."""

    def __init__(self, make: Make, count: int) -> None:
        self.source = Source(LIFE)
        keeper = TokenKeeper(self.source, policy=RenewalPolicy(jitter=0.0))
        self.broker = ScriptedBroker()
        self.devices: list[Device] = []
        for number in range(count):
            options: dict[str, Any] = {
                "broker": self.broker,
                "tokens": keeper,
                "client_id": f"device-{number}",
                "keepalive": 0,
            }
            self.devices.append(make(**options))
        self.peers = [device.start() for device in self.devices]

    def moved(self, timeout: float) -> tuple[Peer, float]:
        """The next connection with the second token, after its CONNECT; and when it came."""
        peer = self.broker.accept(timeout)
        assert peer.expect(CONNECT).password == password(2)
        return peer, stepped().now

    def reported(self, kind: type) -> int:
        return sum(len(device.reported(kind)) for device in self.devices)


def test_rotations_are_spread_over_a_third_of_the_time_that_is_left_at_least(make: Make) -> None:
    herd = Herd(make, 12)
    times = []
    for _ in herd.devices:
        peer, when = herd.moved(LIFE)
        peer.connack(session_present=True)
        times.append(when)
    herd.devices[0].until(lambda: herd.reported(Rotated) == 12)
    assert herd.source.requests == 2
    assert LEFT / 3 <= times[-1] - times[0] < LEFT * 4 / 5
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < LEFT / 12
    assert herd.reported(Disconnected) == 0


def test_one_whose_rotation_was_asked_for_does_not_wait_for_the_others(make: Make) -> None:
    herd = Herd(make, 4)
    herd.devices[2].client.rotate()
    at_once = []
    for _ in range(2):
        peer = herd.broker.accept(1.0)
        at_once.append(peer.expect(CONNECT).client_id)
        peer.connack(session_present=True)
    assert sorted(at_once) == ["device-0", "device-2"]  # the first of those that wait, and the one that was asked
    herd.broker.expect_no_connection(10.0)


def test_one_that_loses_its_connection_while_it_waits_connects_at_once_with_the_new_token(
    make: Make,
) -> None:
    herd = Herd(make, 4)
    peer, _ = herd.moved(LIFE)
    peer.connack(session_present=True)
    herd.peers[3].close()
    herd.devices[3].event(Disconnected)
    peer, _ = herd.moved(0.5)
    peer.connack(session_present=True)
    herd.devices[3].event(Connected)


def test_one_that_is_closed_while_it_waits_holds_up_nobody(make: Make) -> None:
    herd = Herd(make, 4)
    herd.moved(LIFE)[0].connack(session_present=True)
    herd.peers[1].close()
    herd.devices[1].client.disconnect(0)
    for _ in range(2):
        herd.moved(LEFT)[0].connack(session_present=True)
    herd.devices[0].until(lambda: herd.reported(Rotated) == 3)


def test_a_client_with_a_keeper_of_its_own_never_waits(make: Make) -> None:
    device = make()
    device.source.life = 30.0
    device.start()
    for number in (2, 3, 4):
        peer = device.broker.accept(30.0)
        assert peer.expect(CONNECT).password == password(number)
        peer.connack(session_present=True)
        device.event(Rotated)
