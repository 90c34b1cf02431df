"""Publishers that wait for room: in their order, on several event loops one after the other, and with a journal."""

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


def test_publishers_wait_in_the_next_run_although_one_waits_for_ever_on_a_closed_loop() -> None:
    waiting: list[Callable[[], None]] = []
    room = Room(waiting.append)
    delivery = Delivery.__new__(Delivery)

    def full() -> Delivery:
        raise OutboxFull("full")

    async def wait() -> asyncio.Task[Delivery]:
        task = asyncio.create_task(room.publish(full))
        await asyncio.sleep(0)
        return task

    async def publish() -> Delivery:
        return await room.publish(lambda: delivery)

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(wait())
    loop.close()
    assert asyncio.run(publish()) is delivery
    task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("places", [1, 2, 3])
def test_none_overtakes_those_that_wait(places: int, turns: int) -> None:
    """There are places for some of those that wait, and another one comes some turns of the event loop later."""
    free = 0
    order: list[int] = []
    waiting: list[Callable[[], None]] = []
    room = Room(waiting.append)

    async def publish(number: int) -> None:
        def attempt() -> Delivery:
            nonlocal free
            if not free:
                raise OutboxFull("full")
            free -= 1
            order.append(number)
            return Delivery.__new__(Delivery)

        await room.publish(attempt)

    async def main() -> None:
        nonlocal free
        publishers = [asyncio.create_task(publish(number)) for number in range(4)]
        await asyncio.sleep(0)
        free = places
        waiting.pop()()
        for _ in range(turns):
            await asyncio.sleep(0)
        publishers.append(asyncio.create_task(publish(4)))
        while len(order) < 5:
            await asyncio.sleep(0)
            if not free and waiting:
                free = places
                waiting.pop()()
        await asyncio.gather(*publishers)
        assert order == [0, 1, 2, 3, 4]

    asyncio.run(main())
