"""Draws the plots of the results of this release, beside their JSON file; needs matplotlib."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.recording import file_of, load

# Name of the file: title, section, rows with the label of each, whether the axis is logarithmic.
PLOTS: dict[str, tuple[str, str, dict[str, str], bool]] = {
    "throughput": (
        "Messages a second, 64 B, MQTT 5, plain: more is better",
        "Messages a second",
        {f"{do}, QoS {qos}, 64 B, MQTT 5": f"{do}\nQoS {qos}" for do in ("publish", "receive") for qos in (0, 1, 2)},
        False,
    ),
    "processor": (
        "Processor time a message, µs, 64 B, MQTT 5, plain: less is better",
        "Processor time a message",
        {f"{do}, QoS {qos}, 64 B, MQTT 5": f"{do}\nQoS {qos}" for do in ("publish", "receive") for qos in (0, 1, 2)},
        False,
    ),
    "latency": (
        "Latency of QoS 1 at 1,000 messages a second, ms: less is better",
        "Latency",
        {
            f"publish() to {what}, {share}, 1000 a second": f"{what}\n{share}"
            for what in ("acknowledgement", "arrival")
            for share in ("median", "p99")
        },
        True,
    ),
    "memory": (
        "Memory of one client over TLS, MiB, Python included: less is better",
        "Memory of one client, over TLS",
        {
            "after the import": "after\nthe import",
            "connected": "connected",
            "with 10,000 messages of 64 B queued": "10,000 messages\nqueued",
        },
        False,
    ),
}


def draw(document: dict[str, Any], name: str, file: Path) -> None:
    """Bars with the median, and a line from the lowest to the highest."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    title, section, labels, logarithmic = PLOTS[name]
    rows = {row["name"]: row["values"] for row in document["rows"] if row["section"] == section}
    shown = [row for row in labels if row in rows]
    colours = {peer: f"C{number}" for number, peer in enumerate(document["libraries"])}
    peers = [peer for peer in colours if any(peer in rows[row] for row in shown)]
    figure, axes = plt.subplots(figsize=(10, 4.5))
    width = 0.8 / max(len(peers), 1)
    for number, peer in enumerate(peers):
        places, middles, spread = [], [], []
        for place, row in enumerate(shown):
            values = [value for value in rows[row].get(peer, ()) if value is not None]
            if values:
                middle = statistics.median(values)
                places.append(place + (number - (len(peers) - 1) / 2) * width)
                middles.append(middle)
                spread.append((middle - min(values), max(values) - middle))
        axes.bar(
            places,
            middles,
            width * 0.92,
            yerr=[*zip(*spread, strict=True)],
            label=peer,
            color=colours[peer],
            ecolor="#555",
        )
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xticks(range(len(shown)), [labels[row] for row in shown])
    axes.set_title(title, fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "performance"  # the same figures produce the same file
    document, source = load("speed"), file_of("speed")
    for name in PLOTS:
        draw(document, name, source.with_name(f"{source.stem}-{name}.svg"))


if __name__ == "__main__":
    main()
