"""The tables of the performance benchmark, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.speed_footprint import FLEET, GROWTH, IDLE, IMPORT, MEMORY, ROTATED
from benchmarks.speed_peers import BARE, OURS, PEERS
from benchmarks.speed_rows import Row, Rows
from benchmarks.speed_targets import Verdict, verdicts
from benchmarks.speed_traffic import BROKER, CONNECT, FAR, LATENCY, PROCESSOR, START, THROUGHPUT

_INTRODUCTION = """\
# Speed and smallness

Each library as its documentation uses it, in a process of its own, in turns on one machine in one run. Medians of \
{rounds}, lowest and highest in brackets. **N x** is how many times better this library was in the same round: its \
messages a second over theirs, or their time and memory over its; above 1 this library is ahead. Machines are noisy, \
so only ratios count, and none below the spread. Measured on {date} on {machine}, load {load} at the start, with \
Python {python}, OpenSSL {openssl}, Mosquitto {mosquitto} on loopback; {versions}.
"""

_NOTES = {
    THROUGHPUT: """\
One client publishes as fast as it can: until the last message is acknowledged, or at QoS 0 until another client has \
the last one. Receiving: from the moment that a bare socket, which costs next to nothing, begins to send them to the \
broker until the last has come to the handler, which counts. Broker and client share the processors: where the broker \
is the slower of the two, libraries look alike. What tells them apart then is a backlog, which waits at the broker and \
in the sockets' buffers before the client gets to run, and the processor time in the next table.""",
    PROCESSOR: "Of the same runs: what one message costs the process of the client, in all its threads.",
    BROKER: """\
Of the same runs: the broker's processor time, in percent of one processor, of which its one thread can have no more. \
Near 100 the broker sets the pace, and no library is faster than another.""",
    LATENCY: """\
Messages of QoS 1 at a steady rate: to the acknowledgement, and to the arrival at the client itself, which is \
subscribed and so acknowledges too. What paho-mqtt, aiomqtt and awscrt show there is Nagle's algorithm, which they \
leave on.""",
    FAR: "Through a proxy, 20,000 messages, or as many as are acknowledged in {far:g} s.",
    CONNECT: "From the call to CONNACK; a new client each time, the TLS context made before.",
    START: """\
A new process each time: Python, the imports, the TLS context, the connection. *bare sockets* has nearly nothing but \
Python and what the measurement itself takes in every column.""",
    IMPORT: """\
In fresh processes, whose compiled modules are there. Of this library `{imports}`: it loads a name when that is asked \
for, and paho-mqtt when it connects first; the table before this one has it all.""",
    MEMORY: """\
Proportional set size, Python itself included (the column *bare sockets* has little else). Queued: the broker is \
stopped meanwhile. aiomqtt queues nothing.""",
    ROTATED: "The same, with tokens from a real authorization server over HTTP.",
    IDLE: "From {settled:g} s after CONNACK, for {idle:g} s.",
    GROWTH: """\
Memory of each client beyond the first. *bare sockets* is a connection by itself: what the TLS library takes. \
paho-mqtt waits by select(), which has room for 1,024 descriptors: it cannot have a thousand connections.""",
    FLEET: """\
{clients:,} clients of this library in one process, over TLS, with messages of QoS 1 that each sends to itself, 500 a \
second in all, while the token of every one comes due. The tokens live 300 s, so that the jitter gives them 15 s.""",
}

_SHORT_OF = """\
## Where it falls short, and why

- **Receiving live.** The broker sets the pace, and not the client: Mosquitto's one thread is busy for nearly all of \
the time (see *How busy the broker is*), at QoS 0 as at QoS 1, and gmqtt and the C library come out where this \
library does. It reads and writes each PUBLISH and each PUBACK by system calls of their own, which no client can \
spare it. So where paho-mqtt takes half of what the broker can give, as in MQTT 3.1.1, nobody can take 2.5 times as \
much. In a profile of 40,000 messages of QoS 0 this library's network thread waits for 65 % of the time (48 % for the \
socket, 17 % at rest), and spends 13 % on reading PUBLISH, 9 % on the handler and the way to it, 3 % on `recv()`, 46 \
messages a call. What the library itself can do shows where the broker is not in the way: in the backlog, and in the \
processor time a message.
- **Importing.** A name is loaded when it is asked for: `import mqtt_token_client` alone loads none, tokens without \
MQTT load no MQTT, and paho-mqtt is loaded by the first connection. `TokenClient` and `ClientCredentials` take some \
60 ms, of which 30 ms are modules of the standard library that nearly every network program loads (`ssl`, `socket`, \
`logging`, `typing`, `json`), 15 ms the making of some 40 dataclasses and what `dataclasses` itself loads, and 14 ms \
the rest of this library. From the start of the process to CONNACK all of it counts, with paho-mqtt: see that table.
"""

_END = """\
How long a rotation is felt, beside other ways to rotate, is measured by itself: [rotation.md](rotation.md).
"""


def report(rows: Rows, about: dict[str, str], terms: dict[str, Any], rotation: Path, plots: list[str]) -> str:
    """All of it. ``terms`` are what the notes have to tell."""
    judged = verdicts(rows, rotation)
    versions = ", ".join(f"{name} {about[name]}" for name in _packages())
    parts = [
        _INTRODUCTION.format(versions=versions, rounds=about["rounds"], **{k: about[k] for k in _SURROUNDINGS}),
        _judgement(judged),
        _SHORT_OF,
        *(f"![{name}]({name})\n" for name in plots),
    ]
    for section, note in _NOTES.items():
        found = [row for row in rows if row.section == section]
        if found:
            parts.append(f"## {section}\n\n{note.format(**terms)}\n\n{_table(found)}{_failures(found)}")
    used = "\n".join(f"- **{name}**: {peer.used}." for name, peer in PEERS.items())
    parts += [f"## How each is used\n\n{used}\n", _END]
    return "\n".join(parts)


_SURROUNDINGS = ("date", "machine", "load", "python", "openssl", "mosquitto")


def _packages() -> list[str]:
    return sorted({package for peer in PEERS.values() for package in peer.packages})


def _judgement(judged: list[Verdict]) -> str:
    words = {True: "reached", False: "**not reached**", None: "not measured"}
    lines = ["## What it is to reach", "", "| figure | wanted | measured | |", "|---|---|---|---|"]
    lines += [f"| {one.figure} | {one.wanted} | {one.measured} | {words[one.reached]} |" for one in judged]
    return "\n".join(lines) + "\n"


def _table(rows: list[Row]) -> str:
    peers = [peer for peer in PEERS if any(row.known(peer) for row in rows)]
    unit = {row.unit for row in rows}
    lines = [f"| {f'in {unit.pop()}' if len(unit) == 1 and any(unit) else ''} | {' | '.join(peers)} |"]
    lines.append(f"|---|{'---|' * len(peers)}")
    for row in rows:
        named = row.name if not unit else f"{row.name}, {row.unit}" if row.unit else row.name
        lines.append(f"| {named} | {' | '.join(_cell(row, peer) for peer in peers)} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row, peer: str) -> str:
    known = row.known(peer)
    if not known:
        return "failed" if peer in row.failures else ""
    middle = row.median(peer)
    assert middle is not None
    text = _number(middle)
    if _number(min(known)) != _number(max(known)):
        text += f" ({_number(min(known))} to {_number(max(known))})"
    ahead = None if peer in (OURS, BARE) or row.unit in ("", "%") else row.ahead(OURS, peer)
    return f"{text}, **{ahead:.{0 if ahead >= 10 else 2}f} x**" if ahead else text


def _failures(rows: list[Row]) -> str:
    told = {f"{peer}: {why}" for row in rows for peer, why in row.failures.items()}
    return f"\nFailed: {'; '.join(sorted(told))}.\n" if told else ""


def _number(value: float) -> str:
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value >= 0.01 or not value else f"{value:.1g}"
