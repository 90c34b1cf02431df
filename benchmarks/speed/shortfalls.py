"""Where another library does better, in words, with the ratios of the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.speed.footprint import GROWTH, IDLE, IMPORT, MEMORY, ROTATED
from benchmarks.speed.peers import (
    AIOMQTT,
    BARE,
    BY_HAND,
    GMQTT,
    IN_ASYNCIO,
    MQTTIUM,
    OURS,
    OURS_IN_ASYNCIO,
    WITH_THREADS,
)
from benchmarks.speed.rows import Rows
from benchmarks.speed.traffic import CONNECT, FAR, LATENCY, PROCESSOR, START, THROUGHPUT

_BEHIND = 0.95  # a ratio below; nearer to 1 is noise
_AWSCRT, _IN_C = "awscrt", "libmosquitto (C)"


@dataclass(frozen=True)
class Ratios:
    """Ratios that are shown in one sentence.

    Attributes:
        text: with a place for them.
        section: the table.
        names: what the names of the rows contain.
        ours: which of the two interfaces of this library.
        peers: the libraries; none for all in the table.
    """

    text: str
    section: str
    names: tuple[str, ...]
    ours: str = OURS
    peers: tuple[str, ...] = ()

    def behind(self, rows: Rows) -> str:
        """The text with the ratios in which this library is behind; empty if there are none."""
        table = WITH_THREADS if self.ours == OURS else IN_ASYNCIO
        peers = self.peers or [peer for peer in table if peer != BARE and not peer.startswith(OURS)]
        found = sorted(
            ratio
            for row in rows
            if row.section == self.section and all(name in row.name for name in self.names)
            for peer in peers
            if (ratio := row.ahead(self.ours, peer)) and ratio < _BEHIND
        )
        if not found:
            return ""
        low, high = f"{found[0]:.2f}", f"{found[-1]:.2f}"
        return self.text.format(f"{low} x" if low == high else f"{low} to {high} x")


_TOLD = {
    "Connecting without TLS": (
        Ratios("{} against each other library", CONNECT, ("plain",)),
        Ratios("on asyncio {}", CONNECT, ("plain",), OURS_IN_ASYNCIO),
        Ratios("each of a hundred clients {}", GROWTH, ("plain, to connect one",)),
        Ratios("on asyncio {}", GROWTH, ("plain, to connect one",), OURS_IN_ASYNCIO),
    ),
    "Publishing over a round trip of 100 ms": (
        Ratios("{} against gmqtt", FAR, ("publish, QoS 1",), OURS, (GMQTT,)),
        Ratios("on asyncio {}", FAR, ("publish, QoS 1",), OURS_IN_ASYNCIO, (GMQTT,)),
    ),
    "Messages of 64 KiB": (
        Ratios("publishing at QoS 0 {} against gmqtt", THROUGHPUT, ("publish, QoS 0, 64 KiB",), OURS, (GMQTT,)),
        Ratios(
            "on asyncio {} against gmqtt and mqttium",
            *(THROUGHPUT, ("publish, QoS 0, 64 KiB",), OURS_IN_ASYNCIO, (GMQTT, MQTTIUM)),
        ),
        Ratios(
            "receiving at QoS 1 over TLS {} against awscrt", THROUGHPUT, ("receive, QoS 1, 64 KiB",), OURS, (_AWSCRT,)
        ),
    ),
    "Receiving at QoS 2 on asyncio": (
        Ratios("{} against gmqtt and mqttium", THROUGHPUT, ("receive, QoS 2",), OURS_IN_ASYNCIO, (GMQTT, MQTTIUM)),
    ),
    "Latency on asyncio": (
        Ratios("until a message arrives, {} against gmqtt", LATENCY, ("to arrival",), OURS_IN_ASYNCIO, (GMQTT,)),
    ),
    "Latency": (Ratios("{} against awscrt", LATENCY, (), OURS, (_AWSCRT,)),),
    "Memory": (
        Ratios("with tokens {} against paho-mqtt and requests", ROTATED, (), OURS, (BY_HAND,)),
        Ratios("of one client on asyncio {} against gmqtt and zMQTT", MEMORY, (), OURS_IN_ASYNCIO),
        Ratios(
            "of each further client on asyncio {} against aiomqtt", GROWTH, ("a client",), OURS_IN_ASYNCIO, (AIOMQTT,)
        ),
        Ratios("without TLS {} against all but mqttium", GROWTH, ("plain, a client",), OURS_IN_ASYNCIO),
        Ratios("of each further client without TLS {} against gmqtt", GROWTH, ("plain, a client",), OURS, (GMQTT,)),
    ),
    "Starting on asyncio": (
        Ratios("importing {} against gmqtt", IMPORT, ("time",), OURS_IN_ASYNCIO, (GMQTT,)),
        Ratios("until CONNACK {}", START, (), OURS_IN_ASYNCIO, (GMQTT,)),
    ),
    "Processor time when idle": (Ratios("{} against awscrt", IDLE, ("processor time",), OURS, (_AWSCRT,)),),
    "The C library libmosquitto": (
        Ratios("messages a second {}", THROUGHPUT, (), OURS, (_IN_C,)),
        Ratios("processor time {}", PROCESSOR, (), OURS, (_IN_C,)),
    ),
}
_WHY = {
    "Connecting without TLS": "With TLS this library is ahead, except over a round trip, where it is level.",
    "Latency on asyncio": "A thread of its own reads the network and hands what has arrived to the event loop, which "
    "costs a wake-up each time; gmqtt reads on the loop itself. In return a loop that is blocked for seconds delays "
    "neither keepalive nor rotation ([design](design.md)).",
    "The C library libmosquitto": "This is at QoS 0 and with messages of 64 KiB.",
}
_TITLE = """\
## Where it falls short

Where another library is ahead by more than a twentieth, with the ratios of the tables below:

"""
_LIVE = """\
- **Receiving live**: the broker sets the pace, not the client, as Mosquitto's one thread is busy nearly all of the \
time (see *How busy the broker is*). What the library itself can do shows in the backlog, and in the processor time a \
message.
"""


def shortfalls(rows: Rows) -> str:
    """The section of the page."""
    return f"{_TITLE}{''.join(_told(rows))}{_LIVE}"


def _told(rows: Rows) -> Iterator[str]:
    for what, parts in _TOLD.items():
        if said := "; ".join(filter(None, (part.behind(rows) for part in parts))):
            yield f"- **{what}**: {said}.{f' {_WHY[what]}' if what in _WHY else ''}\n"
