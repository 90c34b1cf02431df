"""The page on rotations, generated from the results."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.recording import Document

PACKAGES = ("aiomqtt", "awscrt", "gmqtt", "mqttium", "zmqtt")

_METHOD = """\
{shown}; in each {rotations} rotations under {rate} messages a second each way, every fourth of QoS 0 and the rest of \
QoS 1, over TLS 1.3 to Mosquitto {mosquitto}, through a proxy that adds the round trip. The gap is in what the \
rotating client receives; the wait is from its publish() to the arrival at another client, beyond the median; lost \
messages and duplicates handed to the application are those of both directions, of {sent} sent. The row without \
rotation is the noise. The proxy acknowledges TCP segments itself, so Nagle's algorithm, which paho-mqtt leaves on, \
does not cost it a further round trip here. Measured on {machine}, with Python {python}, \
OpenSSL {openssl}, mqtt-token-client {mqtt-token-client}, {peers}."""


def render(document: Document) -> str:
    runs = [run for row in document["rows"] for run in row["runs"]]
    repeated = len(document["rows"][0]["runs"])
    lines = [
        "# How long a rotation interrupts traffic",
        "",
        _METHOD.format(
            **document,
            shown=f"Medians of {repeated} runs, lowest and highest in brackets" if repeated > 1 else "One run",
            sent=f"{min(run['sent'] for run in runs)} to {max(run['sent'] for run in runs)}",
            peers=", ".join(f"{name} {document[name]}" for name in ("paho-mqtt", *PACKAGES) if name in document),
        ),
        "",
        *_runs(document),
        "| round trip | way | longest gap, ms | longest extra wait, ms | lost, QoS 0 | lost, QoS 1 | duplicates |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        cells = [_cell(values) for values in zip(*map(_shown, row["runs"]), strict=True)]
        lines.append(f"| {row['round_trip'] * 1000:.0f} ms | {row['way']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _runs(document: Document) -> list[str]:
    """When the ways were measured."""
    remarks: dict[str, str] = document["remarks"]
    own = "From the run on {date}, load {load} at the start".format(**document)
    if not remarks:
        return [f"{own}.\n"]
    runs: dict[str, list[str]] = {}
    for way in dict.fromkeys(row["way"] for row in document["rows"]):
        runs.setdefault(remarks.get(way, own).removesuffix("."), []).append(way)
    return [f"{run}: {'; '.join(ways)}.\n" for run, ways in runs.items()]


def _shown(run: dict[str, Any]) -> tuple[float, ...]:
    return (
        run["gap"],
        run["wait"],
        run["lost_qos_0_down"] + run["lost_qos_0_up"],
        run["lost_qos_1_down"] + run["lost_qos_1_up"],
        run["duplicates_down"] + run["duplicates_up"],
    )


def _cell(values: tuple[float, ...]) -> str:
    middle, low, high = (f"{value:.0f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
