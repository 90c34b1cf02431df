"""The ways of asyncio libraries to a new token: this library's, and what the users of the others write by hand."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

from benchmarks.rotation.ways import LONG_LIFETIME, PATIENCE, WINDOW, Place
from mqtt_token_client import AsyncTokenClient, Event, Rotated
from tests.integration.traffic import source


class _InAsyncio:
    """A client in an event loop, in a thread of its own, for the threads of the benchmark."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._await(self._open())

    def _await(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    async def _open(self) -> None:
        raise NotImplementedError

    async def _end(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._await(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class LibraryInAsyncio(_InAsyncio):
    """This library with its defaults."""

    async def _open(self) -> None:
        place = self._place
        place.oidc.config(at=LONG_LIFETIME)
        self._rotated = asyncio.Event()
        self._client = AsyncTokenClient(
            f"mqtts://127.0.0.1:{place.port}",
            source(place.oidc),
            client_id=place.name,
            tls=place.tls,
            max_inflight=WINDOW,
            on_event=self._on_event,
        )
        self._client.subscribe(place.topics, lambda message: place.arrived(message.topic, message.payload))
        if not await self._client.connect():
            raise RuntimeError("this library did not connect")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Rotated):
            self._rotated.set()

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        self._loop.call_soon_threadsafe(lambda: self._client.publish_nowait(topic, payload, qos=qos))

    def rotate(self) -> None:
        self._await(self._rotate())

    async def _rotate(self) -> None:
        self._rotated.clear()
        await self._client.rotate()
        await self._rotated.wait()

    async def _end(self) -> None:
        await self._client.disconnect()


class Gmqtt(_InAsyncio):
    """Disconnects, gets a new password and connects again, in its event loop; meanwhile the application publishes.

    It keeps messages of QoS 1 while it is not connected, and sends them afterwards. connect() returns once they
    are acknowledged. When a TLS connection closes with messages in flight, its own reconnect may interfere.
    """

    async def _open(self) -> None:
        from gmqtt import Client

        self._client = Client(self._place.name, clean_session=False, session_expiry_interval=LONG_LIFETIME)
        self._client.on_message = self._on_message
        await self._connect(self._place.token(LONG_LIFETIME))
        subscribed = asyncio.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.subscribe(self._place.topics, 1)
        await subscribed.wait()

    def _on_message(self, _client: object, topic: str, payload: bytes, _qos: int, _properties: object) -> int:
        self._place.arrived(topic, payload)
        return 0

    async def _connect(self, token: str) -> None:
        self._client.set_auth_credentials(self._place.name, token)
        await self._client.connect("127.0.0.1", self._place.port, ssl=self._place.tls)

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        self._loop.call_soon_threadsafe(self._client.publish, topic, payload, qos)

    def rotate(self) -> None:
        self._await(self._swap(self._place.token(LONG_LIFETIME)))

    async def _swap(self, token: str) -> None:
        await self._disconnect()
        await self._connect(token)

    async def _disconnect(self) -> None:
        with suppress(OSError):  # when a message arrives after TLS was closed; its own reconnect() ignores it too
            await self._client.disconnect()

    async def _end(self) -> None:
        await self._disconnect()


class _Held(_InAsyncio):
    """A library whose client takes its password once: a new client for each token, and the session that the broker has
    kept. The application holds publish() meanwhile, and begins when the messages before are acknowledged.
    """

    async def _open(self) -> None:
        self._gate, self._sending = asyncio.Event(), set[asyncio.Task[None]]()
        self._gate.set()
        await self._connect(self._place.token(LONG_LIFETIME), first=True)

    async def _connect(self, token: str, *, first: bool) -> None:
        """Make a client and connect it; subscribe if it is the first one."""
        raise NotImplementedError

    async def _disconnect(self) -> None:
        raise NotImplementedError

    async def _send(self, topic: str, payload: bytes, qos: int) -> None:
        """Publish, and return when it is acknowledged."""
        raise NotImplementedError

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        asyncio.run_coroutine_threadsafe(self._publish(topic, payload, qos), self._loop)

    async def _publish(self, topic: str, payload: bytes, qos: int) -> None:
        await self._gate.wait()
        task = asyncio.create_task(self._send(topic, payload, qos))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def rotate(self) -> None:
        self._await(self._swap(self._place.token(LONG_LIFETIME)))

    async def _swap(self, token: str) -> None:
        self._gate.clear()
        await asyncio.gather(*self._sending, return_exceptions=True)  # what failed is lost if it does not arrive
        await self._disconnect()
        await self._connect(token, first=False)
        self._gate.set()

    async def _end(self) -> None:
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._disconnect()


class Mqttium(_Held):
    """Subscribes once; its store has what is in flight."""

    async def _connect(self, token: str, *, first: bool) -> None:
        from mqttium import MQTTProtocolVersion
        from mqttium.api import AsyncClient, Properties

        place = self._place
        self._client: Any = AsyncClient(
            place.name,
            protocol=MQTTProtocolVersion.MQTTv5,
            clean_start=False,
            username=place.name,
            password=token,
            connect_properties=Properties({"session_expiry_interval": LONG_LIFETIME}),
        )
        await self._client.connect("127.0.0.1", place.port, ssl=place.tls)
        if first:
            await self._client.subscribe(place.topics, qos=1)
        self._listener = asyncio.create_task(self._listen(self._client))

    async def _listen(self, client: Any) -> None:
        async for message in client.messages():
            self._place.arrived(message.topic, message.payload)

    async def _disconnect(self) -> None:
        await self._client.disconnect()

    async def _send(self, topic: str, payload: bytes, qos: int) -> None:
        receipt = await self._client.publish(topic, payload, qos=qos)
        await receipt.wait()


class Zmqtt(_Held):
    """Detaches its subscription before it disconnects, and subscribes again, as its documentation says."""

    async def _connect(self, token: str, *, first: bool) -> None:  # noqa: ARG002 - it always subscribes
        from zmqtt import QoS, create_client

        place = self._place
        self._client: Any = create_client(
            "127.0.0.1",
            place.port,
            client_id=place.name,
            clean_session=False,
            session_expiry_interval=LONG_LIFETIME,
            username=place.name,
            password=token,
            tls=place.tls,
            version="5.0",
        )
        await self._client.connect()
        self._messages = self._client.subscribe(place.topics, qos=QoS.AT_LEAST_ONCE)
        await self._messages.start()
        self._listener = asyncio.create_task(self._listen(self._messages))

    async def _listen(self, messages: Any) -> None:
        async for message in messages:
            self._place.arrived(message.topic, message.payload)

    async def _disconnect(self) -> None:
        self._listener.cancel()
        await self._messages.detach()
        await self._client.disconnect()

    async def _send(self, topic: str, payload: bytes, qos: int) -> None:
        from zmqtt import QoS

        await self._client.publish(topic, payload, qos=QoS(qos))


class Aiomqtt(_Held):
    """Subscribes once."""

    async def _connect(self, token: str, *, first: bool) -> None:
        import logging

        from aiomqtt import Client, ProtocolVersion

        logging.getLogger("mqtt").setLevel(logging.ERROR)  # it warns of more than ten publishing at the same time
        place = self._place
        self._client: Any = Client(
            "127.0.0.1",
            place.port,
            username=place.name,
            password=token,
            identifier=place.name,
            clean_session=False,
            protocol=ProtocolVersion.V311,
            tls_context=place.tls,
            timeout=PATIENCE,
            max_inflight_messages=WINDOW,
        )
        await self._client.__aenter__()
        if first:
            await self._client.subscribe(place.topics, 1)
        self._listener = asyncio.create_task(self._listen(self._client))

    async def _listen(self, client: Any) -> None:
        async for message in client.messages:
            self._place.arrived(str(message.topic), message.payload)

    async def _disconnect(self) -> None:
        self._listener.cancel()
        await self._client.__aexit__(None, None, None)

    async def _send(self, topic: str, payload: bytes, qos: int) -> None:
        await self._client.publish(topic, payload, qos)
