"""A will on real brokers: planned rotations never fire it, a real loss always does, once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass

import pytest

from mqtt_token_client import Event, Rotated, Token, TokenClient, Will
from tests.integration.traffic import Peer
from tests.servers.delay_proxy import DelayProxy
from tests.servers.hivemq import HiveMQ
from tests.servers.keys import Keys
from tests.servers.mosquitto import Mosquitto
from tests.servers.processes import wait_until
from tests.servers.rabbitmq import RabbitMQ

ROTATIONS, DELAY, KEEPALIVE = 5, 2, 2


class Minted:
    """A source that costs no request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(600), 600)


def cut(proxy: DelayProxy) -> None:
    """As when the process is killed: the operating system ends its connections."""
    proxy.refuse()
    proxy.cut()


def silence(proxy: DelayProxy) -> None:
    """As when the device has lost its power or its network: nobody tells the broker."""
    proxy.refuse()
    proxy.round_trip = math.inf


@dataclass(frozen=True)
class Case:
    broker: str
    protocol: int
    delay: int | None
    loss: Callable[[DelayProxy], None]

    def __str__(self) -> str:
        return f"{self.broker}-{self.protocol}{'-delay' if self.delay else ''}-{self.loss.__name__}"

    @property
    def kind(self) -> str:
        return "handover" if self.delay else "reconnect"


@dataclass
class Outcome:
    """How often the will was fired, and the kinds of the rotations."""

    by_rotations: int
    at_the_end: int
    kinds: set[str]


BROKERS = [("rabbitmq", 4, None)]
BROKERS += [(name, *rest) for name in ("mosquitto", "hivemq") for rest in ((4, None), (5, None), (5, DELAY))]
CASES = [Case(*broker, loss) for broker in BROKERS for loss in (cut, silence)]


@pytest.fixture(scope="module")
def outcomes(keys: Keys, mosquitto: Mosquitto, rabbitmq: RabbitMQ, hivemq: HiveMQ) -> dict[Case, Outcome]:
    """All cases at once: they wait for most of the time."""
    brokers: dict[str, Mosquitto | RabbitMQ | HiveMQ] = {"mosquitto": mosquitto, "rabbitmq": rabbitmq, "hivemq": hivemq}
    for broker in brokers.values():
        broker.reset()
    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(lambda case: _live(case, brokers[case.broker].port, keys), CASES), strict=True))


def _live(case: Case, port: int, keys: Keys) -> Outcome:
    events: list[Event] = []
    name = f"will-{case}"
    with closing(Peer(port, name, keys.token(600))) as peer, closing(DelayProxy(port, round_trip=0.002)) as proxy:
        client = TokenClient(
            f"mqtt://127.0.0.1:{proxy.port}",
            Minted(keys),
            client_id=name,
            protocol=case.protocol,
            keepalive=KEEPALIVE,
            will=Will(f"will/{name}", b"lost", qos=1, delay=case.delay),
            on_event=events.append,
        )
        with client:
            for number in range(ROTATIONS):
                client.rotate()
                wait_until(lambda wanted=number + 1: client.stats.rotations >= wanted, f"{case}: the rotation")  # type: ignore[misc]
            if case.delay:
                time.sleep(case.delay + 1)  # by then it would have been published
            client.publish(f"up/{name}/0", b"0 0", qos=1).wait(10)
            wait_until(lambda: peer.arrivals.numbers == [0], f"{case}: the message")  # after what rotations had fired
            by_rotations = peer.wills
            case.loss(proxy)
            with suppress(TimeoutError):  # which is for the test of this case to tell
                wait_until(lambda: peer.wills > by_rotations, "the will", timeout=30)
        return Outcome(by_rotations, peer.wills, {event.kind for event in events if isinstance(event, Rotated)})


@pytest.mark.parametrize("case", CASES, ids=str)
class TestWill:
    def test_is_not_fired_by_a_rotation(self, case: Case, outcomes: dict[Case, Outcome]) -> None:
        assert (outcomes[case].by_rotations, outcomes[case].kinds) == (0, {case.kind})

    def test_is_fired_once_when_the_client_is_lost(self, case: Case, outcomes: dict[Case, Outcome]) -> None:
        assert outcomes[case].at_the_end - outcomes[case].by_rotations == 1
