"""Rule 5: a new token never costs the live connection. Clients with 5-second tokens under traffic, on real brokers."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.rabbitmq import RabbitMQ
from mqtt_token_client import ConnectFailed, Event, RenewalFailed, SessionLost, TokenRefused, Will
from tests.integration.interfaces import INTERFACES, LoopThread
from tests.integration.traffic import Peer, PeerProcess, Traffic, late_of, source, trusting, turns

SECONDS, RATE, LIFE = 60, 50, 5  # 900 messages a second each way in all, which two cores can carry
RENEWAL = 2 / 3 * LIFE  # seconds after a token was issued


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
]
CASES = [replace(case, interface=interface) for case in CASES for interface in INTERFACES]
Minute = dict[Case, Traffic]


@pytest.fixture(scope="module")
def minute(
    keys: Keys, oidc: AuthorizationServer, mosquitto: Mosquitto, rabbitmq: RabbitMQ, hivemq: HiveMQ, pki: Pki
) -> Minute:
    """The traffic of each case. All of them run at once, for a minute, in the way of real applications: the clients of
    an interface have one thread, which for asyncio has the event loop.
    """
    lasting = keys.token(3600)
    ports = {
        "mosquitto": (mosquitto.port, mosquitto.tls_port),
        "rabbitmq": (rabbitmq.port, 0),
        "hivemq": (hivemq.port, hivemq.tls_port),
    }
    oidc.reset()
    oidc.config(at=LIFE)
    with ExitStack() as stack:
        loop, peers = stack.enter_context(closing(LoopThread())), stack.enter_context(closing(PeerProcess()))
        minute = {}
        for wait, case in zip(turns(len(CASES), len(CASES) / RENEWAL), CASES, strict=True):
            time.sleep(wait)  # devices do not start, and so rotate, all in the same moment
            plain, tls = ports[case.broker]
            peer = Peer(plain, case.name, lasting, process=peers)
            minute[case] = stack.enter_context(_traffic(case, oidc, plain, tls, pki, peer, loop))
        on_loop = loop.run(_send_on_loop([one for case, one in minute.items() if case.interface == "asyncio"]))
        _send([one for case, one in minute.items() if case.interface == "blocking"])
        on_loop.result()
        for one in minute.values():
            with suppress(TimeoutError):  # the assertions say what is missing
                one.settle()
    return minute


def _send(every: list[Traffic]) -> None:
    for wait in turns(SECONDS * RATE, RATE):
        time.sleep(wait)
        for one in every:
            one.send()


async def _send_on_loop(every: list[Traffic]) -> None:
    for wait in turns(SECONDS * RATE, RATE):
        await asyncio.sleep(wait)
        for one in every:
            one.send()


def _traffic(
    case: Case, oidc: AuthorizationServer, plain: int, tls: int, pki: Pki, peer: Peer, loop: LoopThread
) -> Traffic:
    arguments: dict[str, Any] = {} if case.interface == "blocking" else {"thread": loop}
    url = f"mqtt://127.0.0.1:{plain}"
    if case.tls:
        url, arguments["tls"] = f"mqtts://localhost:{tls}", trusting(pki.ca)
    if case.will:
        arguments["will"] = Will(f"will/{case.name}", b"lost", qos=1, delay=case.delay)
    events: list[Event] = []
    client = INTERFACES[case.interface](
        url, source(oidc), client_id=case.name, protocol=case.protocol, on_event=events.append, **arguments
    )
    return Traffic(client, peer, events)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestAMinuteOfFiveSecondTokens:
    def test_rotates_at_least_twelve_times_in_the_way_that_the_will_allows(self, minute: Minute, case: Case) -> None:
        rotations = minute[case].rotations
        assert len(rotations) >= SECONDS / LIFE
        assert {rotation.kind for rotation in rotations} == {case.kind}

    def test_loses_and_reorders_nothing_in_either_direction(self, minute: Minute, case: Case) -> None:
        one = minute[case]
        assert one.sent == SECONDS * RATE
        assert (one.peer.arrivals.lost_of(one.sent), one.peer.arrivals.reordered) == (set(), 0)
        assert one.down.lost_of(one.sent) == set()
        assert one.down.reordered <= late_of(case.broker, case.kind, len(one.rotations))

    def test_hands_over_no_message_twice_where_identifiers_are_kept(self, minute: Minute, case: Case) -> None:
        one = minute[case]
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
        one = minute[case]
        unwanted = (TokenRefused, ConnectFailed, RenewalFailed, SessionLost)
        assert [event for event in one.events if isinstance(event, unwanted)] + one.losses == []

    def test_fires_no_will(self, minute: Minute, case: Case) -> None:
        assert minute[case].peer.wills == 0
