"""A will on real brokers: planned rotations never fire it, a real loss always does, once."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.processes import wait_until
from devtools.servers.rabbitmq import RabbitMQ
from mqtt_token_client import (
    Backoff,
    Connected,
    ConnectFailed,
    Disconnected,
    Event,
    Rotated,
    RotationFailed,
    Token,
    TokenRefused,
    Will,
)
from tests.integration.interfaces import INTERFACES
from tests.integration.test_rotations_under_load import ByMethod, Minted
from tests.integration.traffic import Peer, PeerProcess

ROTATIONS, DELAY, KEEPALIVE = 5, 2, 2


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
    interface: str

    def __str__(self) -> str:
        delay = "-delay" if self.delay else ""
        return f"{self.broker}-{self.protocol}{delay}-{self.loss.__name__}-{self.interface}"

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
CASES = [Case(*broker, loss, interface) for broker in BROKERS for loss in (cut, silence) for interface in INTERFACES]


@pytest.fixture(scope="module")
def outcomes(keys: Keys, mosquitto: Mosquitto, rabbitmq: RabbitMQ, hivemq: HiveMQ) -> dict[Case, Outcome]:
    """All cases at once: they wait for most of the time."""
    brokers: dict[str, Mosquitto | RabbitMQ | HiveMQ] = {"mosquitto": mosquitto, "rabbitmq": rabbitmq, "hivemq": hivemq}
    for broker in brokers.values():
        broker.reset()
    with closing(PeerProcess()) as peers, ThreadPoolExecutor(len(CASES)) as pool:
        live = functools.partial(_live, keys=keys, peers=peers)
        return dict(zip(CASES, pool.map(live, CASES, [brokers[case.broker].port for case in CASES]), strict=True))


def _live(case: Case, port: int, keys: Keys, peers: PeerProcess) -> Outcome:
    events: list[Event] = []
    name = f"will-{case}"
    with (
        closing(Peer(port, name, keys.token(600), process=peers)) as peer,
        closing(DelayProxy(port, round_trip=0.002)) as proxy,
    ):
        client = INTERFACES[case.interface](
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


class Device:
    """A client with a will on Mosquitto, behind a proxy, and its peer."""

    def __init__(self, name: str, keys: Keys, port: int, proxy: DelayProxy, *, interface: str, **options: Any) -> None:
        self.name = name
        self.events: list[Event] = []
        self.peer = Peer(port, name, keys.token(600))
        options = {"tokens": Minted(keys), "backoff": Backoff(initial=0.02, maximum=0.1), **options}
        will = Will(f"will/{name}", b"lost", qos=1)
        url = f"mqtt://127.0.0.1:{proxy.port}"
        self.client = INTERFACES[interface](url, client_id=name, will=will, on_event=self.events.append, **options)
        self._heard = 0

    def reported(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def wait(self, kind: type[Event], times: int = 1) -> None:
        wait_until(lambda: self.reported(kind) >= times, f"{kind.__name__}, {times} times")

    @property
    def wills(self) -> int:
        """How often the will was fired before now: what the peer sends itself arrives after that."""
        self.peer.publish(f"up/{self.name}/0", self._heard)
        self._heard += 1
        wait_until(lambda: len(self.peer.arrivals.numbers) == self._heard, "the peer's own message")
        return self.peer.wills


Make = Callable[..., Device]


@pytest.fixture(params=INTERFACES)
def make(request: pytest.FixtureRequest, keys: Keys, mosquitto: Mosquitto) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(name: str, proxy: DelayProxy, **options: Any) -> Device:
            name = f"{name}-{request.param}"
            device = Device(name, keys, mosquitto.port, proxy, interface=request.param, **options)
            stack.callback(device.peer.close)
            stack.enter_context(device.client)
            return device

        yield make


@pytest.fixture
def proxy(mosquitto: Mosquitto, delay: Callable[..., DelayProxy]) -> DelayProxy:
    return delay(mosquitto.port, round_trip=0.0)


@pytest.mark.parametrize("protocol", [4, 5])
class TestWillAtAReconnectThatFails:
    """A rotation by reconnect ends the first connection with DISCONNECT, and the broker forgets the will with it."""

    def test_stays_where_it_is_while_there_is_no_way_to_the_broker_for_a_second_connection(
        self, make: Make, proxy: DelayProxy, protocol: int
    ) -> None:
        device = make(f"will-no-way-{protocol}", proxy, protocol=protocol)
        proxy.refuse()
        device.client.rotate()
        device.wait(RotationFailed)
        device.client.publish("still/there", b"", qos=1).wait(10)
        assert (device.reported(Disconnected), device.wills) == (0, 0)
        proxy.cut()
        wait_until(lambda: device.peer.wills == 1, "the will")

    def test_is_not_fired_for_a_client_that_does_not_come_back_and_is_there_again_when_it_does(
        self, make: Make, proxy: DelayProxy, protocol: int
    ) -> None:
        device = make(f"will-away-{protocol}", proxy, protocol=protocol)

        def block(number: int, what: str, _data: bytes) -> None:
            if (number, what) == (2, "up"):  # CONNECT of the second connection, which the first has made way for
                proxy.refuse()
                proxy.cut(number)

        proxy.watch = block
        device.client.rotate()
        device.wait(ConnectFailed, times=3)
        assert (device.reported(Disconnected), device.reported(Connected), device.wills) == (1, 1, 0)
        proxy.accept()
        device.wait(Connected, times=2)
        assert device.wills == 0
        cut(proxy)
        wait_until(lambda: device.peer.wills == 1, "the will")

    def test_is_not_fired_where_the_new_token_is_refused(
        self, make: Make, keys: Keys, proxy: DelayProxy, protocol: int
    ) -> None:
        class SecondIsBad(Minted):
            count = 0

            def fetch(self, previous: Token | None) -> Token:
                self.count += 1
                bad = self.count == 2  # without iat its age is no excuse
                return Token(keys.token(600, "client", iat=None) if bad else keys.token(600), 600)

        device = make(f"will-refused-{protocol}", proxy, protocol=protocol, tokens=SecondIsBad(keys))
        device.client.rotate()
        device.wait(Connected, times=2)
        assert (device.reported(TokenRefused), device.reported(Disconnected), device.wills) == (1, 1, 0)
        cut(proxy)
        wait_until(lambda: device.peer.wills == 1, "the will")


def test_a_will_is_not_fired_by_re_authentication_and_by_a_loss_after_it_it_is(make: Make, proxy: DelayProxy) -> None:
    device = make("will-in-place", proxy, profile=ByMethod())
    for number in range(1, ROTATIONS + 1):
        device.client.rotate()
        device.wait(Rotated, times=number)
    assert {event.kind for event in device.events if isinstance(event, Rotated)} == {"re-authentication"}
    assert (device.reported(Disconnected), device.wills) == (0, 0)
    cut(proxy)
    wait_until(lambda: device.peer.wills == 1, "the will")
    assert device.wills == 1
