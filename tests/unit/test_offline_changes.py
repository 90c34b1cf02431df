"""Subscriptions that change while the client is offline: however often, nothing piles up until it is connected."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from tests.unit.async_device import AsyncDevice, run, until
from tests.unit.device import Device, Make
from tests.unit.journals import disconnect


def test_blocks_that_are_entered_and_left_offline_leave_no_change_waiting() -> None:
    async def main() -> None:
        device = AsyncDevice()
        subscriptions = device.client._core.session.subscriptions
        with contextlib.closing(device.broker):
            await device.client.connect(0)  # nobody answers CONNECT yet
            for _ in range(100):
                async with device.client.messages("left"):
                    pass
            async with device.client.messages("t"):
                await until(lambda: not subscriptions._changes)
                peer = await device.answer(session_present=True)
                assert set((await asyncio.to_thread(peer.expect_subscribe)).filters) == {"t"}
                assert set((await asyncio.to_thread(peer.expect_unsubscribe)).filters) == {"left"}
                await device.end(peer)

    run(main)


def change_often(device: Device) -> int:
    """Subscribe and unsubscribe, and return how many changes wait."""
    for _ in range(100):
        device.client.subscribe("left", print)
        device.client.unsubscribe("left")
    device.client.subscribe("t", print)
    return len(device.client._core.session.subscriptions._changes)


def test_changes_before_connect_and_after_disconnect_do_not_wait_for_a_connection(
    make_in_real_time: Make, pool: ThreadPoolExecutor
) -> None:
    device = make_in_real_time(5)
    for _ in range(2):
        assert change_often(device) == 0
        peer = device.start(session_present=True)
        assert set(peer.expect_subscribe().filters) == {"t"}
        assert set(peer.expect_unsubscribe().filters) == {"left"}
        disconnect(device, peer, pool)


def test_changes_on_several_threads_are_all_made_while_the_client_connects_and_disconnects(
    make_in_real_time: Make, pool: ThreadPoolExecutor
) -> None:
    device = make_in_real_time(5)

    def subscribe(thread: int) -> None:
        for number in range(50):
            device.client.subscribe(f"{thread}/{number}", print)
            device.client.unsubscribe(f"{thread}/{number - 1}")

    changing = [pool.submit(subscribe, thread) for thread in range(3)]
    for _ in range(2):
        disconnect(device, device.start(), pool)
    for one in changing:
        one.result(10)
    device.client.connect(timeout=0)
    wanted = device.client._core.session.subscriptions._wanted
    device.until(lambda: set(wanted) == {f"{thread}/49" for thread in range(3)})
