"""Rule 5: a new token never costs the live connection. Clients with 5-second tokens under traffic, on real brokers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.rabbitmq import RabbitMQ
from mqtt_token_client import ConnectFailed, Event, RenewalFailed, SessionLost, TokenRefused, Will
from tests.integration.interfaces import INTERFACES
from tests.integration.traffic import Peer, Traffic, late_of, source, trusting

SECONDS, RATE, LIFE = 60, 100, 5


@dataclass(frozen=True)
class Case:
    broker: str
    protocol: int
    tls: bool = False
    will: bool = False
    delay: int | None = None
    interface: str = "blocking"

    @property
    def name(self) -> str:
        will = f"-will{self.delay or ''}" if self.will else ""
        return f"{self.broker}-{self.protocol}{'-tls' if self.tls else ''}{will}-{self.interface}"

    @property
    def kind(self) -> str:
        return "reconnect" if self.will and not self.delay else "handover"


CASES = [
    Case("mosquitto", 4),
    Case("mosquitto", 4, tls=True, will=True),
    Case("mosquitto", 5),
    Case("mosquitto", 5, tls=True, will=True, delay=10),
    Case("mosquitto", 5, tls=True, will=True),
    Case("rabbitmq", 4),
    Case("rabbitmq", 4, will=True),
    Case("hivemq", 5),
    Case("hivemq", 5, tls=True, will=True),
    Case("mosquitto", 5, interface="asyncio"),  # one: all of them are more than one process can carry
]
Minute = Callable[[Case], Traffic]


@pytest.fixture(scope="module")
def minute(
    keys: Keys, oidc: AuthorizationServer, mosquitto: Mosquitto, rabbitmq: RabbitMQ, hivemq: HiveMQ, pki: Pki
) -> Minute:
    """The traffic of a case. All cases run at once, for a minute."""
    lasting = keys.token(3600)
    ports = {
        "mosquitto": (mosquitto.port, mosquitto.tls_port),
        "rabbitmq": (rabbitmq.port, 0),
        "hivemq": (hivemq.port, hivemq.tls_port),
    }

    oidc.reset()
    oidc.config(at=LIFE)
    traffic = {case: _traffic(case, oidc, *ports[case.broker], pki, lasting) for case in CASES}
    with ThreadPoolExecutor(len(CASES)) as pool:
        running = {case: pool.submit(_run, one) for case, one in traffic.items()}
    return lambda case: running[case].result()


def _run(one: Traffic) -> Traffic:
    with one:
        one.run(SECONDS, RATE)
        with suppress(TimeoutError):  # the assertions say what is missing
            one.settle()
    return one


def _traffic(case: Case, oidc: AuthorizationServer, plain: int, tls: int, pki: Pki, lasting: str) -> Traffic:
    arguments: dict[str, Any] = {}
    url = f"mqtt://127.0.0.1:{plain}"
    if case.tls:
        url, arguments["tls"] = f"mqtts://localhost:{tls}", trusting(pki.ca)
    if case.will:
        arguments["will"] = Will(f"will/{case.name}", b"lost", qos=1, delay=case.delay)
    events: list[Event] = []
    client = INTERFACES[case.interface](
        url, source(oidc), client_id=case.name, protocol=case.protocol, on_event=events.append, **arguments
    )
    return Traffic(client, Peer(plain, case.name, lasting), events)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestAMinuteOfFiveSecondTokens:
    def test_rotates_at_least_twelve_times_in_the_way_that_the_will_allows(self, minute: Minute, case: Case) -> None:
        rotations = minute(case).rotations
        assert len(rotations) >= SECONDS / LIFE
        assert {rotation.kind for rotation in rotations} == {case.kind}

    def test_loses_and_reorders_nothing_in_either_direction(self, minute: Minute, case: Case) -> None:
        one = minute(case)
        assert one.sent == SECONDS * RATE
        assert (one.peer.arrivals.lost_of(one.sent), one.peer.arrivals.reordered) == (set(), 0)
        assert one.down.lost_of(one.sent) == set()
        assert one.down.reordered <= late_of(case.broker, case.kind, len(one.rotations))

    def test_hands_over_no_message_twice_where_identifiers_are_kept(self, minute: Minute, case: Case) -> None:
        one = minute(case)
        if case.broker == "mosquitto":
            assert one.down.duplicated == 0
        elif case.broker == "rabbitmq":  # it sends again under new identifiers, at most its prefetch of 10 a rotation
            assert one.down.duplicated <= 10 * len(one.rotations)
        else:
            # HiveMQ takes each identifier again at once, so that what it sends again may be another message: both must
            # be delivered. It repeats what it sent while the connections changed. A client that acknowledged nothing
            # would have all of the last three seconds again.
            assert one.down.longest_until_repeated < 2

    def test_no_connection_ends_but_by_rotation_and_no_token_is_refused(self, minute: Minute, case: Case) -> None:
        one = minute(case)
        unwanted = (TokenRefused, ConnectFailed, RenewalFailed, SessionLost)
        assert [event for event in one.events if isinstance(event, unwanted)] + one.losses == []

    def test_fires_no_will(self, minute: Minute, case: Case) -> None:
        assert minute(case).peer.wills == 0
