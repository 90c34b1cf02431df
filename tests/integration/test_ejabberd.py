"""ejabberd, which checks JWTs itself and sends one message at a time: the section of docs/brokers.md, run."""

from __future__ import annotations

import time

import pytest

from devtools.servers.ejabberd import Ejabberd
from devtools.servers.keys import Keys
from devtools.servers.processes import wait_until
from mqtt_token_client import (
    Disconnected,
    Event,
    Message,
    Password,
    Rotated,
    Token,
    TokenRefused,
)
from tests.integration.interfaces import INTERFACES, AnyClient, through_both

both = pytest.mark.parametrize("protocol", [4, 5])


class Source:
    """Tokens of a JID, each valid for some seconds."""

    def __init__(self, keys: Keys, jid: str, lifetime: float = 6.0) -> None:
        self.keys, self.jid, self.lifetime = keys, jid, lifetime
        self.expired = 0  # how many of the next ones have expired already

    def fetch(self, previous: Token | None) -> Token:
        if self.expired:
            self.expired -= 1
            return Token(self.keys.token(-60, sub=self.jid, iat=int(time.time()) - 120), self.lifetime)
        return Token(self.keys.token(self.lifetime, sub=self.jid), self.lifetime)


def client_at(
    ejabberd: Ejabberd,
    source: Source,
    name: str,
    events: list[Event],
    protocol: int,
    *,
    user: str | None = None,
    interface: str = "blocking",
) -> AnyClient:
    return INTERFACES[interface](
        f"mqtt://{ejabberd.host}:{ejabberd.port}",
        source,
        client_id=name,
        profile=Password(username=user or source.jid),
        protocol=protocol,
        on_event=events.append,
    )


@both
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_rotations_lose_and_reorder_nothing(keys: Keys, ejabberd: Ejabberd, protocol: int, qos: int) -> None:
    def check(interface: str) -> None:
        name = f"pump-{protocol}-{qos}-{interface}"
        events: list[Event] = []
        heard: list[int] = []

        def arrived(message: Message) -> None:
            heard.append(int(message.payload))

        source = Source(keys, f"{name}@localhost")
        with client_at(ejabberd, source, name, events, protocol, interface=interface) as client:
            client.subscribe(f"{name}/#", arrived, qos=qos)
            sent, deadline = 0, time.monotonic() + 60
            while client.stats.rotations < 3:
                assert time.monotonic() < deadline, f"{client.stats.rotations} rotations"
                client.publish(f"{name}/t", b"%d" % sent, qos=qos)
                sent += 1
                time.sleep(0.02)
                if sent % 40 == 0:
                    client.rotate()
            wait_until(lambda: len(heard) >= sent, f"all {sent} messages; {len(heard)} came")
        assert heard == list(range(sent))
        assert [event for event in events if isinstance(event, Disconnected | TokenRefused)] == []
        assert {event.kind for event in events if isinstance(event, Rotated)} == {"handover"}

    through_both(check)


@both
def test_an_expired_token_is_rejected_and_another_requested(keys: Keys, ejabberd: Ejabberd, protocol: int) -> None:
    name = f"late-{protocol}"
    events: list[Event] = []
    source = Source(keys, f"{name}@localhost")
    source.expired = 1
    client = client_at(ejabberd, source, name, events, protocol)
    with client:
        wait_until(lambda: client.state == "connected", "the connection")
    refused = [event for event in events if isinstance(event, TokenRefused)]
    assert refused
    assert all(event.reason in (0x86, 0x87) for event in refused)


@both
def test_another_user_name_than_the_tokens_is_rejected(keys: Keys, ejabberd: Ejabberd, protocol: int) -> None:
    name = f"stranger-{protocol}"
    events: list[Event] = []
    client = client_at(ejabberd, Source(keys, f"{name}@localhost"), name, events, protocol, user="other@localhost")
    client.connect(timeout=0)
    try:
        wait_until(lambda: any(isinstance(event, TokenRefused) for event in events), f"the rejection; {events}")
    finally:
        client.disconnect(0)
