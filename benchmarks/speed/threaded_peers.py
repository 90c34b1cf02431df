"""The MQTT libraries with network threads of their own, each used as its documentation says."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from benchmarks.bare_client import BareClient
from benchmarks.speed.place import HOST, PATIENCE, Acknowledged, Arrived, Peer, Place, context

_Result = TypeVar("_Result")


class Threaded(Peer):
    """A library with a network thread of its own."""

    @staticmethod
    def run(job: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            job.send(None)
        except StopIteration as end:
            result: _Result = end.value
            return result
        raise RuntimeError("a job with threads has nothing to await")

    async def wait_for(self, event: threading.Event, limit: float) -> bool:
        return event.wait(limit)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def wait_for_line(self) -> None:
        sys.stdin.readline()


class AwsCrt(Threaded):
    packages: ClassVar[tuple[str, ...]] = ("awscrt",)
    imports: ClassVar[str] = "import awscrt.mqtt5"
    used: ClassVar[str] = (
        "`mqtt5.Client`, `publish()` and the `Future` of each (https://awslabs.github.io/aws-crt-python/api/mqtt5.html)"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("QoS 2", "MQTT 3.1.1", "rotations"))

    def __init__(self, place: Place, arrived: Arrived) -> None:
        from awscrt import io, mqtt5

        context = None
        if place.ca is not None:
            options = io.TlsContextOptions()
            options.override_default_trust_store_from_path(ca_filepath=place.ca)
            context = io.ClientTlsContext(options)
        self._connected, self._stopped = threading.Event(), threading.Event()
        self._mqtt5 = mqtt5
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                HOST,
                place.port,
                tls_ctx=context,
                connect_options=mqtt5.ConnectPacket(
                    keep_alive_interval_sec=60, client_id=place.name, username=place.name, password=place.token
                ),
                on_publish_callback_fn=lambda data: arrived(data.publish_packet.payload),
                on_lifecycle_event_connection_success_fn=lambda _: self._connected.set(),
                on_lifecycle_event_stopped_fn=lambda _: self._stopped.set(),
            )
        )

    async def connect(self) -> None:
        self._client.start()
        if not self._connected.wait(PATIENCE):
            raise RuntimeError("not connected")

    async def subscribe(self, topic: str, qos: int) -> None:
        subscription = self._mqtt5.Subscription(topic, self._mqtt5.QoS(qos))
        self._client.subscribe(self._mqtt5.SubscribePacket([subscription])).result(PATIENCE)

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        end = time.monotonic() + limit
        publish, packet, level = self._client.publish, self._mqtt5.PublishPacket, self._mqtt5.QoS(qos)
        futures = [publish(packet(payload=payload, qos=level, topic=topic)) for _ in range(count)]
        with suppress(TimeoutError):
            for future in futures:
                future.result(max(0.0, end - time.monotonic()))
        return sum(future.done() for future in futures)

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        packet = self._mqtt5.PublishPacket(payload=payload, qos=self._mqtt5.QoS(qos), topic=topic)
        self._client.publish(packet).add_done_callback(lambda _: acknowledged())

    async def close(self) -> None:
        self._client.stop()
        self._stopped.wait(PATIENCE)


class Bare(Threaded):
    """No library: what a connection costs by itself, and the TLS library for it."""

    packages: ClassVar[tuple[str, ...]] = ()
    imports: ClassVar[str] = "import socket"
    used: ClassVar[str] = "the sockets of the standard library alone: CONNECT, CONNACK, and nothing more"
    lacks: ClassVar[frozenset[str]] = frozenset(
        ("publish", "receive", "latency", "connect", "import", "hold", "rotations", "queue")
    )

    def __init__(self, place: Place, arrived: Arrived) -> None:  # noqa: ARG002 - every peer's
        self._place = place

    async def connect(self) -> None:
        self._client = BareClient(self._place.port, self._place.name, context(self._place.ca))

    async def close(self) -> None:
        self._client.close()


class Libmosquitto(Threaded):
    """Only its name and what it lacks: the adapter is a program of its own, libmosquitto.c."""

    packages: ClassVar[tuple[str, ...]] = ()
    imports: ClassVar[str] = ""
    used: ClassVar[str] = (
        "`mosquitto_connect()`, `mosquitto_loop_start()`, `mosquitto_publish()` and callbacks, in C, with TCP_NODELAY "
        "(https://mosquitto.org/api/files/mosquitto-h.html)"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("latency", "connect", "import", "hold", "rotations", "growth"))

    def __init__(self, place: Place, arrived: Arrived) -> None:
        raise NotImplementedError

    async def connect(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
