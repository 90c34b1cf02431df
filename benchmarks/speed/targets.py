"""The targets of this library, and whether it reaches them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.recording import file_of, load
from benchmarks.speed.footprint import FLEET, GROWTH, IDLE, IMPORT, PACKAGE, ROTATED
from benchmarks.speed.peers import AIOMQTT, BARE, BY_HAND, GMQTT, MQTTIUM, OURS, OURS_IN_ASYNCIO, PAHO, PEERS
from benchmarks.speed.rows import Row, Rows
from benchmarks.speed.traffic import FAR, LATENCY, PROCESSOR, THROUGHPUT

_STEADY = 0.5  # MiB by which a process may have grown before it counts as growing


@dataclass(frozen=True)
class Verdict:
    """A target: ``reached`` is None where this run did not measure it."""

    figure: str
    target: str
    measured: str
    reached: bool | None


def verdicts(rows: Rows) -> list[Verdict]:
    """Of a run, and of the results of the rotation benchmark that are kept for this release."""
    return [*_speed(rows), *_asyncio(rows), *_rotation(), *_footprint(rows)]


def _asyncio(rows: Rows) -> Iterator[Verdict]:
    """Publishing by messages a second; receiving by processor time, as the broker sets the pace."""
    for peer, times in ((GMQTT, 1.0), (MQTTIUM, 1.0), (AIOMQTT, 5.0)):
        ratios = _ratios(rows, THROUGHPUT, "publish, QoS 1, 64 B", peer, OURS_IN_ASYNCIO)
        measured = _words(ratios, times)
        if spent := _ratios(rows, PROCESSOR, "publish, QoS 1, 64 B", peer, OURS_IN_ASYNCIO):
            measured += f"; by processor time {_words(spent)}"
        figure = "asyncio: publish, QoS 1, 64 B, plain"
        yield Verdict(figure, f"at least {times} x {peer}", measured, _all_reach(ratios, times))
    for qos, (peer, times) in product((1, 0), ((GMQTT, 1.0), (MQTTIUM, 1.0), (AIOMQTT, 5.0))):
        what = f"QoS {qos}, 64 B"
        spent = _ratios(rows, PROCESSOR, f"receive, {what}", peer, OURS_IN_ASYNCIO)
        measured = _words(spent, times)
        if rate := _ratios(rows, THROUGHPUT, f"receive, {what}", peer, OURS_IN_ASYNCIO):
            measured += f"; by messages a second {_words(rate)}"
        if backlog := _ratios(rows, THROUGHPUT, f"receive a backlog, {what}", peer, OURS_IN_ASYNCIO):
            measured += f"; of a backlog {_words(backlog)}"
        wanted = f"at least {times} x {peer} by processor time"
        yield Verdict(f"asyncio: receive, {what}, plain", wanted, measured, _all_reach(spent, times))


def _all_reach(ratios: dict[str, float], times: float) -> bool | None:
    return all(ratio >= times for ratio in ratios.values()) if ratios else None


def _speed(rows: Rows) -> Iterator[Verdict]:
    for do, qos, peer, times in (
        ("publish", 1, "gmqtt", 1.0),
        ("publish", 1, "awscrt", 2.5),
        ("publish", 1, "paho-mqtt", 3.5),
        ("publish", 0, "gmqtt", 1.0),
        ("publish", 0, "paho-mqtt", 4.0),
        ("receive", 1, "gmqtt", 1.2),
        ("receive", 0, "gmqtt", 1.0),
        ("receive", 1, "paho-mqtt", 2.5),
        ("receive", 0, "paho-mqtt", 2.5),
    ):
        what = f"{do}, QoS {qos}, 64 B"
        ratios = _ratios(rows, THROUGHPUT, what, peer)
        measured = _words(ratios, times)
        if spent := _ratios(rows, PROCESSOR, what, peer):
            measured += f"; by processor time {_words(spent)}"
        if do == "receive" and (backlog := _ratios(rows, THROUGHPUT, f"receive a backlog, QoS {qos}, 64 B", peer)):
            measured += f"; of a backlog {_words(backlog)}"
        wanted = f"at least {times} x {peer}"
        yield Verdict(f"{do}, QoS {qos}, 64 B, plain", wanted, measured, _all_reach(ratios, times))
    name = "publish() to acknowledgement, p99, 1000 a second"
    yield _compared(rows.get(LATENCY, name), name, "paho-mqtt", 1.0)
    far = rows.get(FAR, "publish, QoS 1, 64 B, MQTT 5")
    yield _bounded(far, "publish, QoS 1, over a round trip of 100 ms", "at least 5,000 a second", least=5000)


def _ratios(rows: Rows, section: str, what: str, peer: str, ours: str = OURS) -> dict[str, float]:
    """How many times better we are than a library, by protocol."""
    return {
        protocol: ratio
        for protocol in ("MQTT 5", "MQTT 3.1.1")
        if (row := rows.get(section, f"{what}, {protocol}")) and (ratio := row.ahead(ours, peer))
    }


def _words(ratios: dict[str, float], least: float = 0.0) -> str:
    """With another digit where a ratio that is less than ``least`` would not look so."""
    return ", ".join(
        f"{ratio:.{3 if ratio < least <= round(ratio, 2) else 2}f} x ({protocol})" for protocol, ratio in ratios.items()
    )


def _rotation() -> Iterator[Verdict]:
    runs: dict[tuple[float, str], list[dict[str, Any]]] = {}
    if file_of("rotation").exists():
        runs = {(row["round_trip"], row["way"]): row["runs"] for row in load("rotation")["rows"]}

    def middle(round_trip: float, way: str, key: str) -> float | None:
        values = [run[key] for run in runs.get((round_trip, way), ())]
        return statistics.median(values) if values else None

    for round_trip in (0.02, 0.1):
        quiet = {key: middle(round_trip, "no rotation: the noise", key) for key in ("gap", "wait")}
        for kind in ("handover", "re-authentication"):
            for key, what in (("wait", "longest wait of a publish"), ("gap", "longest gap in what is received")):
                base, value = quiet[key], middle(round_trip, f"this library, {kind}, MQTT 5", key)
                figure = f"{kind}, {1000 * round_trip:.0f} ms round trip, TLS: {what}"
                if kind == "re-authentication":
                    limit, wanted = (base or 0) + 10, "no more than without rotation, and 10 ms of noise"
                elif key == "wait":
                    limit, wanted = 1000 * round_trip + 10, "1 round trip and 10 ms"
                else:
                    limit = (base or 0) + 300 * round_trip + 10
                    wanted = "0.3 round trip and 10 ms more than without rotation"
                if value is None or base is None:
                    yield Verdict(figure, wanted, "", None)
                else:
                    yield Verdict(figure, wanted, f"{value:.0f} ms (without: {base:.0f})", value <= limit)


def _footprint(rows: Rows) -> Iterator[Verdict]:
    for name, wanted, most in (
        ("wake-ups a second", "at most 0.1", 0.1),
        ("processor time a minute", "at most 2 ms", 2.0),
        ("threads beside the program's own", "1", 1.0),
    ):
        yield _bounded(rows.get(IDLE, name), f"idle, TLS, keepalive 60: {name}", wanted, most=most)
    yield _compared(
        rows.get(IMPORT, f"time, `{PACKAGE}`"), f"`{PACKAGE}`, which loads names when they are used", PAHO, 1 / 1.1
    )
    yield _compared(rows.get(IMPORT, "time"), f"`{PEERS[OURS].imports}`", PAHO, 1 / 1.1)
    yield _compared(rows.get(ROTATED, "connected"), "memory, connected over TLS, token included", BY_HAND, 1 / 1.1)
    stages = [row for row in rows if row.section == ROTATED]
    growth = None
    if len(stages) > 2:
        before, after = stages[-2].median(OURS), stages[-1].median(OURS)
        growth = after - before if before is not None and after is not None else None
    yield Verdict(
        f"memory, {stages[-1].name} against {stages[-2].name}" if growth is not None else "memory while tokens change",
        f"no growth (at most {_STEADY} MiB of noise)",
        f"{growth:+.2f} MiB" if growth is not None else "",
        growth <= _STEADY if growth is not None else None,
    )
    yield from _growth(rows)


def _growth(rows: Rows) -> Iterator[Verdict]:
    clients = "1,000 clients"
    tls = rows.get(GROWTH, f"{clients}, TLS, a client")
    ours, bare = (tls.median(OURS), tls.median(BARE)) if tls else (None, None)
    beyond = ours - bare if ours is not None and bare is not None else None
    yield Verdict(
        f"{clients} in one process: memory of each, beyond the TLS library's own",
        "at most 60 KiB",
        f"{beyond:.0f} KiB" if beyond is not None else "",
        beyond <= 60 if beyond is not None else None,
    )
    threads = rows.get(GROWTH, f"{clients}, TLS, threads")
    yield _bounded(threads, f"{clients} in one process: network threads", "1", most=1)

    def figure(name: str) -> float | None:
        row = rows.get(FLEET, name)
        return row.median(OURS) if row else None

    took, given = figure("time that they took"), figure("time that the jitter gives them")
    yield Verdict(
        f"{clients} rotate within their jitter",
        "within it, and 1 s for the last",
        f"{figure('rotations'):.0f} in {took:.1f} s of {given:.0f} s" if took and given else "",
        took <= given + 1 and figure("rotations") == 1000 if took and given else None,
    )
    lost = figure("messages lost")
    yield Verdict(
        f"{clients} rotate: messages lost",
        "0",
        f"{lost:.0f} of {figure('messages sent'):.0f}" if lost is not None else "",
        lost == 0 if lost is not None else None,
    )


def _compared(row: Row | None, figure: str, peer: str, times: float) -> Verdict:
    """Of a figure of which less is better."""
    ahead = row.ahead(OURS, peer) if row else None
    wanted = f"no more than {peer}'s" if times == 1 else f"at most {1 / times:.1f} x {peer}"
    if row is None or not ahead:
        return Verdict(figure, wanted, "", None)
    measured = f"{1 / ahead:.2f} x ({row.median(OURS):.1f} to {row.median(peer):.1f} {row.unit})"
    return Verdict(figure, wanted, measured, ahead >= times)


def _bounded(
    row: Row | None, figure: str, wanted: str, *, least: float = float("-inf"), most: float = float("inf")
) -> Verdict:
    value = row.median(OURS) if row else None
    if row is None or value is None:
        return Verdict(figure, wanted, "", None)
    measured = f"{value:,.0f}" if value >= 1000 else f"{value:.3g} {row.unit}".strip()
    return Verdict(figure, wanted, measured, least <= value <= most)
