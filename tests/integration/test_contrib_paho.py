"""attach(): paho-mqtt clients that move from token to token on a real broker, and fire no will."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import product
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from mqtt_token_client import ClientCredentials, TokenKeeper
from mqtt_token_client.contrib.paho import attach

LIFE, ROTATIONS, RATE = 6, 2, 20
WILL = "paho/will"
Run = Callable[[Client], Callable[[], object]]
V1, V2 = CallbackAPIVersion.VERSION1, CallbackAPIVersion.VERSION2


def in_the_background(client: Client) -> Callable[[], object]:
    client.loop_start()
    return client.loop_stop


def in_the_foreground(client: Client) -> Callable[[], object]:
    thread = threading.Thread(target=client.loop_forever)
    thread.start()
    return thread.join


class Device:
    """A paho client with a will and a persistent session, which publishes to itself."""

    def __init__(
        self, name: str, mosquitto: Mosquitto, keeper: TokenKeeper, version: Any, protocol: int, run: Run
    ) -> None:
        self.name = name
        self.heard: set[bytes] = set()
        self.connects = 0
        self.subscribed = threading.Event()
        session: dict[str, Any] = {} if protocol == 5 else {"clean_session": False}
        self.client = Client(version, client_id=name, protocol=MQTTProtocolVersion(protocol), **session)
        self.client.max_inflight_messages_set(100)
        self.client.will_set(WILL, b"lost", qos=1)
        self.client.on_message = lambda _client, _userdata, message: self.heard.add(bytes(message.payload))
        self.client.on_connect = self.connected
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        attach(self.client, keeper)
        more: dict[str, Any] = {}
        if protocol == 5:
            more = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
            more["properties"].SessionExpiryInterval = 300
        self.client.connect(mosquitto.host, mosquitto.port, **more)
        self._stopped = run(self.client)

    def has_heard(self, count: int) -> bool:
        return len(self.heard) == count

    def stop(self) -> None:
        self.client.disconnect()
        self._stopped()

    def connected(self, client: Client, *_: Any) -> None:
        self.connects += 1
        client.subscribe([(f"{self.name}/data", 1), (WILL, 1)])


@pytest.mark.filterwarnings("ignore:Callback API version 1:DeprecationWarning")
def test_paho_clients_move_from_token_to_token_without_a_will_or_a_lost_message(
    oidc: AuthorizationServer, mosquitto: Mosquitto
) -> None:
    oidc.config(at=LIFE)
    source = ClientCredentials(issuer=oidc.issuer, client_id=oidc.client_id, client_secret=oidc.client_secret)
    with closing(TokenKeeper(source)) as keeper:
        devices = [
            Device(f"paho-{version.value}-{protocol}-{run.__name__}", mosquitto, keeper, version, protocol, run)
            for version, protocol, run in product((V1, V2), (4, 5), (in_the_background, in_the_foreground))
        ]
        for device in devices:  # paho sends what is published before CONNACK, and so before SUBSCRIBE
            assert device.subscribed.wait(10)
        pause, sent = threading.Event(), 0
        while any(device.connects <= ROTATIONS for device in devices) and sent < RATE * LIFE * (ROTATIONS + 2):
            for device in devices:
                device.client.publish(f"{device.name}/data", str(sent).encode(), qos=1)
            sent += 1
            pause.wait(1 / RATE)
        for device in devices:
            wait_until(partial(device.has_heard, sent), f"all messages of {device.name}")
            device.stop()
    for device in devices:
        assert device.connects > ROTATIONS, device.name
        assert mosquitto.refused(device.name) == 0
        assert mosquitto.count(f"token of {device.name} expired") == 0
        assert mosquitto.count(f"Client {device.name} closed its connection") == 0
    assert mosquitto.sent("paho/will") == 0
