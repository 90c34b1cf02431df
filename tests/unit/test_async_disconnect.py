"""disconnect() of AsyncTokenClient by another task than the one that connects, or that processes a message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mqtt_token_client import Connected, Message, MessagesAbandoned
from tests.unit.async_device import AsyncDevice, connected, ending, run, until, waiting
from tests.unit.packets import DISCONNECT, PUBACK, PUBLISH, PUBREC, SUBSCRIBE
from tests.unit.scripted_broker import PATIENCE, Peer
from tests.unit.test_async_sources import AsyncSource


@asynccontextmanager
async def disconnecting() -> AsyncIterator[tuple[AsyncDevice, Peer, asyncio.Task[None], int]]:
    """A device whose ``disconnect()`` waits for an acknowledgement, the broker's side, that task, and the packet
    identifier to acknowledge.
    """
    async with connected() as (device, peer):
        device.client.publish_nowait("t", b"last", qos=1)
        last = await asyncio.to_thread(peer.expect, PUBLISH)
        task = asyncio.create_task(device.client.disconnect(timeout=60))
        await until(lambda: device.client.state == "closed")
        yield device, peer, task, last.packet_id


def inner_task() -> asyncio.Task[None]:
    """In which the client is disconnected."""
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "mqtt-token-disconnect")
    return task


async def a_moment() -> None:
    """Let the tasks that could go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_connect_waits_no_longer_than_its_timeout_and_connects_later(timeout: float) -> None:
    async def main() -> None:
        async with disconnecting() as (device, peer, task, packet_id):
            async with asyncio.timeout(PATIENCE):
                assert not await device.client.connect(timeout)
            assert not task.done()
            peer.acknowledge(PUBACK, packet_id)
            await ending(peer, task)
            second = await device.answer()
            await until(lambda: device.client.state == "connected")
            await device.end(second)

    run(main)


def test_connect_that_did_not_wait_is_forgotten_when_disconnect_is_called_again() -> None:
    async def main() -> None:
        async with disconnecting() as (device, peer, task, packet_id):
            assert not await device.client.connect(0)
            again = asyncio.create_task(device.client.disconnect(timeout=60))
            await asyncio.sleep(0)
            peer.acknowledge(PUBACK, packet_id)
            await ending(peer, task)
            await again
            await a_moment()
            assert device.client.state == "closed"
            assert len([event for event in device.events if isinstance(event, Connected)]) == 1

    run(main)


def test_connect_that_is_cancelled_leaves_the_outbox_its_time() -> None:
    async def main() -> None:
        async with disconnecting() as (device, peer, task, packet_id):
            connecting = asyncio.create_task(device.client.connect())
            await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            peer.acknowledge(PUBACK, packet_id)
            await ending(peer, task)
            assert not [event for event in device.events if isinstance(event, MessagesAbandoned)]

    run(main)


def test_a_source_with_a_coroutine_function_serves_the_connection_afterwards() -> None:
    async def main() -> None:
        source = AsyncSource()
        async with connected(tokens=source) as (device, peer):
            task = asyncio.create_task(device.client.disconnect())
            await asyncio.sleep(0)
            connecting = asyncio.create_task(device.client.connect())
            await ending(peer, task)
            await device.answer(0x87)  # so that a new token is needed
            second = await device.answer()
            assert await connecting
            assert source.requests == 2
            await device.end(second)

    run(main)


def test_disconnect_that_is_cancelled_as_it_ends_does_not_close_the_next_connection() -> None:
    async def main() -> None:
        async with disconnecting() as (device, peer, task, packet_id):
            assert not await device.client.connect(0)
            closing = inner_task()
            closing.add_done_callback(lambda _: task.cancel())  # after connect() has begun, in the same turn
            peer.acknowledge(PUBACK, packet_id)
            with pytest.raises(asyncio.CancelledError):
                await ending(peer, task)
            second = await device.answer()
            await until(lambda: device.client.state == "connected")
            await device.end(second)

    run(main)


@pytest.mark.parametrize("turns", [None, 0, 1, 2, 3])
def test_connect_waits_for_a_disconnect_whose_inner_task_is_cancelled(turns: int | None) -> None:
    """As by a program that cancels tasks that it does not know; ``turns`` of the event loop after disconnect() itself
    was cancelled, which raises CancelledError, or without that.
    """

    async def main() -> None:
        async with disconnecting() as (device, peer, task, _packet_id):
            connecting = asyncio.create_task(device.client.connect())
            await asyncio.sleep(0)
            if turns is not None:
                task.cancel()
            for _ in range(turns or 0):
                await asyncio.sleep(0)
            inner_task().cancel()
            with contextlib.nullcontext() if turns is None else pytest.raises(asyncio.CancelledError):
                await ending(peer, task)
            second = await device.answer()
            assert await connecting
            await device.end(second)

    run(main)


def test_connect_waits_for_a_handler_that_is_slow_to_end() -> None:
    """What the new connection has received must not be forgotten with what the old one had."""

    async def main() -> None:
        may_end, started, ended = asyncio.Event(), asyncio.Event(), list[bytes]()

        async def handler(message: Message) -> None:
            started.set()
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                await may_end.wait()
                ended.append(message.payload)

        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await asyncio.to_thread(peer.expect, SUBSCRIBE)
            peer.publish("t", b"first", qos=1, packet_id=1)
            await started.wait()
            task = asyncio.create_task(device.client.disconnect())
            await asyncio.to_thread(peer.expect, DISCONNECT)
            peer.close()
            connecting = asyncio.create_task(device.client.connect())
            await until(lambda: device.client._core.runtime is None)
            await a_moment()
            assert device.client.state == "closed"
            may_end.set()
            await task
            assert ended == [b"first"]
            second = await device.answer()
            assert await connecting
            await device.end(second)

    run(main)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_whose_task_is_cancelled_after_disconnect_is_processed_once_on_the_next_connection(
    qos: int, late: bool
) -> None:
    """It comes again, so the one from the last connection must not be put back; ``late`` is after the next began."""

    async def main() -> None:
        processing = asyncio.Event()

        async def work(device: AsyncDevice) -> None:
            async with device.client.messages("t", qos=qos) as messages:
                async for _message in messages:
                    processing.set()
                    await asyncio.sleep(PATIENCE)

        async def cancel(working: asyncio.Task[None]) -> None:
            working.cancel()
            await asyncio.wait([working])

        async with connected() as (device, peer):
            working = asyncio.create_task(work(device))
            await asyncio.to_thread(peer.expect_subscribe)
            peer.publish("t", b"1", qos, 1)
            await processing.wait()
            await device.end(peer)
            if not late:
                await cancel(working)
            peer = await device.start(session_present=True)
            async with device.client.messages("t", qos=qos) as messages:
                await asyncio.to_thread(peer.expect_subscribe)
                if late:
                    await cancel(working)
                peer.publish("t", b"1", qos, 1, dup=True)
                peer.publish("t", b"2", qos, 2)
                stream = aiter(messages)
                assert [(await anext(stream)).payload for _ in range(2)] == [b"1", b"2"]
                assert (await asyncio.to_thread(peer.expect, PUBACK if qos == 1 else PUBREC)).packet_id == 1
                await device.end(peer)

    run(main)


@pytest.mark.parametrize("left", ["by break", "at its end"])
@pytest.mark.parametrize("queued", [False, True])
def test_a_block_that_is_left_then_keeps_its_subscription_and_what_it_has_not_processed(
    queued: bool, left: str
) -> None:
    """``queued`` is a message that disconnect() waits for."""

    async def main() -> None:
        processing, stopped = asyncio.Event(), asyncio.Event()

        async def work(device: AsyncDevice) -> None:
            async with device.client.messages("t") as messages:
                async for _message in messages:
                    processing.set()
                    await stopped.wait()
                    if left == "by break":
                        break

        async with connected() as (device, peer):
            working = asyncio.create_task(work(device))
            await asyncio.to_thread(peer.expect_subscribe)
            for identifier in (1, 2, 3):
                peer.publish("t", b"%d" % identifier, 1, identifier)
            await until(lambda: processing.is_set() and waiting(device, "t") == 2)
            if queued:
                device.client.publish_nowait("up", b"", qos=1)
                last = await asyncio.to_thread(peer.expect, PUBLISH)
            task = asyncio.create_task(device.client.disconnect(timeout=60))
            await asyncio.sleep(0)
            if not queued:
                await ending(peer, task)
            stopped.set()
            await working
            if queued:
                assert (await asyncio.to_thread(peer.expect, PUBACK)).packet_id == 1  # and no UNSUBSCRIBE
                await asyncio.to_thread(peer.expect_nothing, 0.02)
                peer.acknowledge(PUBACK, last.packet_id)
                await asyncio.to_thread(peer.expect, DISCONNECT)
                peer.close()
                await task
            peer = await device.start(session_present=True)
            for identifier in (2, 3):
                peer.publish("t", b"%d" % identifier, 1, identifier, dup=True)
            await asyncio.to_thread(peer.expect_nothing, 0.02)
            async with device.client.messages("t") as messages:
                await asyncio.to_thread(peer.expect_subscribe)
                stream = aiter(messages)
                assert [(await anext(stream)).payload for _ in range(2)] == [b"2", b"3"]
                await device.end(peer)

    run(main)
