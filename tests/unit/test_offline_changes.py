"""Subscriptions that change while the client is offline: however often, nothing piles up until it is connected."""

from __future__ import annotations

import asyncio
import contextlib

from tests.unit.async_device import AsyncDevice, run, until


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
