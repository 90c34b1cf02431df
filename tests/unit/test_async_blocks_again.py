"""A block of messages() that is entered again after an exception: the time for which it was kept does not end it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from mqtt_token_client.aio import inboxes
from tests.unit.async_device import AsyncDevice, connected, run, until, waiting
from tests.unit.packets import PUBACK
from tests.unit.scripted_broker import Peer

_KEPT = 1000.0  # seconds; they pass when the test says so


@pytest.fixture
def pass_the_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it in place of waiting until the time is over for which blocks are kept."""
    monkeypatch.setattr(inboxes, "KEPT_SECONDS", _KEPT)
    timers: list[asyncio.TimerHandle] = []
    call_later = asyncio.BaseEventLoop.call_later

    def remember(
        loop: asyncio.BaseEventLoop, delay: float, callback: Callable[..., object], *arguments: object
    ) -> object:
        timer = call_later(loop, delay, callback, *arguments)
        if delay == _KEPT:
            timers.append(timer)
        return timer

    def fire() -> None:
        assert timers
        for timer in timers:
            if not timer.cancelled():
                timer._run()

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", remember)
    return fire


async def receives_two(device: AsyncDevice, peer: Peer, pass_the_time: Callable[[], None]) -> None:
    """The block is entered again, the time passes, and two messages that arrive later reach the loop."""
    async with device.client.messages("t") as messages:
        await asyncio.to_thread(peer.expect_subscribe)
        pass_the_time()
        peer.publish("t", b"1", 1, 1)
        peer.publish("t", b"2", 1, 2)
        stream = aiter(messages)
        assert [(await anext(stream)).payload for _ in range(2)] == [b"1", b"2"]
        assert (await asyncio.to_thread(peer.expect, PUBACK)).packet_id == 1  # and no UNSUBSCRIBE before it


def test_a_retry_that_calls_connect_again_keeps_the_block(pass_the_time: Callable[[], None]) -> None:
    async def main() -> None:
        async with connected() as (device, peer):
            with contextlib.suppress(ZeroDivisionError):
                async with device.client.messages("t"):
                    await asyncio.to_thread(peer.expect_subscribe)
                    raise ZeroDivisionError
            assert await device.client.connect()  # it is connected already
            await receives_two(device, peer, pass_the_time)

    run(main)


def test_a_retry_that_calls_connect_again_and_again_does_not_keep_the_block_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inboxes, "KEPT_SECONDS", 0.05)

    async def main() -> None:
        async with connected() as (device, peer):

            async def retry() -> None:
                while True:
                    assert await device.client.connect()
                    await asyncio.sleep(0)

            with contextlib.suppress(ZeroDivisionError):
                async with device.client.messages("t"):
                    await asyncio.to_thread(peer.expect_subscribe)
                    raise ZeroDivisionError
            retrying = asyncio.create_task(retry())
            await asyncio.to_thread(peer.expect_unsubscribe)
            retrying.cancel()
            await asyncio.wait([retrying])

    run(main)


def test_a_block_that_is_left_after_the_next_connect_keeps_the_one_after_it(pass_the_time: Callable[[], None]) -> None:
    async def main() -> None:
        async with connected() as (device, peer):
            with contextlib.suppress(ZeroDivisionError):
                async with device.client.messages("t"):
                    await asyncio.to_thread(peer.expect_subscribe)
                    await device.end(peer)
                    peer = await device.start(session_present=True)
                    raise ZeroDivisionError
            await receives_two(device, peer, pass_the_time)
            await device.end(peer)

    run(main)


def test_a_block_that_unsubscribe_has_ended_leaves_the_one_after_it_alone() -> None:
    async def main() -> None:
        async with connected() as (device, peer):
            async with device.client.messages("t"):
                await asyncio.to_thread(peer.expect_subscribe)
                device.client.unsubscribe("t")
                await asyncio.to_thread(peer.expect_unsubscribe)
                with contextlib.suppress(ZeroDivisionError):
                    async with device.client.messages("t"):
                        await asyncio.to_thread(peer.expect_subscribe)
                        peer.publish("t", b"1", 1, 1)
                        await until(lambda: waiting(device, "t") == 1)
                        raise ZeroDivisionError
            async with device.client.messages("t") as messages:
                assert (await anext(aiter(messages))).payload == b"1"

    run(main)
