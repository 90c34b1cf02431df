"""What a message costs through asyncio, in counts that do not depend on the machine; see test_cost.py.

The debug mode of the event loop is off, as its calls would be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mqtt_token_client import Message
from tests.unit.async_device import AsyncDevice, connected, until, waiting
from tests.unit.scripted_broker import PATIENCE, Peer
from tests.unit.stepped_time import wait_until
from tests.unit.test_cost import COUNT, PAYLOAD, Calls, counted, network


@pytest.fixture(autouse=True)
def _without_garbage_collection() -> Iterator[None]:
    """Whatever other tests have left behind is finalized on any thread, and its functions would be counted."""
    gc.disable()
    yield
    gc.enable()


def burst(peer: Peer, qos: int) -> None:
    for number in range(COUNT):
        peer.publish("t", PAYLOAD, qos, number + 1 if qos else 0)


@contextlib.asynccontextmanager
async def subscribed(protocol: int, qos: int) -> AsyncIterator[tuple[AsyncDevice, Peer, AsyncIterator[Message]]]:
    """A device, the broker's side, and the messages that come."""
    async with (
        connected(protocol) as (device, peer),
        device.client.messages("t", qos=qos, queue=COUNT) as messages,
    ):
        await asyncio.to_thread(peer.expect_subscribe)
        yield device, peer, aiter(messages)


@pytest.mark.parametrize("protocol", [4, 5])
class TestAMessage:
    @pytest.mark.parametrize("qos", [0, 1])
    def test_is_accepted_by_few_calls(self, protocol: int, qos: int) -> None:
        async def main() -> int:
            device, calls = AsyncDevice(protocol), Calls()
            device.client.publish_nowait("t", PAYLOAD, qos=qos)
            calls.begin()
            for _ in range(COUNT):
                device.client.publish_nowait("t", PAYLOAD, qos=qos)
            calls.end()
            await device.client.disconnect(timeout=0)
            device.broker.close()
            return calls.count

        sees_the_lock = sys.version_info >= (3, 14)  # from then on RLock.__enter__ counts as a call
        assert asyncio.run(main()) / COUNT <= 11 + sees_the_lock

    @pytest.mark.parametrize(("qos", "most"), [(0, 14), (1, 27)])
    def test_that_comes_is_queued_by_few_calls(self, protocol: int, qos: int, most: int) -> None:
        """Of the network thread."""

        async def main() -> int:
            async with subscribed(protocol, qos) as (device, peer, _messages):
                with counted(device) as calls:
                    await asyncio.to_thread(burst, peer, qos)
                await until(lambda: waiting(device, "t") == COUNT)
                network(device, calls.end)
                return calls.count

        assert asyncio.run(main()) / COUNT <= most

    @pytest.mark.parametrize(("qos", "most"), [(0, 5), (1, 10)])
    def test_that_waits_is_handed_over_by_few_calls(self, protocol: int, qos: int, most: int) -> None:
        """Of the event loop's thread."""

        async def main() -> int:
            async with subscribed(protocol, qos) as (device, peer, messages):
                await asyncio.to_thread(burst, peer, qos)
                await until(lambda: waiting(device, "t") == COUNT)
                calls = Calls()
                calls.begin()
                for _ in range(COUNT):
                    await anext(messages)
                calls.end()
                return calls.count

        assert asyncio.run(main()) / COUNT <= most

    @pytest.mark.parametrize(("qos", "most"), [(0, 4), (1, 9)])
    def test_that_waits_is_handled_by_few_calls(self, protocol: int, qos: int, most: int) -> None:
        """By a plain function, on the event loop's thread."""

        async def main() -> int:
            async with connected(protocol) as (device, peer):
                calls, handled, all_handled = Calls(), [0], asyncio.Event()

                def handle(_message: Message) -> None:
                    handled[0] += 1
                    if handled[0] == COUNT:
                        calls.end()
                        all_handled.set()

                device.client.subscribe("t", handle, qos=qos, queue=COUNT)
                await asyncio.to_thread(peer.expect_subscribe)
                burst(peer, qos)
                assert wait_until(lambda: waiting(device, "t") == COUNT, PATIENCE)  # the loop stands still
                calls.begin()
                await all_handled.wait()
                return calls.count

        assert asyncio.run(main()) / COUNT <= most

    @pytest.mark.parametrize("qos", [0, 1])
    def test_wakes_the_loop_together_with_many_others(self, protocol: int, qos: int) -> None:
        async def main() -> int:
            async with subscribed(protocol, qos) as (device, peer, messages):
                loop: Any = asyncio.get_running_loop()
                wake, wakes = loop.call_soon_threadsafe, list[None]()

                def counted_wake(*arguments: Any, **options: Any) -> Any:
                    wakes.append(None)
                    return wake(*arguments, **options)

                loop.call_soon_threadsafe = counted_wake
                with counted(device):
                    await asyncio.to_thread(burst, peer, qos)
                for _ in range(COUNT):
                    await anext(messages)
                loop.call_soon_threadsafe = wake
                return len(wakes)

        assert asyncio.run(main()) <= COUNT / 20
