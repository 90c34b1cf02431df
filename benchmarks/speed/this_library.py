"""This library, by its two interfaces."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ClassVar

from benchmarks.speed.asyncio_peers import Asyncio
from benchmarks.speed.place import HOST, PATIENCE, Acknowledged, Arrived, Place, context
from benchmarks.speed.threaded_peers import Threaded

_UNLIMITED = 1_000_000  # the others have no limit


def _arguments(place: Place) -> tuple[str, Any, dict[str, Any]]:
    """What both constructors are given."""
    scheme = "mqtt" if place.ca is None else "mqtts"
    options = {
        "client_id": place.name,
        "keepalive": 60,
        "protocol": place.protocol,
        "session_expiry": 3600 if place.issuer else 0,
        "tls": context(place.ca),
        "max_queued": _UNLIMITED,
    }
    return f"{scheme}://{HOST}:{place.port}", _source(place), options


def _source(place: Place) -> Any:
    from mqtt_token_client import ClientCredentials, Token

    if place.issuer:
        issuer = place.issuer
        return ClientCredentials(
            token_endpoint=issuer["endpoint"],
            client_id=issuer["client_id"],
            client_secret=issuer["client_secret"],
            scope=issuer["scope"],
        )

    class Source:
        def fetch(self, _previous: Token | None) -> Token:
            return Token(place.token, 86_400)

    return Source()


class ThisLibrary(Threaded):
    packages: ClassVar[tuple[str, ...]] = ("mqtt-token-client",)
    imports: ClassVar[str] = "from mqtt_token_client import ClientCredentials, TokenClient"
    used: ClassVar[str] = "`TokenClient(…)`, `publish()`, and `wait()` for each `Delivery`"

    def __init__(self, place: Place, arrived: Arrived) -> None:
        from mqtt_token_client import TokenClient

        url, source, options = _arguments(place)
        self._rotated: SimpleQueue[object] = SimpleQueue()
        self._client = TokenClient(url, source, **{**options, **self._more(place)}, on_event=self._on_event)
        self._arrived = arrived

    def _more(self, place: Place) -> dict[str, Any]:  # noqa: ARG002 - for those with a journal
        """Arguments that are added, or replace others."""
        return {}

    def _on_event(self, event: object) -> None:
        from mqtt_token_client import Rotated

        if isinstance(event, Rotated):
            self._rotated.put(event)

    async def connect(self) -> None:
        if not self._client.connect(PATIENCE):
            raise RuntimeError("not connected")

    async def subscribe(self, topic: str, qos: int) -> None:
        arrived = self._arrived
        self._client.subscribe(topic, lambda message: arrived(message.payload), qos=qos)
        time.sleep(0.1)  # no event reports SUBACK

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        end = time.monotonic() + limit
        publish = self._client.publish
        deliveries = [publish(topic, payload, qos=qos) for _ in range(count)]
        if qos:
            with suppress(TimeoutError):
                for delivery in deliveries:
                    delivery.wait(max(0.0, end - time.monotonic()))
        return sum(delivery.done for delivery in deliveries) if qos else count

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        self._client.publish(topic, payload, qos=qos).add_done_callback(lambda _: acknowledged())

    async def rotate(self) -> None:
        self._client.rotate()
        self._rotated.get(timeout=PATIENCE)

    async def close(self) -> None:
        self._client.disconnect(0)


class ThisLibraryInAsyncio(Asyncio):
    packages: ClassVar[tuple[str, ...]] = ("mqtt-token-client",)
    imports: ClassVar[str] = "from mqtt_token_client import AsyncTokenClient, ClientCredentials"
    used: ClassVar[str] = (
        "`AsyncTokenClient(…)`, `publish_nowait()` and `await` for each `Delivery`, `async for message in messages`; "
        "where each message is awaited, `await client.publish(…)`"
    )

    def __init__(self, place: Place, arrived: Arrived) -> None:
        import asyncio

        from mqtt_token_client import AsyncTokenClient

        url, source, options = _arguments(place)
        self._rotated = asyncio.Event()
        self._client = AsyncTokenClient(url, source, **options, on_event=self._on_event)
        self._arrived = arrived
        self._listener: asyncio.Task[None] | None = None

    def _on_event(self, event: object) -> None:
        from mqtt_token_client import Rotated

        if isinstance(event, Rotated):
            self._rotated.set()

    async def connect(self) -> None:
        if not await self._client.connect(PATIENCE):
            raise RuntimeError("not connected")

    async def subscribe(self, topic: str, qos: int) -> None:
        import asyncio

        self._listener = asyncio.create_task(self._listen(topic, qos))
        await asyncio.sleep(0.1)  # no event reports SUBACK

    async def _listen(self, topic: str, qos: int) -> None:
        async with self._client.messages(topic, qos=qos, queue=_UNLIMITED) as messages:
            async for message in messages:
                self._arrived(message.payload)

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        import asyncio

        publish = self._client.publish_nowait
        deliveries = [publish(topic, payload, qos=qos) for _ in range(count)]
        if not qos:
            return count
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                for delivery in deliveries:
                    await delivery
        return sum(delivery.done for delivery in deliveries)

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        await self._client.publish(topic, payload, qos=qos)

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        self._client.publish_nowait(topic, payload, qos=qos).add_done_callback(lambda _: acknowledged())

    async def rotate(self) -> None:
        self._rotated.clear()
        await self._client.rotate()
        await self._rotated.wait()

    async def close(self) -> None:
        await self._client.disconnect(0)


class HandlerInAsyncio(ThisLibraryInAsyncio):
    used: ClassVar[str] = "`AsyncTokenClient(…)` with a plain function as the handler of `subscribe()`"
    lacks: ClassVar[frozenset[str]] = frozenset(
        ("publish", "latency", "connect", "import", "hold", "rotations", "queue", "growth")
    )

    async def subscribe(self, topic: str, qos: int) -> None:
        import asyncio

        arrived = self._arrived
        self._client.subscribe(topic, lambda message: arrived(message.payload), qos=qos, queue=_UNLIMITED)
        await asyncio.sleep(0.1)  # no event reports SUBACK
