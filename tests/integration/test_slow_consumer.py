"""A burst of 20,000 messages of QoS 1 for an asyncio program that processes 1,000 a second: they wait at the broker,
also while the tokens expire, every six seconds. The broker is the test kit's: Mosquitto 2.0.11 sent 15,000 of them
without an acknowledgement, whatever Receive Maximum said.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mqtt_token_client import AsyncTokenClient, ClientCredentials, Event, MessagesDropped, TokenSource

BURST, PER_SECOND, STEP = 20_000, 1_000, 20  # messages; it looks at the clock once in a step
RECEIVE_MAXIMUM, QUEUE = 100, 10  # messages; the queue is for those of QoS 0
FLAT = 4 * 2**20  # bytes


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


def test_a_burst_waits_at_the_broker_and_none_of_it_is_dropped() -> None:
    events: list[Event] = []

    async def main() -> Outcome:
        with kit() as (url, source, burst):
            return await consume(url, source, events, burst)

    outcome = asyncio.run(main())
    assert outcome.complete
    assert outcome.most <= RECEIVE_MAXIMUM
    assert [event for event in events if isinstance(event, MessagesDropped)] == []
    assert outcome.growth < FLAT
