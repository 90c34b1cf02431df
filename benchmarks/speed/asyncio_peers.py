"""The MQTT libraries that run in an event loop, each used as its documentation says."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from benchmarks.speed.place import HOST, PATIENCE, TASKS, Acknowledged, Arrived, Peer, Place, context

_Result = TypeVar("_Result")


class Asyncio(Peer):
    """A library that runs in an event loop."""

    @staticmethod
    def run(job: Coroutine[Any, Any, _Result]) -> _Result:
        import asyncio

        return asyncio.run(job)

    async def wait_for(self, event: threading.Event, limit: float) -> bool:
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(None, event.wait, limit)

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    async def wait_for_line(self) -> None:
        import asyncio

        loop, line = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sys.stdin, line.set)
        await line.wait()
        loop.remove_reader(sys.stdin)
        sys.stdin.readline()

    async def publish_each(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        return await self._share(topic, payload, qos, count, limit, TASKS)

    async def _share(self, topic: str, payload: bytes, qos: int, count: int, limit: float, tasks: int) -> int:
        """Let so many tasks publish, each of which awaits one message after the other; returns how many went."""
        import asyncio

        published = 0
        left = iter(range(count))

        async def work() -> None:
            nonlocal published
            for _ in left:
                await self.publish_one(topic, payload, qos)
                published += 1

        workers = [asyncio.create_task(work()) for _ in range(tasks)]
        done, late = await asyncio.wait(workers, timeout=limit)
        for worker in late:
            worker.cancel()
        for worker in done:
            worker.result()
        return published


class Gmqtt(Asyncio):
    packages: ClassVar[tuple[str, ...]] = ("gmqtt",)
    imports: ClassVar[str] = "import gmqtt"
    used: ClassVar[str] = (
        "`Client(…)`, `on_message` and `publish()` (https://github.com/wialon/gmqtt#getting-started); all is "
        "acknowledged when its `persistent_storage` is empty"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("rotations",))

    def __init__(self, place: Place, arrived: Arrived) -> None:
        import asyncio

        from gmqtt import Client
        from gmqtt.storage import PersistentStorage

        acknowledged: dict[int, Acknowledged] = {}

        class Storage(PersistentStorage):  # type: ignore[misc]  # it has no types
            """Reports acknowledgements, which gmqtt itself does not."""

            last = 0

            def push_message(self, mid: int, raw_package: bytes) -> None:
                self.last = mid
                super().push_message(mid, raw_package)

            def remove_message_by_mid(self, mid: int) -> None:
                super().remove_message_by_mid(mid)
                if mid in acknowledged:
                    acknowledged.pop(mid)()

        self._place, self._acknowledged, self._storage = place, acknowledged, Storage()
        self._client = Client(place.name, persistent_storage=self._storage)
        self._client.set_auth_credentials(place.name, place.token)
        self._subscribed = asyncio.Event()

        def on_message(_client: object, _topic: str, payload: bytes, _qos: int, _properties: object) -> int:
            arrived(payload)
            return 0

        self._client.on_message = on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()

    async def connect(self) -> None:
        place = self._place
        await self._client.connect(HOST, place.port, ssl=context(place.ca) or False, version=place.protocol)

    async def subscribe(self, topic: str, qos: int) -> None:
        self._subscribed.clear()
        self._client.subscribe(topic, qos)
        await self._subscribed.wait()

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        import asyncio

        began = time.monotonic()
        publish = self._client.publish
        for _ in range(count):
            publish(topic, payload, qos)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._storage.wait_empty(), max(0.001, began + limit - time.monotonic()))
        return count - len(self._storage.get_all())

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        self._client.publish(topic, payload, qos)
        self._acknowledged[self._storage.last] = acknowledged

    async def close(self) -> None:
        self._storage.clear()
        await self._client.disconnect()


class Aiomqtt(Asyncio):
    packages: ClassVar[tuple[str, ...]] = ("aiomqtt",)
    imports: ClassVar[str] = "import aiomqtt"
    used: ClassVar[str] = (
        "`async with Client(…)`, `await client.publish(…)`, `async for message in client.messages` "
        "(https://aiomqtt.bo3hm.com); 20 tasks publish at the same time, as many as it lets be in flight"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("rotations", "queue"))

    def __init__(self, place: Place, arrived: Arrived) -> None:
        import logging

        from aiomqtt import Client, ProtocolVersion

        logging.getLogger("mqtt").setLevel(logging.ERROR)  # it warns of more than ten publishing at the same time
        self._arrived = arrived
        self._client = Client(
            HOST,
            place.port,
            username=place.name,
            password=place.token,
            identifier=place.name,
            protocol=ProtocolVersion(place.protocol),
            tls_context=context(place.ca),
            timeout=PATIENCE,
        )

    async def connect(self) -> None:
        await self._client.__aenter__()

    async def subscribe(self, topic: str, qos: int) -> None:
        import asyncio

        await self._client.subscribe(topic, qos)
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._client.messages:
            self._arrived(message.payload)

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        return await self._share(topic, payload, qos, count, limit, TASKS if qos else 1)

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        await self._client.publish(topic, payload, qos)

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        import asyncio

        task = asyncio.create_task(self._client.publish(topic, payload, qos))
        task.add_done_callback(lambda _: acknowledged())

    async def close(self) -> None:
        await self._client.__aexit__(None, None, None)
