"""This library in this checkout compared with another checkout of it, in turns in one run.

The other checkout takes part twice. How much its two columns differ is the noise: what two runs of the same code differ
by on this machine at this time.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.environment import ROOT, surroundings
from benchmarks.speed import footprint, traffic
from benchmarks.speed.broker import Broker
from benchmarks.speed.lab import Contestant, Lab
from benchmarks.speed.peers import OURS, PAHO
from benchmarks.speed.rows import Row, Rows

OTHER, THIS, AGAIN = "other", "this", "other again"

MESSAGES = 40_000  # of 64 B at QoS 0 and 1
LATENCY = 1.0  # seconds of messages at each rate
STANDARD_ERRORS = 3.0  # that count as noise: with some 50 rows, two would call two rows slower that are not

# TokenClient has nothing to await.
BURSTS = [burst for burst in traffic.SMALL if burst.do != "await" and (burst.protocol == 5 or burst.qos == 1)]

_EXPLANATION = """\
{rounds} rounds, of what starts a process two or three times as many, on {date} on {machine}, load {load} at the \
start, with Python {python}, paho-mqtt {paho-mqtt}, Mosquitto {mosquitto} on loopback. *other* is {other}, *this* is \
{this}; both are medians. The ratio is the median of the ratios within each round, above 1 this checkout is slower (or \
larger). The noise is {errors:g} standard errors of that median, estimated from the ratios between two runs of the \
other checkout in the same round, or from the ratios themselves if they are spread wider.
"""


@dataclass(frozen=True)
class Comparison:
    """One row: how many times as slow this checkout is, and by how much that may differ without a reason."""

    row: Row
    ratio: float
    noise: float

    @property
    def verdict(self) -> str:
        if abs(self.ratio - 1) <= self.noise:
            return ""
        return "**slower**" if self.ratio > 1 else "faster"


def compare(other: Path, rounds: int, only: list[str]) -> str:
    """Measure, and return the table.

    Args:
        other: the root of the other checkout.
        rounds: how often each figure is measured.
        only: the parts to measure; all if empty.

    Raises:
        FileNotFoundError: the other checkout has no package.
    """
    about = surroundings()
    rows = Rows()
    with tempfile.TemporaryDirectory() as name, closing(Broker(Path(name))) as broker:
        folder = Path(name)
        contestants = {
            OTHER: _contestant(other, folder / "other"),
            THIS: _contestant(ROOT, folder / "this"),
            AGAIN: _contestant(other, folder / "other"),
        }
        lab = Lab(broker, sys.executable, contestants)
        with_paho = Lab(broker, sys.executable, {**contestants, PAHO: Contestant(PAHO)})
        every: dict[str, Callable[[], None]] = {
            "throughput": partial(traffic.throughput, lab, rows, BURSTS, rounds, MESSAGES),
            "latency": partial(traffic.latency, lab, rows, rounds, LATENCY),
            "starting": partial(traffic.starting, with_paho, rows, 2 * rounds),
            "importing": partial(footprint.importing, with_paho, rows, 3 * rounds),
            "memory": partial(footprint.memory, lab, rows, rounds),
        }
        for part in only or every:
            began = time.monotonic()
            every[part]()
            print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    explanation = _EXPLANATION.format(**about, rounds=rounds, other=other, this=ROOT, errors=STANDARD_ERRORS)
    return f"{explanation}\n{table(rows)}"


def _contestant(checkout: Path, folder: Path) -> Contestant:
    """The package of a checkout, run by the benchmark of this one."""
    package = checkout / "mqtt_token_client"
    if not (package / "__init__.py").exists():
        raise FileNotFoundError(f"{checkout} must be the root of a checkout of this library: {package} does not exist")
    if not folder.exists():
        folder.mkdir()
        (folder / "mqtt_token_client").symlink_to(package)
    return Contestant(
        OURS,
        {
            "PYTHONPATH": f"{folder}:{ROOT}",
            "PYTHONSAFEPATH": "1",  # otherwise the working directory comes first
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),  # nothing is written into the other checkout
        },
    )


def compared(row: Row) -> Comparison | None:
    """One row, or None if a contestant failed in all rounds."""
    ratios = [1 / ratio for ratio in row.ratios(THIS, OTHER) if ratio]
    same = row.ratios(AGAIN, OTHER)
    if not ratios or not same:
        return None
    return Comparison(row, statistics.median(ratios), max(_noise(same), _noise(ratios)))


def _noise(ratios: list[float]) -> float:
    """Of the median of these ratios: from their median deviation, so that a single disturbed round does not count."""
    logarithms = [math.log(ratio) for ratio in ratios]
    middle = statistics.median(logarithms)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in logarithms)  # as a normal one's sigma
    return math.expm1(STANDARD_ERRORS * 1.2533 * deviation / math.sqrt(len(ratios)))


def table(rows: Rows) -> str:
    """In Markdown, with a line that names the rows in which this checkout is slower."""
    known = [one for row in rows if row.section != traffic.BROKER and (one := compared(row))]
    failures = sorted({f"{row.name}: {peer}: {why}" for row in rows for peer, why in row.failures.items()})
    paho = any(row.known(PAHO) for row in rows)
    lines = [
        f"| figure | unit | other | this | ratio | noise | |{' paho-mqtt |' if paho else ''}",
        f"|---|---|---|---|---|---|---|{'---|' if paho else ''}",
    ]
    for one in known:
        row = one.row
        cells = [
            f"{row.section}: {row.name}",
            row.unit,
            _number(row.median(OTHER)),
            _number(row.median(THIS)),
            f"{one.ratio:.3f}",
            f"{one.noise:.3f}",
            one.verdict,
            *([_number(row.median(PAHO))] if paho else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    slower = [one.row.name for one in known if one.verdict == "**slower**"]
    lines += ["", f"Slower by more than the noise: {'; '.join(slower) or 'none'} (of {len(known)} rows)."]
    if failures:
        lines += ["", f"Failed: {'; '.join(failures)}."]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
