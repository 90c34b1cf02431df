"""The MQTT libraries that are compared."""

from __future__ import annotations

from benchmarks.speed.asyncio_peers import Aiomqtt, Gmqtt
from benchmarks.speed.mqttium_peers import Mqttium, MqttiumCallback, Zmqtt
from benchmarks.speed.paho_peers import Paho, PahoByHand, PahoWithoutCallback
from benchmarks.speed.place import Peer
from benchmarks.speed.this_library import HandlerInAsyncio, ThisLibrary, ThisLibraryInAsyncio
from benchmarks.speed.threaded_peers import AwsCrt, Bare, Libmosquitto

OURS, PAHO, BARE, LIBMOSQUITTO = "this library", "paho-mqtt", "bare sockets", "libmosquitto (C)"
BY_HAND = "paho-mqtt + requests"
OURS_IN_ASYNCIO, GMQTT, AIOMQTT, MQTTIUM, ZMQTT = "this library, asyncio", "gmqtt", "aiomqtt", "mqttium", "zMQTT"
PEERS: dict[str, type[Peer]] = {
    OURS: ThisLibrary,
    GMQTT: Gmqtt,
    "awscrt": AwsCrt,
    PAHO: Paho,
    "paho-mqtt, no callback": PahoWithoutCallback,
    BY_HAND: PahoByHand,
    BARE: Bare,
    LIBMOSQUITTO: Libmosquitto,
    OURS_IN_ASYNCIO: ThisLibraryInAsyncio,
    "this library, asyncio, handler": HandlerInAsyncio,
    MQTTIUM: Mqttium,
    "mqttium, callback": MqttiumCallback,
    ZMQTT: Zmqtt,
    AIOMQTT: Aiomqtt,
}

# The columns of the two tables of each section. In each the first library is compared with the others.
IN_ASYNCIO = [
    OURS_IN_ASYNCIO,
    "this library, asyncio, handler",
    GMQTT,
    MQTTIUM,
    "mqttium, callback",
    ZMQTT,
    AIOMQTT,
    BARE,
]
WITH_THREADS = [peer for peer in PEERS if peer not in IN_ASYNCIO or peer in (GMQTT, BARE)]
