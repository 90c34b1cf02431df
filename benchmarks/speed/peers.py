"""The MQTT libraries that are compared."""

from __future__ import annotations

from benchmarks.speed.asyncio_peers import Aiomqtt, Gmqtt
from benchmarks.speed.paho_peers import Paho, PahoByHand, PahoWithoutCallback
from benchmarks.speed.place import Peer
from benchmarks.speed.threaded_peers import AwsCrt, Bare, Libmosquitto, ThisLibrary

OURS, PAHO, BARE, LIBMOSQUITTO = "this library", "paho-mqtt", "bare sockets", "libmosquitto (C)"
BY_HAND = "paho-mqtt + requests"
PEERS: dict[str, type[Peer]] = {
    OURS: ThisLibrary,
    "gmqtt": Gmqtt,
    "awscrt": AwsCrt,
    PAHO: Paho,
    "paho-mqtt, no callback": PahoWithoutCallback,
    "aiomqtt": Aiomqtt,
    BY_HAND: PahoByHand,
    BARE: Bare,
    LIBMOSQUITTO: Libmosquitto,
}
