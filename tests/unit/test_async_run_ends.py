"""asyncio.run that ends while a client is being disconnected: it cancels every task, those of the library as well."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from tests.unit.async_device import AsyncDevice, close_after_disconnect, run
from tests.unit.packets import PUBLISH
from tests.unit.scripted_broker import PATIENCE


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("queued", [False, True])
def test_the_client_is_disconnected_and_connects_in_the_next_run(turns: int, queued: bool) -> None:
    """``turns`` of the loop between the end of the program and that of the block, ``queued``: a message waits."""
    device = AsyncDevice()
    tasks: list[asyncio.Task[None]] = []
    brokers: list[threading.Thread] = []

    async def block() -> None:
        timeout = 0.0  # if it is cancelled before that
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            timeout = 1000.0
        finally:
            await device.client.disconnect(timeout)

    async def first() -> None:
        peer = await device.start()
        if queued:
            device.client.publish_nowait("t", b"", qos=1)
            await asyncio.to_thread(peer.expect, PUBLISH)
        brokers.append(threading.Thread(target=close_after_disconnect, args=(peer,)))
        brokers[0].start()
        tasks.append(asyncio.create_task(block()))
        await asyncio.sleep(0)

    async def second() -> None:
        peer = await device.start(session_present=True)
        await device.end(peer)

    with contextlib.closing(device.broker):
        asyncio.run(first())
        assert tasks[0].cancelled()
        assert device.client._core.runtime is None
        run(second)
        brokers[0].join(PATIENCE)
