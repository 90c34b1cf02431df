"""Ways to keep messages on disk until the broker has them: each library as its documentation says, and two by hand."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

from benchmarks.speed.mqttium_peers import Mqttium
from benchmarks.speed.paho_peers import Paho
from benchmarks.speed.place import HOST, PATIENCE, Arrived, Peer, Place
from benchmarks.speed.this_library import ThisLibrary
from benchmarks.speed.threaded_peers import Threaded

SESSION_EXPIRY = 3600  # seconds
_PAHO_WINDOW = 100  # messages that are sent and not acknowledged, as this library's


@dataclass(frozen=True)
class StoredPlace(Place):
    """Where a client connects and keeps its messages.

    Attributes:
        store: a file or folder that only this client uses.
        commit_every: of this library's journal, in seconds.
    """

    store: str = ""
    commit_every: float = 1.0


class Keeps(Peer):
    """A client that keeps messages.

    Attributes:
        survives: what a message survives once it is stored, by the design of the store.
    """

    survives: ClassVar[str]

    async def fill(self, topic: str, payloads: Iterable[bytes], expiry: int) -> None:
        """Publish these messages at QoS 1 while the broker does not answer; return when all are stored. ``expiry`` is
        their Message Expiry Interval, 0 for none.
        """
        raise NotImplementedError


class Journal(ThisLibrary, Keeps):
    used: ClassVar[str] = "`TokenClient(…, journal=open_journal(…))`"
    survives: ClassVar[str] = "a power cut"

    def _more(self, place: Place) -> dict[str, Any]:
        from mqtt_token_client import open_journal

        assert isinstance(place, StoredPlace)
        journal = open_journal(place.store, commit_every=place.commit_every)
        return {"journal": journal, "session_expiry": SESSION_EXPIRY}

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        self._client.publish(topic, payload, qos=qos).wait(PATIENCE)

    async def fill(self, topic: str, payloads: Iterable[bytes], expiry: int) -> None:
        properties = {"message_expiry_interval": expiry} if expiry else None
        for delivery in [self._client.publish(topic, one, qos=1, properties=properties) for one in payloads]:
            delivery.stored.wait()

    async def open(self) -> None:
        """Begin to connect."""
        self._client.connect(timeout=0)


class NoJournal(ThisLibrary, Keeps):
    used: ClassVar[str] = "`TokenClient(…)`, in memory only"
    survives: ClassVar[str] = "nothing"


class MqttiumStore(Mqttium, Keeps):
    used: ClassVar[str] = (
        "`AsyncClient(…, store=SqliteInflightStore(…), clean_start=False)` "
        "(https://mqttium.readthedocs.io/en/stable/sessions-and-persistence/)"
    )
    survives: ClassVar[str] = "a killed process (its SQLite has synchronous=NORMAL)"

    def _make(self, **options: Any) -> Any:
        from mqttium.api import Properties
        from mqttium.persistence import SqliteInflightStore

        assert isinstance(self._place, StoredPlace)
        return super()._make(
            store=SqliteInflightStore(self._place.store),
            clean_start=False,
            connect_properties=Properties({"session_expiry_interval": SESSION_EXPIRY}),
            max_write_queue_bytes=1 << 24,
            **options,
        )

    async def fill(self, topic: str, payloads: Iterable[bytes], expiry: int) -> None:
        from mqttium.api import Properties

        properties = Properties({"message_expiry_interval": expiry}) if expiry else None
        for payload in payloads:
            await self._client.publish(topic, payload, qos=1, properties=properties)


class Ohmqtt(Threaded, Keeps):
    packages: ClassVar[tuple[str, ...]] = ("ohmqtt",)
    imports: ClassVar[str] = "import ohmqtt"
    used: ClassVar[str] = (
        "`Client(db_path=…)`, `publish()` and `wait_for_ack()` (https://github.com/ohmqtt/ohmqtt_python#persistence)"
    )
    survives: ClassVar[str] = "a power cut, if the broker has kept the session"
    fast = False

    def __init__(self, place: Place, arrived: Arrived) -> None:  # noqa: ARG002 - every peer's
        from ohmqtt import Client

        assert isinstance(place, StoredPlace)
        self._place = place
        self._client = Client(db_path=place.store, db_fast=self.fast)

    async def connect(self) -> None:
        from ohmqtt import MQTTConnectProps

        self._client.start_loop()
        self._client.connect(
            f"mqtt://{HOST}:{self._place.port}",
            client_id=self._place.name,
            connect_properties=MQTTConnectProps(SessionExpiryInterval=SESSION_EXPIRY),
        )
        self._client.wait_for_connect(PATIENCE)

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        end, acknowledged = time.monotonic() + limit, 0
        handles = [self._client.publish(topic, payload, qos=qos) for _ in range(count)]
        for handle in handles:
            handle.wait_for_ack(max(0.001, end - time.monotonic()))
            acknowledged += 1
        return acknowledged

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        self._client.publish(topic, payload, qos=qos).wait_for_ack(PATIENCE)

    async def fill(self, topic: str, payloads: Iterable[bytes], expiry: int) -> None:
        from ohmqtt import MQTTPublishProps

        self._handles = [
            self._client.publish(
                topic, one, qos=1, properties=MQTTPublishProps(MessageExpiryInterval=expiry) if expiry else None
            )
            for one in payloads
        ]

    async def close(self) -> None:
        self._client.shutdown()


class OhmqttFast(Ohmqtt):
    used: ClassVar[str] = "the same with `db_fast=True`"
    survives: ClassVar[str] = "a killed process, if the broker has kept the session"
    fast = True


class _ByHand(Paho, Keeps):
    """What paho-mqtt's users write: store a message, publish it, and delete it when `on_publish` was called.

    At most so many are in flight. Nothing keeps a message that has expired from being sent: the application would have
    to store when it was published.
    """

    def __init__(self, place: Place, arrived: Arrived) -> None:
        super().__init__(place, arrived)
        assert isinstance(place, StoredPlace)
        self._store = place.store
        self._sent: dict[int, object] = {}
        self._deleted = 0
        self._changed = threading.Condition()
        self._expiry: Any = None
        self._mids: SimpleQueue[int] = SimpleQueue()
        self._client.on_publish = lambda _client, _userdata, mid, *_: self._mids.put(mid)
        for task in (self._send_all, self._delete_all):
            threading.Thread(target=task, daemon=True).start()

    def put(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError

    def get(self) -> tuple[object, str, bytes]:
        """The next message, when there is one, and what to give to :meth:`delete`."""
        raise NotImplementedError

    def delete(self, item: Any) -> None:
        raise NotImplementedError

    def _send_all(self) -> None:
        while True:
            item, topic, payload = self.get()
            with self._changed:
                while len(self._sent) >= _PAHO_WINDOW or not self._client.is_connected():
                    self._changed.wait(0.1)
            info = self._client.publish(topic, payload, 1, properties=self._expiry)
            with self._changed:
                self._sent[info.mid] = item
                self._changed.notify_all()

    def _delete_all(self) -> None:
        while True:
            mid = self._mids.get()
            with self._changed:
                while mid not in self._sent:
                    self._changed.wait()
                item = self._sent.pop(mid)
            self.delete(item)
            with self._changed:
                self._deleted += 1
                self._changed.notify_all()

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:  # noqa: ARG002
        before = self._deleted
        for _ in range(count):
            self.put(topic, payload)
        with self._changed:
            self._changed.wait_for(lambda: self._deleted == before + count, limit)
        return self._deleted - before

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        await self.publish_all(topic, payload, qos, 1, PATIENCE)

    async def fill(self, topic: str, payloads: Iterable[bytes], expiry: int) -> None:
        if expiry:
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            self._expiry = Properties(PacketTypes.PUBLISH)
            self._expiry.MessageExpiryInterval = expiry
        for payload in payloads:
            self.put(topic, payload)


class PersistQueue(_ByHand):
    packages: ClassVar[tuple[str, ...]] = ("persist-queue", "paho-mqtt")
    used: ClassVar[str] = (
        "`SQLiteAckQueue(…, multithreading=True)`: `put()`, then `get()`, `publish()`, and `ack()` in `on_publish` "
        "(https://github.com/peter-wangxu/persist-queue#examples)"
    )
    survives: ClassVar[str] = "a power cut"

    def __init__(self, place: Place, arrived: Arrived) -> None:
        from persistqueue import SQLiteAckQueue

        assert isinstance(place, StoredPlace)
        self._queue = SQLiteAckQueue(place.store, multithreading=True)
        super().__init__(place, arrived)

    def put(self, topic: str, payload: bytes) -> None:
        self._queue.put((topic, payload))

    def get(self) -> tuple[object, str, bytes]:
        item = self._queue.get(raw=True)
        return item["pqid"], *item["data"]

    def delete(self, item: Any) -> None:
        self._queue.ack(id=item)


class Files(_ByHand):
    used: ClassVar[str] = "a file for each message, written and synced before it is published, deleted in `on_publish`"
    survives: ClassVar[str] = "a power cut"

    def __init__(self, place: Place, arrived: Arrived) -> None:
        assert isinstance(place, StoredPlace)
        self._folder = Path(place.store)
        self._folder.mkdir(exist_ok=True)
        self._numbers = itertools.count(1 + max((int(file.name) for file in self._folder.iterdir()), default=0))
        self._waiting = sorted(self._folder.iterdir())
        self._there = threading.Semaphore(len(self._waiting))
        super().__init__(place, arrived)

    def put(self, topic: str, payload: bytes) -> None:
        path = self._folder / f"{next(self._numbers):012}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, topic.encode() + b"\n" + payload)
        os.fsync(descriptor)
        os.close(descriptor)
        self._waiting.append(path)
        self._there.release()

    def get(self) -> tuple[object, str, bytes]:
        self._there.acquire()
        path = self._waiting.pop(0)
        topic, _, payload = path.read_bytes().partition(b"\n")
        return path, topic.decode(), payload

    def delete(self, item: Any) -> None:
        with suppress(FileNotFoundError):
            item.unlink()


JOURNAL, MEMORY = "this library, journal", "this library, no journal"
OHMQTT, MQTTIUM = "ohmqtt", "mqttium, SQLite store"
BY_HAND = ("persist-queue and paho-mqtt by hand", "paho-mqtt by hand, a file for each message")
PEERS: dict[str, type[Keeps]] = {
    JOURNAL: Journal,
    MEMORY: NoJournal,
    MQTTIUM: MqttiumStore,
    OHMQTT: Ohmqtt,
    "ohmqtt, db_fast": OhmqttFast,
    BY_HAND[0]: PersistQueue,
    BY_HAND[1]: Files,
}
