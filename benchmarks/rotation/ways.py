"""The ways to a new token that are measured: each is a connected client that can publish and rotate."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from devtools.servers.oidc import AuthorizationServer
from mqtt_token_client import Event, EventGrid, Rotated, TokenClient, Will
from tests.integration.traffic import source

ROTATIONS = 5
WINDOW = 100  # messages in flight: this library's default; paho's own 20 would be too few at 100 ms

# Seconds, all of them.
LIFETIME = 3  # of the tokens that expire while the broker watches
LONG_LIFETIME = 600  # of the others
PATIENCE = 30  # for whatever has to happen


@dataclass(frozen=True)
class Place:
    """Where and how a client connects: its name, the broker's port on 127.0.0.1, and what to call with each message.

    ``ca`` is the file with the authority that signed the broker's certificate, for clients that accept no ``tls``.
    """

    name: str
    port: int
    tls: ssl.SSLContext
    ca: str
    oidc: AuthorizationServer
    arrived: Callable[[str, bytes], None]

    @property
    def topics(self) -> str:
        """The filter to subscribe to."""
        return f"down/{self.name}/#"

    def token(self, lifetime: int) -> str:
        self.oidc.config(at=lifetime)
        return source(self.oidc).fetch(None).value


class Client(Protocol):
    def publish(self, topic: str, payload: bytes, qos: int) -> None: ...

    def rotate(self) -> None:
        """Returns once it is connected with the next token."""

    def close(self) -> None: ...


class Library:
    """This library with its defaults."""

    def __init__(self, place: Place, *, kind: str = "handover", protocol: int = 5) -> None:
        place.oidc.config(at=LONG_LIFETIME)
        self._kind = kind
        self._rotated: SimpleQueue[Rotated] = SimpleQueue()
        self._client = TokenClient(
            f"mqtts://127.0.0.1:{place.port}",
            source(place.oidc),
            client_id=place.name,
            protocol=protocol,
            tls=place.tls,
            profile=EventGrid() if kind == "re-authentication" else "password",
            will=Will(f"will/{place.name}", b"gone", qos=1) if kind == "reconnect" else None,
            max_inflight=WINDOW,
            on_event=self._on_event,
        )
        self._client.subscribe(place.topics, lambda message: place.arrived(message.topic, message.payload))
        if not self._client.connect():
            raise RuntimeError("this library did not connect")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Rotated):
            self._rotated.put(event)

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        self._client.publish(topic, payload, qos=qos)

    def rotate(self) -> None:
        self._client.rotate()
        if (kind := self._rotated.get(timeout=PATIENCE).kind) != self._kind:
            raise RuntimeError(f"the rotation was a {kind}, not a {self._kind}")

    def close(self) -> None:
        self._client.disconnect()


class Unrotated(Library):
    """The same, but it keeps its first token."""

    def rotate(self) -> None:
        pass


class Paho:
    """paho-mqtt with MQTT 3.1.1, its default, and a session that the broker keeps."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._connected = threading.Semaphore(0)
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=place.name, clean_session=False, protocol=paho.MQTTv311
        )
        client.tls_set_context(place.tls)
        client.max_inflight_messages_set(WINDOW)
        client.on_connect = self._on_connect
        client.on_message = lambda _client, _userdata, message: place.arrived(message.topic, bytes(message.payload))
        self._prepare()
        client.connect("127.0.0.1", place.port)
        client.loop_start()
        self._wait_for_connack()

    def _prepare(self) -> None:
        self._client.username_pw_set(self._place.name, self._place.token(LONG_LIFETIME))

    def _on_connect(
        self, client: paho.Client, _userdata: object, flags: paho.ConnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if not reason.is_failure:
            if not flags.session_present:
                client.subscribe(self._place.topics, 1)
            self._connected.release()

    def _wait_for_connack(self) -> None:
        if not self._connected.acquire(timeout=PATIENCE):
            raise RuntimeError("paho-mqtt did not connect")

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        # A message that it rejects is counted as lost if it does not arrive: at QoS 1 it may be sent later.
        with suppress(OSError):
            self._client.publish(topic, payload, qos)

    def close(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()


class PahoByHand(Paho):
    """Its users' calls, with a token that was fetched before; another thread continues to publish.

    A publish() at the very end of reconnect() writes to the TLS socket while that does: about once in 100 rotations
    this breaks the new connection, publish() may raise, and paho backs off for a second.
    """

    def rotate(self) -> None:
        self._swap(self._place.token(LONG_LIFETIME))
        self._wait_for_connack()

    def _swap(self, token: str) -> None:
        self._client.username_pw_set(self._place.name, token)
        self._client.disconnect()
        self._client.loop_stop()
        self._client.reconnect()
        self._client.loop_start()


class PahoByHandHeld(PahoByHand):
    """The same in an application that holds publish() meanwhile."""

    def _prepare(self) -> None:
        super()._prepare()
        self._turn = threading.Lock()

    def _swap(self, token: str) -> None:
        with self._turn:
            super()._swap(token)

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        with self._turn:
            super().publish(topic, payload, qos)


class PahoLeftToItself(Paho):
    """The broker closes the connection when the token expires, and paho's loop reconnects, with a new token that was
    fetched during its back-off.
    """

    def _prepare(self) -> None:
        self._expired = 0
        self._worker = ThreadPoolExecutor(1)
        self._token: Future[str] = self._worker.submit(self._place.token, LIFETIME)
        self._client.on_disconnect = self._on_disconnect
        self._client.on_pre_connect = self._on_pre_connect

    def _on_disconnect(self, *_: object) -> None:
        self._expired += 1
        self._token = self._worker.submit(self._place.token, LIFETIME if self._expired < ROTATIONS else LONG_LIFETIME)

    def _on_pre_connect(self, client: paho.Client, _userdata: object) -> None:
        client.username_pw_set(self._place.name, self._token.result())

    def rotate(self) -> None:
        self._wait_for_connack()

    def close(self) -> None:
        super().close()
        self._worker.shutdown()
