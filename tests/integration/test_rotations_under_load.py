"""Forty rotations of each kind and in each protocol on Mosquitto, two hundred in all, and twenty of each on HiveMQ and
RabbitMQ, evenly over the time of a load of 500 messages a second up and 500 down, of every QoS, over 60 topics.

Nothing of QoS 1 and 2 is lost or reordered and nothing of QoS 2 repeated. Of QoS 0 nothing is lost on its way up, by
any rotation; nor down, unless the broker has nobody to send it to for a moment, which see.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.processes import wait_until
from devtools.servers.rabbitmq import RabbitMQ
from mqtt_token_client import Credentials, Event, Token, Will
from tests.integration.interfaces import INTERFACES
from tests.integration.traffic import Peer, Traffic, late_of

BUSY = 0.8  # of the rate, at least, is reached on a machine that has other work too


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
    rotations: int = 40
    seconds: int = 6
    rate: int = 500
    levels: int = 3  # of QoS
    interface: str = "blocking"

    @property
    def keeps_qos_0(self) -> bool:
        """Whether the broker sends the client all of QoS 0: not what comes between DISCONNECT and CONNECT of a
        reconnect, when the client is away. HiveMQ and RabbitMQ do not send what they have in hand at a take-over, as
        measured: it does not even get onto the wire.
        """
        return self.kind == "re-authentication" or (self.kind, self.broker) == ("handover", "mosquitto")

    def options(self, client_id: str) -> dict[str, Any]:
        match self.kind:
            case "reconnect":
                return {"will": Will(f"will/{client_id}", b"lost", qos=1)}
            case "re-authentication":
                return {"profile": ByMethod()}
        return {}

    @property
    def name(self) -> str:
        return f"load-{self.broker}-{self.kind}-{self.protocol}-{self.interface}"


CASES = [Case("handover", 4), Case("handover", 5), Case("reconnect", 4), Case("reconnect", 5)]
CASES += [Case("re-authentication", 5)]
CASES += [Case(kind, 5, "hivemq", 20, 3) for kind in ("handover", "reconnect", "re-authentication")]
CASES += [Case("handover", 4, "rabbitmq", 20, 3, rate=200, levels=2)]  # it has no QoS 2
CASES += [replace(case, rotations=20, seconds=3, interface="asyncio") for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loses_and_reorders_nothing_that_may_not_be_lost(
    case: Case,
    keys: Keys,
    mosquitto: Mosquitto,
    hivemq: HiveMQ,
    rabbitmq: RabbitMQ,
    record_property: Callable[[str, object], None],
) -> None:
    port = {"mosquitto": mosquitto.port, "hivemq": hivemq.port, "rabbitmq": rabbitmq.port}[case.broker]
    events: list[Event] = []
    client = INTERFACES[case.interface](
        f"mqtt://127.0.0.1:{port}",
        Minted(keys),
        client_id=case.name,
        protocol=case.protocol,
        on_event=events.append,
        **case.options(case.name),
    )
    step, enough = case.seconds * case.rate // (case.rotations + 1), threading.Event()
    with Traffic(client, Peer(port, case.name, keys.token(600)), events) as traffic:
        load = (10 * case.seconds, case.rate, lambda number: number % case.levels, enough)
        running = threading.Thread(target=traffic.run, args=load)
        running.start()
        for number in range(1, case.rotations + 1):
            traffic.wait_for_load(number * step)
            client.rotate()
            wait_until(lambda wanted=number: client.stats.rotations >= wanted, "the rotation")  # type: ignore[misc]
        assert running.is_alive()
        traffic.wait_for_load((case.rotations + 1) * step)
        enough.set()
        running.join()
        traffic.settle(but=lambda number: number % case.levels == 0)
        with suppress(TimeoutError):  # which is for the assertions to tell
            wait_until(lambda: not traffic.peer.arrivals.lost_of(traffic.sent), "QoS 0, up", timeout=5)
            wait_until(lambda: not case.keeps_qos_0 or not traffic.down.lost_of(traffic.sent), "QoS 0, down", timeout=5)
    up, down, count = traffic.peer.arrivals, traffic.down, traffic.sent
    lost = f"QoS 0 lost: {len(up.lost_of(count))} up, {len(down.lost_of(count))} down, of {count // case.levels}"
    record_property(case.name, lost)
    assert {rotation.kind for rotation in traffic.rotations} == {case.kind}
    assert up.lost_of(count) == set(), lost
    assert not case.keeps_qos_0 or down.lost_of(count) == set(), lost
    assert up.reordered == 0, lost
    assert down.reordered <= late_of(case.broker, case.kind, len(traffic.rotations)), lost
    assert [number for number in up.repeated + down.repeated if number % case.levels == 2] == [], lost
    if case.broker == "mosquitto":  # it keeps packet identifiers, by which what it sends again is known at QoS 1 too
        assert down.repeated == [], lost
    assert traffic.losses == []
    assert traffic.peer.wills == 0
    assert min(up.rate, down.rate) >= BUSY * case.rate  # last: a machine that is too busy fails by this alone
