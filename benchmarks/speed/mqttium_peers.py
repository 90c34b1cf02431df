"""mqttium and zMQTT, asyncio libraries with a codec of their own, each used as its documentation says."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

from benchmarks.speed.asyncio_peers import Asyncio
from benchmarks.speed.place import HOST, TASKS, Acknowledged, Arrived, Place, context


class Mqttium(Asyncio):
    packages: ClassVar[tuple[str, ...]] = ("mqttium",)
    imports: ClassVar[str] = "from mqttium.api import AsyncClient"
    used: ClassVar[str] = (
        "`AsyncClient(…)`, `publish_many()` and the `wait()` of its receipt, `async for message in client.messages()` "
        "(https://mqttium.readthedocs.io/en/stable/); where each message is awaited, `publish()` and `receipt.wait()`"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("rotations",))

    def __init__(self, place: Place, arrived: Arrived) -> None:
        self._place, self._arrived = place, arrived
        self._client = self._make()

    def _make(self, **options: Any) -> Any:
        from mqttium import MQTTProtocolVersion
        from mqttium.api import AsyncClient

        place = self._place
        version = MQTTProtocolVersion.MQTTv5 if place.protocol == 5 else MQTTProtocolVersion.MQTTv311
        return AsyncClient(
            place.name,
            protocol=version,
            username=place.name,
            password=place.token,
            max_unacknowledged_messages=None,  # the others have no limit
            max_unacknowledged_bytes=None,
            **options,
        )

    async def connect(self) -> None:
        await self._client.connect(HOST, self._place.port, ssl=context(self._place.ca))

    async def subscribe(self, topic: str, qos: int) -> None:
        import asyncio

        await self._client.subscribe(topic, qos=qos)
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._client.messages():
            self._arrived(message.payload)

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        import asyncio

        from mqttium.api import PublishMessage

        acknowledged = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(limit or None):
                batch = await self._client.publish_many(PublishMessage(topic, payload, qos=qos) for _ in range(count))
                if limit:
                    await batch.wait()
                acknowledged = batch.submitted - batch.pending_count
        return acknowledged

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        receipt = await self._client.publish(topic, payload, qos=qos)
        await receipt.wait()

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        self._client.publish_nowait(topic, payload, qos=qos).add_done_callback(lambda _: acknowledged())

    async def close(self) -> None:
        await self._client.disconnect()


class MqttiumCallback(Mqttium):
    used: ClassVar[str] = (
        'the same with `message_delivery="callback"` and `on_message` '
        "(https://mqttium.readthedocs.io/en/stable/cookbook/)"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(
        ("publish", "latency", "connect", "import", "hold", "rotations", "queue", "growth")
    )

    def __init__(self, place: Place, arrived: Arrived) -> None:
        self._place = place
        self._client = self._make(message_delivery="callback")
        self._client.on_message = lambda message: arrived(message.payload)

    async def subscribe(self, topic: str, qos: int) -> None:
        await self._client.subscribe(topic, qos=qos)


class Zmqtt(Asyncio):
    packages: ClassVar[tuple[str, ...]] = ("zmqtt",)
    imports: ClassVar[str] = "import zmqtt"
    used: ClassVar[str] = (
        "`async with create_client(…)`, `await client.publish(…)`, `async for message in messages` "
        f"(https://faststream-community.github.io/zMQTT); {TASKS} tasks publish at the same time"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("rotations", "queue"))

    def __init__(self, place: Place, arrived: Arrived) -> None:
        from zmqtt import create_client

        self._arrived = arrived
        self._client: Any = create_client(
            HOST,
            place.port,
            client_id=place.name,
            username=place.name,
            password=place.token,
            tls=context(place.ca) or False,
            version="5.0" if place.protocol == 5 else "3.1.1",
        )

    async def connect(self) -> None:
        await self._client.__aenter__()

    async def subscribe(self, topic: str, qos: int) -> None:
        import asyncio

        from zmqtt import QoS

        messages = await self._client.subscribe(topic, qos=QoS(qos)).__aenter__()
        self._listener = asyncio.create_task(self._listen(messages))

    async def _listen(self, messages: Any) -> None:
        async for message in messages:
            self._arrived(message.payload)

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        return await self._share(topic, payload, qos, count, limit, TASKS if qos else 1)

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        from zmqtt import QoS

        await self._client.publish(topic, payload, qos=QoS(qos))

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        import asyncio

        task = asyncio.create_task(self.publish_one(topic, payload, qos))
        task.add_done_callback(lambda _: acknowledged())

    async def close(self) -> None:
        await self._client.__aexit__(None, None, None)
