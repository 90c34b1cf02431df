"""The page on what the journal costs, generated from the results."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.journal.peers import JOURNAL, MEMORY, MQTTIUM, OHMQTT, PEERS
from benchmarks.journal.trials import DISK, EACH, HEARTBEAT, IN_TIME, LEFT, SPEED, START, TEN_A_COMMIT
from benchmarks.recording import Document
from benchmarks.speed.report import failures, judgement, table
from benchmarks.speed.rows import Row, Rows
from benchmarks.speed.targets import Verdict

_INTRODUCTION = """\
# What the journal costs

Messages of 100 bytes at QoS 1, each library in a process of its own as its documentation uses it, in turns in one \
run. Medians of {rounds} rounds, lowest and highest in brackets; **N x** is how many times better the journal of this \
library is. Measured on {date} on {machine}, load {load} at the start, with Python {python}, Mosquitto {mosquitto} on \
loopback; {versions}. The disk is an ext4 filesystem with default options on a loop device, whose kernel counts what \
is written.
"""

_NOTES = {
    DISK: """\
Until the broker has acknowledged a message, and its record is deleted. Bytes include those of the filesystem. Where \
messages are stored first, the broker is 10 to 100 ms away. Files have reached their size before anything counts.""",
    SPEED: """\
Until the last of {messages:,} messages is acknowledged ({few:,} by ohmqtt and by hand, which take longer). The \
journal of this library writes what is not acknowledged within a second (`commit_every=1`), the others write every \
message.""",
    LEFT: """\
{messages:,} messages ({few:,} by ohmqtt and by hand) are stored while the broker does not answer; then the device is \
killed, and the broker loses its sessions. In the second row they expire after a second (`message_expiry_interval`), \
and the device is away for two; ohmqtt sends none there, as it deletes all when the broker has lost the session. \
SQLite with `synchronous=NORMAL` (mqttium, ohmqtt with `db_fast`) survives a killed process, but not a power cut.""",
    START: "A device whose broker is a socket that answers CONNECT and reads no further.",
    HEARTBEAT: """\
The longest delay of a timer of the network thread that is due every 100 ms, while messages are published a hundred \
times a second. Each fsync() and fdatasync() takes a second longer than it does (strace), and every message is \
committed.""",
}


def render(document: Document) -> str:
    rows, terms = Rows(Row(**row) for row in document["rows"]), document["terms"]
    packages = sorted({package for peer in PEERS.values() for package in peer.packages})
    versions = ", ".join(f"{name} {document[name]}" for name in packages if name in document)
    parts = [_INTRODUCTION.format(**{**document, "versions": versions}), judgement([*_verdicts(rows, terms)])]
    for section, note in _NOTES.items():
        found = [row for row in rows if row.section == section]
        if found:
            parts.append(f"## {section}\n\n{note.format(**terms)}\n\n{table(found, [*PEERS])}{failures(found)}")
    used = "\n".join(
        f"- **{name}**: {peer.used}. Once stored, a message survives {peer.survives}." for name, peer in PEERS.items()
    )
    return "\n".join([*parts, f"## How each is used\n\n{used}\n"])


def _verdicts(rows: Rows, terms: dict[str, int]) -> Iterator[Verdict]:
    for what, kilobytes, flushes, wanted in (
        (EACH, 5.3, 1.0, "5.3 kB and 1 flush a message"),
        (TEN_A_COMMIT, 0.9, 0.11, "0.9 kB and 0.11 flushes a message"),
        (IN_TIME, 0.0, 0.0, "nothing"),
    ):
        size, synced = (_median(rows, DISK, f"{unit}, {what}") for unit in ("bytes", "flushes"))
        measured, reached = "", None
        if size is not None and synced is not None:
            measured = f"{size / 1000:.2f} kB and {synced:.2f} flushes"
            reached = size <= 1000 * kilobytes * 1.005 and synced <= flushes * 1.01
        yield Verdict(f"disk, {what}", f"at most {wanted}" if kilobytes else wanted, measured, reached)
    row = rows.get(SPEED, "publish, QoS 1")
    for peer, times in ((MEMORY, 0.5), (MQTTIUM, 2.0), (OHMQTT, 10.0)):
        ratio = row.ahead(JOURNAL, peer) if row else None
        reached = ratio >= times if ratio else None
        yield Verdict(
            "publish, QoS 1, with a journal", f"at least {times} x {peer}", f"{ratio:.2f} x" if ratio else "", reached
        )
    million = f"{terms['stored']:,}"
    for name, most, unit in (("from CONNACK to the first PUBLISH", 1000.0, "ms"), ("memory", 20.0, "MiB")):
        value, empty = (_median(rows, START, f"{count}: {name}") for count in (million, "1"))
        if value is not None and name == "memory":
            value = value - empty if empty is not None else None
        figure = f"{million} stored messages: {name}{', beyond that of an empty journal' if name == 'memory' else ''}"
        yield Verdict(
            figure,
            f"at most {most:,.0f} {unit}",
            "" if value is None else f"{value:.3g} {unit}",
            None if value is None else value <= most,
        )
    for row in rows:
        if row.section == LEFT:
            value = row.median(JOURNAL)
            yield Verdict(
                row.name, "0", "" if value is None else f"{value:.3g} %", None if value is None else value == 0
            )
    row = rows.get(HEARTBEAT, "longest delay of a timer")
    if row and (ours := row.median(JOURNAL)) is not None and (without := row.median(MEMORY)) is not None:
        noise = max(row.known(MEMORY)) - min(row.known(MEMORY))
        measured = f"{ours:.1f} ms (without: {without:.1f} ± {noise:.1f})"
        yield Verdict(
            "disk of 1 s a flush: longest delay of a 100 ms timer",
            "as without a journal",
            measured,
            ours <= without + max(noise, 5.0),
        )


def _median(rows: Rows, section: str, name: str) -> float | None:
    row = rows.get(section, name)
    return row.median(JOURNAL) if row else None
