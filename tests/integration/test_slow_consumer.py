"""A burst of 20,000 messages of QoS 1 for an asyncio program that processes 1,000 a second: they wait at the broker,
also while the tokens of the test kit's broker expire, every six seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from mqtt_token_client import AsyncTokenClient, ClientCredentials, Event, MessagesDropped, Token, TokenSource
from tests.integration.traffic import Peer

BURST, PER_SECOND, STEP = 20_000, 1_000, 20  # messages; it looks at the clock once in a step
RECEIVE_MAXIMUM, QUEUE = 100, 10  # messages; the queue is for those of QoS 0
FLAT = 4 * 2**20  # bytes


class Minted:
    """A source that costs no request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(600), 600)


@dataclass
class Outcome:
    """What became of the burst.

    Attributes:
        complete: each message came once, and in order.
        most: how many waited in the client at most.
        growth: of the memory of this process, in bytes, after the first 1,000.
    """

    complete: bool
    most: int
    growth: int


def resident() -> int:
    """The memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def consume(url: str, source: TokenSource, events: list[Event], burst: Callable[[], object]) -> Outcome:
    client = AsyncTokenClient(url, source, client_id="slow", receive_maximum=RECEIVE_MAXIMUM, on_event=events.append)
    loop = asyncio.get_running_loop()
    got = most = before = 0
    complete = True
    async with client, client.messages("down/slow/#", queue=QUEUE) as messages:
        await client.publish("ready/slow", b"", qos=1)  # the broker has the subscription by then, also a slow one
        bursting = loop.run_in_executor(None, burst)
        began = loop.time()
        async for message in messages:
            complete &= int(message.payload.split()[0]) == got
            got += 1
            most = max(most, client.stats.received - got + 1)
            if got % STEP == 0:
                await asyncio.sleep(max(0.0, began + got / PER_SECOND - loop.time()))
            if got == PER_SECOND:
                before = resident()
            if got == BURST:
                break
        await bursting
    return Outcome(complete, most, resident() - before)


@contextmanager
def kit() -> Iterator[tuple[str, ClientCredentials, Callable[[], object]]]:
    """The URL of the kit's broker, a source of tokens for it, and what has it publish the burst."""
    program = [sys.executable, "-m", "tests.integration.bursting_broker"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def burst() -> None:
            stdin.write(json.dumps(["down/slow/0", BURST]) + "\n")
            stdin.flush()

        server = json.loads(stdout.readline())
        yield server.pop("url"), ClientCredentials(**server), burst
        stdin.close()
    assert process.returncode == 0


def test_a_burst_waits_at_the_broker_and_none_of_it_is_dropped(keys: Keys, mosquitto: Mosquitto) -> None:
    events: list[Event] = []

    async def main() -> tuple[Outcome, Outcome]:
        def burst() -> None:
            for number in range(BURST):
                peer.publish("down/slow/0", number)

        peer = await asyncio.to_thread(Peer, mosquitto.port, "slow", keys.token(600))
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        with closing(peer), kit() as (url_of_kit, source, burst_of_kit):
            return await asyncio.gather(
                consume(url, Minted(keys), events, burst), consume(url_of_kit, source, events, burst_of_kit)
            )

    on_mosquitto, on_kit = asyncio.run(main())
    assert (on_mosquitto.complete, on_kit.complete) == (True, True)
    assert on_kit.most <= RECEIVE_MAXIMUM
    assert on_mosquitto.most <= BURST / 10  # version 2.0.11 exceeds Receive Maximum, up to its own limit and some more
    assert [event for event in events if isinstance(event, MessagesDropped)] == []
    assert max(on_mosquitto.growth, on_kit.growth) < FLAT
