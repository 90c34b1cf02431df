"""NATS, which closes the connection of a user JWT that expires: the section of docs/brokers.md, run with MQTT 3.1.1."""

from __future__ import annotations

import time

import pytest

from devtools.servers.nats import Nats
from devtools.servers.processes import wait_until
from mqtt_token_client import (
    Backoff,
    DeliveryFailed,
    DeliveryRefused,
    Disconnected,
    Event,
    Message,
    Password,
    Rotated,
    Token,
    TokenRefused,
)
from tests.integration.interfaces import INTERFACES, AnyClient, through_both


class Source:
    """User JWTs, each valid for some seconds.

    Attributes:
        expired: how many of the next ones have expired already.
    """

    def __init__(self, nats: Nats, lifetime: float = 9.0) -> None:
        self.nats, self.lifetime = nats, lifetime
        self.expired = 0

    def fetch(self, previous: Token | None) -> Token:
        if self.expired:
            self.expired -= 1
            return Token(self.nats.token(-60, age=120), self.lifetime)
        return Token(self.nats.token(self.lifetime), self.lifetime)


def client_at(nats: Nats, source: Source, name: str, events: list[Event], interface: str = "blocking") -> AnyClient:
    return INTERFACES[interface](
        f"mqtt://{nats.host}:{nats.port}",
        source,
        client_id=name,
        profile=Password(username=name),
        protocol=4,
        backoff=Backoff(initial=0.1, maximum=0.5),
        on_event=events.append,
    )


@pytest.mark.parametrize("qos", [0, 1])
def test_rotations_lose_and_reorder_nothing(nats: Nats, qos: int) -> None:
    def check(interface: str) -> None:
        name = f"pump-{qos}-{interface}"
        events: list[Event] = []
        heard: list[int] = []

        def arrived(message: Message) -> None:
            heard.append(int(message.payload))

        with client_at(nats, Source(nats), name, events, interface) as client:
            client.subscribe(f"{name}/#", arrived, qos=qos)
            sent, next_rotation, deadline = 0, time.monotonic() + 1.5, time.monotonic() + 60
            while client.stats.rotations < 3:
                assert time.monotonic() < deadline, f"{client.stats.rotations} rotations"
                client.publish(f"{name}/t", b"%d" % sent, qos=qos)
                sent += 1
                time.sleep(0.02)
                if time.monotonic() >= next_rotation:  # NATS closes the second of two take-overs within a second
                    client.rotate()
                    next_rotation = time.monotonic() + 1.5
            wait_until(lambda: len(set(heard)) >= sent, f"all {sent} messages; {len(heard)} came")
        assert list(dict.fromkeys(heard)) == list(range(sent))
        assert [event for event in events if isinstance(event, Disconnected | TokenRefused)] == []
        assert {event.kind for event in events if isinstance(event, Rotated)} == {"handover"}

    through_both(check)


def test_a_message_of_qos_2_which_this_version_answers_by_the_end_of_the_connection_is_given_up(nats: Nats) -> None:
    events: list[Event] = []
    with client_at(nats, Source(nats, 60), "twice", events) as client:
        poison = client.publish("twice/t", "2", qos=2)
        after = client.publish("twice/t", "1", qos=1)
        after.wait(30)
        with pytest.raises(DeliveryFailed, match="qos=2"):
            poison.wait(0)
    assert [event.topic for event in events if isinstance(event, DeliveryRefused)] == ["twice/t"]


def test_an_expired_token_is_rejected_and_another_requested(nats: Nats) -> None:
    events: list[Event] = []
    source = Source(nats)
    source.expired = 1
    with client_at(nats, source, "late", events) as client:
        wait_until(lambda: client.state == "connected", "the connection")
    refused = [event for event in events if isinstance(event, TokenRefused)]
    assert refused
    assert all(event.reason == 0x87 for event in refused)
