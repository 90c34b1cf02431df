"""Publishers that wait for room: on several event loops one after the other, and with a journal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mqtt_token_client import OutboxFull, open_journal
from mqtt_token_client.aio.room import Room
from mqtt_token_client.mqtt.session.delivery import Delivery
from tests.unit.async_device import AsyncDevice, run, until
from tests.unit.packets import PUBACK, PUBLISH


def test_publishers_wait_for_room_in_the_next_run_as_well() -> None:
    """The lock that orders them must not stay with the first event loop."""
    full = True
    waiting: list[Callable[[], None]] = []
    room = Room(waiting.append)
    delivery = Delivery.__new__(Delivery)

    def publish() -> Delivery:
        if full:
            raise OutboxFull("full")
        return delivery

    async def main() -> None:
        nonlocal full
        full = True
        waiting.clear()
        publishers = [asyncio.create_task(room.publish(publish)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        full = False
        for function in waiting:
            function()
        assert await asyncio.gather(*publishers) == [delivery, delivery]

    for _ in range(2):
        asyncio.run(main())


def test_with_a_journal_messages_of_qos_0_wait_for_room_in_memory_and_hold_up_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_token_client.mqtt.session.recorded_queue._MAX_IN_MEMORY", 10)

    async def main() -> None:
        journal = open_journal(tmp_path / "journal", commit_every=0)
        device = AsyncDevice(journal=journal)
        client = device.client
        with contextlib.closing(journal), contextlib.closing(device.broker):
            await client.connect(0)  # nobody answers CONNECT yet
            for number in range(10):
                client.publish_nowait("t", number)
            waiting = [asyncio.create_task(client.publish("t", number)) for number in (10, 11)]
            await asyncio.sleep(0)
            stored = asyncio.create_task(client.publish("alarm", b"", qos=1))
            await until(lambda: client.stats.queued == 11)
            with pytest.raises(OutboxFull):
                client.publish_nowait("t", b"")
            peer = await device.answer()
            found = [await asyncio.to_thread(peer.expect, PUBLISH) for _ in range(13)]
            assert [int(one.payload) for one in found if not one.qos] == list(range(12))
            (alarm,) = (one for one in found if one.qos)
            peer.acknowledge(PUBACK, alarm.packet_id)
            await asyncio.gather(*waiting, stored)
            await device.end(peer)

    run(main)
