"""Filters that overlap, on real brokers: how many copies of a message each sends, and how often a handler gets it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from devtools.servers.ejabberd import Ejabberd
from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.nats import Nats
from devtools.servers.processes import wait_until
from devtools.servers.rabbitmq import RabbitMQ
from mqtt_token_client import Message, Password, Token, TokenClient, TokenSource

FILTERS = ("{}/a/#", "{}/a/+", "{}/a/b")
MESSAGES = 5


@dataclass(frozen=True)
class Case:
    """What docs/brokers.md says of a broker.

    Attributes:
        copies: whether it sends a message once for each filter.
        highest_qos: that it accepts.
    """

    broker: str
    protocol: int
    copies: bool
    highest_qos: int = 2

    @property
    def name(self) -> str:
        return f"overlapping-{self.broker}-{self.protocol}"


CASES = [
    Case("mosquitto", 5, copies=True),
    Case("mosquitto", 4, copies=False),
    Case("hivemq", 5, copies=False),
    Case("hivemq", 4, copies=False),
    Case("ejabberd", 5, copies=True),
    Case("ejabberd", 4, copies=True),
    Case("rabbitmq", 4, copies=False, highest_qos=1),
    Case("nats", 4, copies=True, highest_qos=1),
]


class Device:
    """A client with a handler for each filter, which count what they get.

    Attributes:
        handed_over: how often each handler got each message, by filter and payload.
    """

    def __init__(self, url: str, tokens: TokenSource, case: Case, options: dict[str, Any]) -> None:
        self.name = case.name
        self.handed_over: Counter[tuple[str, bytes]] = Counter()
        self.unhandled: list[Message] = []
        self._ready = threading.Event()
        options = {**options, "protocol": case.protocol, "on_message": self.unhandled.append}
        self.client = TokenClient(url, tokens, client_id=case.name, **options)
        for topic_filter in FILTERS:

            def take(message: Message, topic_filter: str = topic_filter) -> None:
                self.handed_over[topic_filter, message.payload] += 1

            self.client.subscribe(topic_filter.format(self.name), take, qos=case.highest_qos)
        self.client.subscribe(f"ready/{self.name}", lambda _: self._ready.set())

    def await_ready(self) -> None:
        """Wait until what was sent to this client before has been handed over."""
        self._ready.clear()
        wait_until(self._hears_itself, "a message of its own")

    def _hears_itself(self) -> bool:
        self.client.publish(f"ready/{self.name}", b"", qos=1)
        return self._ready.wait(1)

    def rotate(self) -> None:
        before = self.client.stats.rotations
        self.client.rotate()
        wait_until(lambda: self.client.stats.rotations > before, "the rotation")


class Tokens:
    """Those that the broker of a case accepts."""

    def __init__(self, case: Case, keys: Keys, nats: Nats) -> None:
        self.case, self.keys, self.nats = case, keys, nats

    def fetch(self, previous: Token | None) -> Token:
        match self.case.broker:
            case "nats":
                return Token(self.nats.token(600), 600)
            case "ejabberd":
                return Token(self.keys.token(600, sub=f"{self.case.name}@localhost"), 600)
        return Token(self.keys.token(600), 600)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_handler_gets_a_message_once_also_after_a_rotation_and_a_restart(
    case: Case,
    keys: Keys,
    mosquitto: Mosquitto,
    hivemq: HiveMQ,
    ejabberd: Ejabberd,
    rabbitmq: RabbitMQ,
    nats: Nats,
) -> None:
    """Once for each copy, where MQTT 3.1.1 leaves no other way."""
    ports = {
        "mosquitto": mosquitto.port,
        "hivemq": hivemq.port,
        "ejabberd": ejabberd.port,
        "rabbitmq": rabbitmq.port,
        "nats": nats.port,
    }
    url = f"mqtt://127.0.0.1:{ports[case.broker]}"
    times = len(FILTERS) if case.copies and case.protocol == 4 else 1
    numbers, topic, tokens = count(), f"{case.name}/a/b", Tokens(case, keys, nats)
    options: dict[str, Any] = {}
    if case.broker == "ejabberd":
        options["profile"] = Password(username=f"{case.name}@localhost")
    every_level = range(case.highest_qos + 1)

    def device() -> Device:
        return Device(url, tokens, case, options)

    def publish(client: TokenClient, levels: range = every_level) -> list[bytes]:
        """Publish some messages of each QoS, and wait for their delivery."""
        payloads = []
        for qos in levels:
            for _ in range(MESSAGES):
                payloads.append(b"%d" % next(numbers))
                client.publish(topic, payloads[-1], qos=qos).wait(10)
        return payloads

    def check(device: Device, payloads: list[bytes]) -> None:
        expected = {(topic_filter, payload): times for topic_filter in FILTERS for payload in payloads}
        wait_until(lambda: device.handed_over.total() >= len(expected) * times, f"all; {device.handed_over} came")
        device.await_ready()  # copies too many would come before
        assert device.handed_over == expected
        assert device.unhandled == []
        device.handed_over.clear()

    first = device()
    with first.client:
        first.await_ready()
        before = first.client.stats.received
        payloads = publish(first.client)
        check(first, payloads)
        of_ready = 1  # the message that await_ready() awaits, or a few if the machine is busy
        assert (first.client.stats.received - before - of_ready) // len(payloads) == (
            len(FILTERS) if case.copies else 1
        )
        first.rotate()
        check(first, publish(first.client))
    # The session keeps what is published now, for a process that subscribes to the same filters.
    with TokenClient(url, tokens, client_id=f"{case.name}-sender", protocol=case.protocol, **options) as sender:
        payloads = publish(sender, range(1, case.highest_qos + 1))
    second = device()
    with second.client:
        check(second, payloads)
        check(second, publish(second.client))
