"""The MQTT libraries that are compared."""

from __future__ import annotations

from benchmarks.speed_asyncio import Aiomqtt, Gmqtt
from benchmarks.speed_paho import Paho, PahoByHand, PahoWithoutCallback
from benchmarks.speed_place import Peer
from benchmarks.speed_threaded import AwsCrt, Bare, Libmosquitto, ThisLibrary

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
