"""The results of each release: a JSON file for each benchmark, and the page in docs/ that is generated from it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT
from mqtt_token_client import __version__

Document = dict[str, Any]

PAGES = {
    "speed": ROOT / "docs" / "performance.md",
    "journal": ROOT / "docs" / "journal-costs.md",
    "rotation": ROOT / "docs" / "rotation.md",
    "tokens": ROOT / "docs" / "tokens.md",
}


def file_of(benchmark: str) -> Path:
    """The results of this release."""
    return ROOT / "benchmarks" / "results" / __version__ / f"{benchmark}.json"


def load(benchmark: str) -> Document:
    document: Document = json.loads(file_of(benchmark).read_text())
    return document


def add_options(parser: argparse.ArgumentParser, benchmark: str) -> None:
    """The two options that every benchmark has: what to do with the results."""
    file, page = file_of(benchmark).relative_to(ROOT), PAGES[benchmark].relative_to(ROOT)
    parser.add_argument("--record", action="store_true", help=f"keep the results: {file} and {page}")
    parser.add_argument("--page", action="store_true", help=f"measure nothing, generate {page} from {file}")


def beside(document: Document, earlier: Document, part: str) -> Document:
    """A run of some parts, and what an earlier one measured of the others, which says so. ``part`` is the entry of a
    row that says to which part it belongs.
    """
    measured = {row[part] for row in document["rows"]}
    kept = [row for row in earlier["rows"] if row[part] not in measured]
    remark = "From an earlier run, on {date}, load {load} at the start.".format(**earlier)
    remarks = {row[part]: earlier["remarks"].get(row[part], remark) for row in kept}
    return document | {"rows": kept + document["rows"], "remarks": remarks}


def when(document: Document, part: str) -> str:
    """When the parts of a document were measured, in a sentence: those that have no remark by its own run."""
    run = "on {date}, load {load} at the start".format(**document)
    if not document["remarks"]:
        return f"The run was {run}."
    own = [name for name in dict.fromkeys(row[part] for row in document["rows"]) if name not in document["remarks"]]
    tables = f"The run {run}, measured only: {'; '.join(own)}."
    return f"{tables} Each of the other tables says from which earlier run it is."


def finish(benchmark: str, document: Document, render: Callable[[Document], str], *, record: bool) -> None:
    """Print the page of a run; with ``record`` keep its results and its page."""
    text = render(document)
    print(text)
    if record:
        file = file_of(benchmark)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document, indent=1) + "\n")
        PAGES[benchmark].write_text(text)


def regenerate(benchmark: str, render: Callable[[Document], str]) -> None:
    PAGES[benchmark].write_text(render(load(benchmark)))
