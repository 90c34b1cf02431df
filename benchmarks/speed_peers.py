"""The MQTT libraries that are compared."""

from __future__ import annotations

from benchmarks.speed_asyncio import Aiomqtt, Gmqtt
from benchmarks.speed_paho import Paho, PahoByHand, PahoWithoutCallback
from benchmarks.speed_place import Peer
from benchmarks.speed_threaded import AwsCrt, Bare, Libmosquitto, ThisLibrary

OURS, BY_HAND, BARE, LIBMOSQUITTO = "this library", "paho-mqtt + requests", "bare sockets", "libmosquitto (C)"
PEERS: dict[str, type[Peer]] = {
    OURS: ThisLibrary,
    "gmqtt": Gmqtt,
    "awscrt": AwsCrt,
    "paho-mqtt": Paho,
    "paho-mqtt, no callback": PahoWithoutCallback,
    "aiomqtt": Aiomqtt,
    BY_HAND: PahoByHand,
    BARE: Bare,
    LIBMOSQUITTO: Libmosquitto,
}
