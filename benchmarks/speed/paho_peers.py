"""paho-mqtt, as its documentation uses it, as it is fastest, and as its users change tokens."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

from benchmarks.speed.place import HOST, PATIENCE, Acknowledged, Arrived, Place, context
from benchmarks.speed.threaded_peers import Threaded


class Paho(Threaded):
    packages: ClassVar[tuple[str, ...]] = ("paho-mqtt",)
    imports: ClassVar[str] = "import paho.mqtt.client"
    used: ClassVar[str] = (
        "`loop_start()`, `publish()`, and `on_publish`, which counts "
        "(https://eclipse.dev/paho/files/paho.mqtt.python/html/, “Publishing”)"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("rotations",))
    counts = True

    def __init__(self, place: Place, arrived: Arrived) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self._place = place
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=place.name, protocol=MQTTProtocolVersion(place.protocol)
        )
        client.username_pw_set(place.name, place.token)
        if place.ca is not None:
            client.tls_set_context(context(place.ca))
        self._ready = threading.Semaphore(0)
        client.on_connect = lambda *_: self._ready.release()
        client.on_subscribe = lambda *_: self._ready.release()
        client.on_message = lambda _client, _userdata, message: arrived(message.payload)  # type: ignore[arg-type]  # of paho 2.1 and older a bytearray

    async def connect(self) -> None:
        self._client.connect(HOST, self._place.port)
        self._client.loop_start()
        self._wait()

    def _wait(self) -> None:
        if not self._ready.acquire(timeout=PATIENCE):
            raise RuntimeError(f"no answer within {PATIENCE:g} s")

    async def subscribe(self, topic: str, qos: int) -> None:
        self._client.subscribe(topic, qos)
        self._wait()

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        if not self.counts:
            return await self._publish_and_wait(topic, payload, qos, count, limit)
        published, done = 0, threading.Event()

        def on_publish(*_: object) -> None:
            nonlocal published
            published += 1
            if published == count:
                done.set()

        self._client.on_publish = on_publish
        publish = self._client.publish
        end = time.monotonic() + limit
        for _ in range(count):
            publish(topic, payload, qos)
        done.wait(max(0.0, end - time.monotonic()))
        self._client.on_publish = None
        return published

    async def _publish_and_wait(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        end = time.monotonic() + limit
        publish = self._client.publish
        infos = [publish(topic, payload, qos) for _ in range(count)]
        for info in infos:
            info.wait_for_publish(max(0.0, end - time.monotonic()))
        return sum(info.is_published() for info in infos)

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        if self._client.on_publish is None:
            self._acknowledged: dict[int, Acknowledged] = {}
            self._early: set[int] = set()
            self._client.on_publish = self._published
        mid = self._client.publish(topic, payload, qos).mid
        if mid in self._early:  # on_publish came before publish() returned
            self._early.discard(mid)
            acknowledged()
        else:
            self._acknowledged[mid] = acknowledged

    def _published(self, _client: object, _userdata: object, mid: int, *_: object) -> None:
        acknowledged = self._acknowledged.pop(mid, None)
        if acknowledged is None:
            self._early.add(mid)
        else:
            acknowledged()

    async def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class PahoWithoutCallback(Paho):
    used: ClassVar[str] = "the same with `wait_for_publish()` for each message, and no `on_publish`"
    lacks: ClassVar[frozenset[str]] = frozenset(
        ("receive", "latency", "connect", "import", "hold", "rotations", "growth")
    )
    counts = False


class PahoByHand(Paho):
    """What its users do where tokens expire: fetch a new one, and reconnect."""

    packages: ClassVar[tuple[str, ...]] = ("paho-mqtt", "requests")
    imports: ClassVar[str] = "import paho.mqtt.client, requests"
    used: ClassVar[str] = (
        "`requests.post()` to the token endpoint, then `username_pw_set()`, `disconnect()`, `loop_stop()`, "
        "`reconnect()`, `loop_start()`"
    )
    lacks: ClassVar[frozenset[str]] = frozenset(("publish", "receive", "latency", "connect", "growth"))

    async def connect(self) -> None:
        if self._place.issuer:
            self._client.username_pw_set(self._place.name, self._fetch(self._place.issuer))
        await super().connect()

    @staticmethod
    def _fetch(issuer: dict[str, str]) -> str:
        import requests

        response = requests.post(
            issuer["endpoint"],
            data={"grant_type": "client_credentials", "scope": issuer["scope"]},
            auth=(issuer["client_id"], issuer["client_secret"]),
            timeout=PATIENCE,
        )
        response.raise_for_status()
        return str(response.json()["access_token"])

    async def rotate(self) -> None:
        assert self._place.issuer
        self._client.username_pw_set(self._place.name, self._fetch(self._place.issuer))
        self._client.disconnect()
        self._client.loop_stop()
        self._client.reconnect()
        self._client.loop_start()
        self._wait()
