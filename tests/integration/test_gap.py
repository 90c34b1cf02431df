"""How long a handover is felt: TLS over a link with a round trip of 20 and 100 ms, 200 messages a second each way."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass

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
LIFETIME, LATER = 5, 1.7  # seconds; the second client rotates in the middle between two rotations of the first one
NOISE = 0.03  # seconds, of a machine with other work; the figures are in the benchmarks


@dataclass(frozen=True)
class Case:
    interface: str
    protocol: int
    round_trip: float  # seconds

    @property
    def name(self) -> str:
        return f"gap-{self.protocol}-{self.round_trip}-{self.interface}"


@dataclass
class Outcome:
    traffic: Traffic
    rotated_at: list[float]


LINES = [(4, 0.02), (5, 0.02), (4, 0.1), (5, 0.1)]
CASES = [Case(interface, *line) for line in LINES for interface in INTERFACES]


@pytest.fixture(scope="module")
def outcome(
    keys: Keys, oidc: AuthorizationServer, mosquitto: Mosquitto, pki: Pki
) -> Iterator[Callable[[Case], Outcome]]:
    """What happened in a case. Those of a protocol and a round trip run at once."""
    with ExitStack() as stack:

        def run(case: Case, port: int) -> Outcome:
            if case.interface != "blocking":
                time.sleep(LATER)
            events: list[Event] = []
            rotated_at: list[float] = []

            def on_event(event: Event) -> None:
                events.append(event)
                if isinstance(event, Rotated):
                    rotated_at.append(time.monotonic())

            client = INTERFACES[case.interface](
                f"mqtts://localhost:{port}",
                source(oidc),
                client_id=case.name,
                protocol=case.protocol,
                tls=trusting(pki.ca),
                on_event=on_event,
            )
            with Traffic(client, Peer(mosquitto.port, case.name, keys.token(600)), events) as traffic:
                traffic.run(seconds=12, rate=RATE, qos=lambda number: number % 4 and 1)
                traffic.settle()
            return Outcome(traffic, rotated_at)

        @functools.cache
        def of(line: tuple[int, float]) -> dict[str, Future[Outcome]]:
            oidc.config(at=LIFETIME)
            with ThreadPoolExecutor(len(INTERFACES)) as pool:
                return {name: pool.submit(run, Case(name, *line), proxies[line[1]].port) for name in INTERFACES}

        proxies = {
            round_trip: stack.enter_context(closing(DelayProxy(mosquitto.tls_port, round_trip)))
            for _protocol, round_trip in LINES
        }
        yield lambda case: of((case.protocol, case.round_trip))[case.interface].result()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_handover_is_felt_for_a_round_trip_at_most_and_loses_nothing_at_any_qos(
    case: Case, outcome: Callable[[Case], Outcome]
) -> None:
    traffic, rotated_at, round_trip = outcome(case).traffic, outcome(case).rotated_at, case.round_trip
    assert len(rotated_at) >= 3
    assert {rotation.kind for rotation in traffic.rotations} == {"handover"}
    # One round trip, from CONNECT to CONNACK. The best of the rotations: what is above it is this machine's noise.
    assert min(rotation.gap for rotation in traffic.rotations) < round_trip + NOISE
    around = [traffic.down.longest_gap(at - 2 * round_trip, at + 2 * round_trip) for at in rotated_at]
    assert min(around) < round_trip + NOISE
    up, down = traffic.peer.arrivals, traffic.down
    assert (down.lost_of(traffic.sent), down.reordered, down.repeated) == (set(), 0, [])
    assert (up.lost_of(traffic.sent), up.reordered) == (set(), 0)
    # What was written at QoS 0 when a connection ended before it had answered is sent again, as nobody knows.
    assert [number for number in up.repeated if number % 4] == [], "QoS 1"
    assert traffic.losses == []
