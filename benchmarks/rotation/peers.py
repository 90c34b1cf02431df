"""The ways of gmqtt and awscrt to a new token, which neither supports by itself: what their users write by hand."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from benchmarks.rotation.ways import LONG_LIFETIME, PATIENCE, Place

PACKAGES = ("awscrt", "gmqtt")


class Gmqtt:
    """Disconnects, gets a new password and connects again, in its event loop; meanwhile the application publishes.

    It keeps messages of QoS 1 while it is not connected, and sends them afterwards. connect() returns once they
    are acknowledged. When a TLS connection closes with messages in flight, its own reconnect may interfere.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._await(self._open())

    def _await(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

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
        with suppress(
            OSError
        ):  # raised when a message arrives after TLS was closed; its own reconnect() ignores it too
            await self._client.disconnect()

    def close(self) -> None:
        self._await(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class AwsCrt:
    """A second client with the new password once the first has stopped, since its CONNECT cannot be changed.

    The application holds publish() meanwhile, and stops the first client when all its messages are acknowledged: the
    others would be lost with it.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._turn = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        self._start(place.token(LONG_LIFETIME))

        from awscrt import mqtt5

        subscription = mqtt5.Subscription(place.topics, mqtt5.QoS.AT_LEAST_ONCE)
        self._client.subscribe(mqtt5.SubscribePacket([subscription])).result(PATIENCE)

    def _start(self, token: str) -> None:
        from awscrt import io, mqtt5

        options = io.TlsContextOptions()
        options.override_default_trust_store_from_path(ca_filepath=self._place.ca)
        connected, self._stopped = threading.Event(), threading.Event()
        stopped = self._stopped
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                "127.0.0.1",
                self._place.port,
                tls_ctx=io.ClientTlsContext(options),
                session_behavior=mqtt5.ClientSessionBehaviorType.REJOIN_ALWAYS,
                connect_options=mqtt5.ConnectPacket(
                    keep_alive_interval_sec=60,
                    client_id=self._place.name,
                    username=self._place.name,
                    password=token,
                    session_expiry_interval_sec=LONG_LIFETIME,
                ),
                on_publish_callback_fn=lambda data: self._place.arrived(
                    data.publish_packet.topic, data.publish_packet.payload
                ),
                on_lifecycle_event_connection_success_fn=lambda _: connected.set(),
                on_lifecycle_event_stopped_fn=lambda _: stopped.set(),
            )
        )
        self._client.start()
        if not connected.wait(PATIENCE):
            raise RuntimeError("awscrt did not connect")

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        from awscrt import mqtt5

        with self._turn:
            future = self._client.publish(mqtt5.PublishPacket(payload=payload, qos=mqtt5.QoS(qos), topic=topic))
            self._waiting.add(future)
            future.add_done_callback(self._waiting.discard)

    def rotate(self) -> None:
        token = self._place.token(LONG_LIFETIME)
        with self._turn:
            for future in list(self._waiting):
                with suppress(Exception):  # a message that failed is counted as lost if it does not arrive
                    future.result(PATIENCE)
            self.close()
            self._start(token)

    def close(self) -> None:
        self._client.stop()
        self._stopped.wait(PATIENCE)
