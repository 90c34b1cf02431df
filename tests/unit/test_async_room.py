"""Publishers that wait for room, where the program runs several event loops one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mqtt_token_client import OutboxFull
from mqtt_token_client.aio.room import Room
from mqtt_token_client.mqtt.session.delivery import Delivery


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
