"""How long a handover is felt: TLS over a link with a round trip of 20 and 100 ms, 200 messages a second each way."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from mqtt_token_client import Event, Rotated
from tests.integration.interfaces import INTERFACES
from tests.integration.traffic import Peer, Traffic, source, trusting

RATE = 200
NOISE = 0.03  # seconds, of a machine with other work; the figures are in the benchmarks


@pytest.mark.parametrize(
    ("interface", "protocol", "round_trip"),
    [("blocking", 4, 0.02), ("blocking", 5, 0.02), ("blocking", 4, 0.1), ("blocking", 5, 0.1), ("asyncio", 5, 0.02)],
)
class TestHandoverOverALongLine:
    def test_is_felt_for_a_round_trip_at_most_and_loses_nothing_at_any_qos(
        self,
        interface: str,
        protocol: int,
        round_trip: float,
        keys: Keys,
        oidc: AuthorizationServer,
        mosquitto: Mosquitto,
        pki: Pki,
        delay: Callable[..., DelayProxy],
    ) -> None:
        oidc.config(at=5)
        proxy = delay(mosquitto.tls_port, round_trip=round_trip)
        events: list[Event] = []
        rotated_at: list[float] = []

        def on_event(event: Event) -> None:
            events.append(event)
            if isinstance(event, Rotated):
                rotated_at.append(time.monotonic())

        name = f"gap-{protocol}-{round_trip}-{interface}"
        client = INTERFACES[interface](
            f"mqtts://localhost:{proxy.port}",
            source(oidc),
            client_id=name,
            protocol=protocol,
            tls=trusting(pki.ca),
            on_event=on_event,
        )
        with Traffic(client, Peer(mosquitto.port, name, keys.token(600)), events) as traffic:
            traffic.run(seconds=12, rate=RATE, qos=lambda number: number % 4 and 1)
            traffic.settle()
        assert len(rotated_at) >= 3
        assert {rotation.kind for rotation in traffic.rotations} == {"handover"}
        # One round trip, from CONNECT to CONNACK. The best of the rotations: what is above it is this machine's noise.
        assert min(rotation.gap for rotation in traffic.rotations) < round_trip + NOISE
        around = [traffic.down.longest_gap(at - 2 * round_trip, at + 2 * round_trip) for at in rotated_at]
        assert min(around) < round_trip + NOISE
        assert (traffic.down.lost_of(traffic.sent), traffic.down.reordered, traffic.down.duplicated) == (set(), 0, 0)
        up = traffic.peer.arrivals
        assert (up.lost_of(traffic.sent), up.reordered, up.duplicated) == (set(), 0, 0)
        assert traffic.losses == []
