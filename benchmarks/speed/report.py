"""The page on speed and footprint, generated from the results."""

from __future__ import annotations

from benchmarks.environment import ROOT
from benchmarks.recording import PAGES, Document, file_of, when
from benchmarks.speed.footprint import FLEET, GROWTH, IDLE, IMPORT, MEMORY, ROTATED
from benchmarks.speed.peers import BARE, IN_ASYNCIO, PEERS, WITH_THREADS
from benchmarks.speed.plots import PLOTS
from benchmarks.speed.rows import Row, Rows
from benchmarks.speed.shortfalls import shortfalls
from benchmarks.speed.targets import Verdict, verdicts
from benchmarks.speed.traffic import BROKER, CONNECT, FAR, LATENCY, PROCESSOR, START, THROUGHPUT

_INTRODUCTION = """\
# Speed and footprint

Each library as its documentation uses it, in a process of its own, in turns on one machine in one run, except for the \
tables that name an earlier one. Medians of {rounds}, lowest and highest in brackets. **N x** is how many times better \
this library was in the same round: its messages a second over theirs, or their time and memory over its; above 1 this \
library is ahead. Machines are noisy, so only ratios count, and only those beyond the spread. Measured on {machine}, \
with Python {python}, OpenSSL {openssl}, Mosquitto {mosquitto} on loopback; {versions}. {when} All figures are in \
[{file}]({link}).
"""

_NOTES = {
    THROUGHPUT: """\
One client publishes as fast as it can, until the last message is acknowledged, or at QoS 0 until another client has \
the last one. Receiving is measured from the moment that a bare socket, which costs next to nothing, begins to send \
the messages to the broker until the last has reached the handler, which counts them. Broker and client share the \
processors: where the broker is the slower of the two, libraries look alike. A backlog then shows the difference, \
which waits at the broker and in the sockets' buffers before the client may run, and so does the processor time in the \
next table.""",
    PROCESSOR: "Of the same runs: what one message costs the process of the client, in all its threads.",
    BROKER: """\
Of the same runs: the broker's processor time, in percent of one processor, which is all that its one thread can use. \
Near 100 the broker sets the pace, and no library is faster than another.""",
    LATENCY: """\
Messages of QoS 1 at a steady rate: until the acknowledgement, and until the arrival at the client itself, which is \
subscribed and so acknowledges too. The times of paho-mqtt, aiomqtt and awscrt there come from Nagle's algorithm, \
which they leave on.""",
    FAR: "Through a proxy, 20,000 messages, or as many as are acknowledged in {far:g} s.",
    CONNECT: "From the call to CONNACK; a new client each time, the TLS context made before.",
    START: """\
A new process each time: Python, the imports, the TLS context, the connection. *bare sockets* is little more than \
Python and what the measurement itself takes in every column.""",
    IMPORT: """\
In fresh processes, with the compiled modules in place. Of this library `{imports}`: it loads a name when it is first \
used, and paho-mqtt when it first connects; the table before this one includes all of it.""",
    MEMORY: """\
Proportional set size, Python itself included (the column *bare sockets* has little else). Queued: the broker is \
stopped meanwhile. aiomqtt queues nothing.""",
    ROTATED: "The same, with tokens from a real authorization server over HTTP.",
    IDLE: "From {settled:g} s after CONNACK, for {idle:g} s.",
    GROWTH: """\
Memory of each client beyond the first. *bare sockets* is a connection by itself: what the TLS library takes. \
paho-mqtt waits with select(), which handles 1,024 descriptors: it cannot have a thousand connections.""",
    FLEET: """\
{clients:,} clients of this library in one process, over TLS, with messages of QoS 1 that each sends to itself, 500 a \
second in all, while every token becomes due for renewal. The tokens are valid for 300 s, so the jitter spreads the \
renewals over 15 s.""",
}

_END = """\
How long a rotation interrupts traffic, compared with other ways to rotate, is measured separately: \
[rotation.md](rotation.md).
"""


def render(document: Document) -> str:
    rows = Rows(Row(**row) for row in document["rows"])
    file = file_of("speed").relative_to(ROOT)
    parts = [
        _INTRODUCTION.format(
            **document,
            versions=", ".join(f"{name} {document[name]}" for name in _packages() if name in document),
            when=when(document, "section"),
            file=file.name,
            link=f"../{file}",
        ),
        judgement(verdicts(rows)),
        shortfalls(rows),
        *_plots(),
    ]
    for section, note in _NOTES.items():
        found = [row for row in rows if row.section == section]
        if found:
            notes = " ".join([note.format(**document["terms"]), *filter(None, [document["remarks"].get(section)])])
            tables = [table(found, columns) for columns in (WITH_THREADS, IN_ASYNCIO)]
            parts.append("\n".join([f"## {section}\n\n{notes}\n", *filter(None, tables)]) + failures(found))
    used = "\n".join(f"- **{name}**: {PEERS[name].used}." for name in document["libraries"])
    parts += [f"## How each is used\n\n{used}\n", _END]
    return "\n".join(parts)


def _plots() -> list[str]:
    """The plots that have been drawn."""
    files = [file_of("speed").with_name(f"speed-{name}.svg") for name in PLOTS]
    return [f"![{file.stem}](../{file.relative_to(PAGES['speed'].parents[1])})\n" for file in files if file.exists()]


def _packages() -> list[str]:
    return sorted({package for peer in PEERS.values() for package in peer.packages})


def judgement(judged: list[Verdict]) -> str:
    words = {True: "reached", False: "**not reached**", None: "not measured"}
    lines = ["## Targets", "", "| figure | target | measured | |", "|---|---|---|---|"]
    lines += [f"| {one.figure} | {one.target} | {one.measured} | {words[one.reached]} |" for one in judged]
    return "\n".join(lines) + "\n"


def table(rows: list[Row], columns: list[str]) -> str:
    """The rows of these libraries; empty if the first, which the others are compared with, is in none of them."""
    ours = columns[0]
    rows = [row for row in rows if row.known(ours)]
    if not rows:
        return ""
    peers = [peer for peer in columns if any(row.known(peer) or peer in row.failures for row in rows)]
    unit = {row.unit for row in rows}
    lines = [f"| {f'in {unit.pop()}' if len(unit) == 1 and any(unit) else ''} | {' | '.join(peers)} |"]
    lines.append(f"|---|{'---|' * len(peers)}")
    for row in rows:
        named = row.name if not unit else f"{row.name}, {row.unit}" if row.unit else row.name
        lines.append(f"| {named} | {' | '.join(_cell(row, peer, ours) for peer in peers)} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row, peer: str, ours: str) -> str:
    known = row.known(peer)
    if not known:
        return "failed" if peer in row.failures else ""
    middle = row.median(peer)
    assert middle is not None
    text = _number(middle)
    if _number(min(known)) != _number(max(known)):
        text += f" ({_number(min(known))} to {_number(max(known))})"
    ahead = None if peer in (ours, BARE) or row.unit in ("", "%") else row.ahead(ours, peer)
    return f"{text}, **{ahead:.{0 if ahead >= 10 else 2}f} x**" if ahead else text


def failures(rows: list[Row]) -> str:
    """What failed, in a sentence; empty if nothing did."""
    found = {f"{peer}: {why}" for row in rows for peer, why in row.failures.items()}
    return f"\nFailed: {'; '.join(sorted(found))}.\n" if found else ""


def _number(value: float) -> str:
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value >= 0.01 or not value else f"{value:.1g}"
