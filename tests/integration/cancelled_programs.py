"""Programs on asyncio that are cancelled at random moments, and what they leave behind.

    python -W error -m tests.integration.cancelled_programs --cycles 1000 [--uvloop]

The tests run some of these cycles.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.pki import Pki
from mqtt_token_client import AsyncTokenClient, Message, Token

LONGEST = 0.1  # seconds that a program runs
SETTLED = 10  # cycles after which the number of descriptors must not change


class AsyncSource:
    """Makes tokens, after a moment on the event loop."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def fetch(self, previous: Token | None) -> Token:
        await asyncio.sleep(0.001)
        return Token(self._keys.token(600), 600)


async def program(url: str, keys: Keys, name: str, random_numbers: random.Random) -> None:
    """Use everything that the interface has, until it is cancelled."""
    up, down = f"up/{name}/0", f"down/{name}/0"

    async def handler(_message: Message) -> None:
        await asyncio.sleep(0.001)

    async with AsyncTokenClient(url, AsyncSource(keys), client_id=name, session_expiry=0) as client:
        client.subscribe(up, handler)

        async def receive() -> None:
            async with client.messages(down) as messages:
                async for _message in messages:
                    await asyncio.sleep(0.0005)

        async def publish() -> None:
            while True:
                topic = random_numbers.choice((up, down))
                await client.publish(topic, b"", qos=random_numbers.randrange(3))

        async def rotate() -> None:
            while True:
                await asyncio.sleep(0.01)
                await client.rotate()

        async def watch() -> None:
            async for _event in client.events():
                """They come and go."""

        async with asyncio.TaskGroup() as tasks:
            for coroutine in (receive(), publish(), rotate(), watch()):
                tasks.create_task(coroutine)


async def cancel_programs(url: str, keys: Keys, cycles: int, seed: int) -> list[str]:
    """Start and cancel programs; return what was wrong."""
    random_numbers, wrong = random.Random(seed), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: wrong.append(f"the loop reports {context}"))
    descriptors = 0
    with unraisable(wrong):
        for cycle in range(cycles):
            running = asyncio.create_task(program(url, keys, f"cancelled-{cycle % 5}", random_numbers))
            await asyncio.sleep(random_numbers.random() ** 3 * LONGEST)
            running.cancel()
            if random_numbers.random() < 0.3:  # twice, as by a second Ctrl-C
                await asyncio.sleep(0)
                running.cancel()
            (outcome,) = await asyncio.gather(running, return_exceptions=True)
            if not isinstance(outcome, asyncio.CancelledError):
                wrong.append(f"cycle {cycle}: it ended with {outcome!r}")
            if left := asyncio.all_tasks() - {asyncio.current_task()}:
                wrong.append(f"cycle {cycle}: tasks are left: {left}")
            if cycle == SETTLED:
                await threads_end()
                descriptors = descriptors_open()
        await threads_end()
    if threads := [thread.name for thread in threading.enumerate() if thread.name.startswith("mqtt-token")]:
        wrong.append(f"threads are left: {threads}")
    if cycles > SETTLED and descriptors_open() != descriptors:
        wrong.append("descriptors are left")
    return wrong


def descriptors_open() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def threads_end() -> None:
    """Wait until the network thread has ended: a moment after its last client."""
    for _ in range(1000):
        if not any(thread.name.startswith("mqtt-token") for thread in threading.enumerate()):
            break
        await asyncio.sleep(0.01)
    gc.collect()


@contextmanager
def unraisable(wrong: list[str]) -> Iterator[None]:
    """Collect what Python cannot raise, such as a ResourceWarning of an object that is deleted."""
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        wrong.append(f"unraisable: {found.exc_value!r} in {found.object!r}")

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("keys", "pki", "mosquitto"):
            (folder / part).mkdir()
        keys = Keys(folder / "keys")
        broker = Mosquitto(keys, Pki(folder / "pki"), folder / "mosquitto")
        broker.start()
        try:
            loop_factory = uvloop.new_event_loop if options.uvloop else None
            with asyncio.Runner(debug=True, loop_factory=loop_factory) as runner:
                url = f"mqtt://127.0.0.1:{broker.port}"
                wrong = runner.run(cancel_programs(url, keys, options.cycles, options.seed))
        finally:
            broker.stop()
    print("\n".join([*wrong[:20], f"{options.cycles} cycles, {len(wrong)} faults"]))  # noqa: T201
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
