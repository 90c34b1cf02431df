"""AsyncTokenClient on real brokers: a program that blocks its loop, and one that is slower than its broker."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from mqtt_token_client import AsyncTokenClient, Disconnected, Event, Rotated, Token
from tests.integration.cancelled_programs import cancel_programs
from tests.integration.traffic import Peer

LIFETIME, BLOCKED = 4, 5  # seconds
RECEIVE_MAXIMUM, BURST = 100, 3000  # messages


class Lasting:
    """An asynchronous source whose tokens are valid for ten minutes, or for less."""

    def __init__(self, keys: Keys, seconds: int = 600) -> None:
        self._keys = keys
        self._seconds = seconds

    async def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(self._seconds), self._seconds)


class OnThread(Lasting):
    """The same, without a coroutine function."""

    def fetch(self, previous: Token | None) -> Token:  # type: ignore[override]
        return Token(self._keys.token(self._seconds), self._seconds)


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_loop_that_is_blocked_costs_neither_the_connection_nor_a_rotation(
    protocol: int, keys: Keys, mosquitto: Mosquitto
) -> None:
    """The broker ends a connection whose token has expired, or that is silent for three seconds."""
    events: list[Event] = []

    async def main() -> None:
        client = AsyncTokenClient(
            f"mqtt://127.0.0.1:{mosquitto.port}",
            OnThread(keys, LIFETIME),
            client_id=f"blocked-{protocol}",
            protocol=protocol,
            keepalive=2,
            on_event=events.append,
        )
        async with client:
            time.sleep(BLOCKED)
            assert client.state in ("connected", "rotating")
            assert client.stats.rotations >= 1
            await client.publish("up/blocked/0", b"", qos=1)

    asyncio.run(main())
    assert [event for event in events if isinstance(event, Disconnected)] == []
    assert [event for event in events if isinstance(event, Rotated)]


def test_a_burst_for_a_slow_consumer_waits_at_the_broker_and_none_of_it_is_dropped(keys: Keys, hivemq: HiveMQ) -> None:
    """HiveMQ, as Mosquitto 2.0.11 exceeds Receive Maximum (https://github.com/eclipse-mosquitto/mosquitto/issues/2301)."""

    async def main() -> None:
        client = AsyncTokenClient(
            f"mqtt://127.0.0.1:{hivemq.port}", Lasting(keys), client_id="burst", receive_maximum=RECEIVE_MAXIMUM
        )
        peer = await asyncio.to_thread(Peer, hivemq.port, "burst", keys.token(600))
        async with client, client.messages("down/burst/#", queue=10) as messages:
            await client.publish("ready/burst", b"", qos=1)  # the broker has the subscription by then, also a slow one
            for number in range(BURST):
                peer.publish("down/burst/0", number, 1)
            got: list[int] = []
            most = 0
            async for message in messages:
                got.append(int(message.payload.split()[0]))
                most = max(most, client.stats.received - len(got) + 1)
                if len(got) % 10 == 0:
                    await asyncio.sleep(0.002)
                if len(got) == BURST:
                    break
        assert got == list(range(BURST))
        assert most <= RECEIVE_MAXIMUM
        await asyncio.to_thread(peer.close)

    asyncio.run(main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_programs_that_are_cancelled_at_random_moments_leave_nothing(
    loop: str, keys: Keys, mosquitto: Mosquitto
) -> None:
    """``python -m tests.integration.cancelled_programs`` has the long form."""
    factory = None if loop == "asyncio" else uvloop.new_event_loop
    with asyncio.Runner(debug=True, loop_factory=factory) as runner:
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        assert runner.run(cancel_programs(url, keys, cycles=30, seed=7)) == []
