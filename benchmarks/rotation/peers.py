"""The way of awscrt to a new token, which it does not support by itself: what its users write by hand."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from benchmarks.rotation.ways import LONG_LIFETIME, PATIENCE, Place


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
