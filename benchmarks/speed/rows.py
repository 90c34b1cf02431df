"""What is measured: a figure of each library in each round, and how the libraries compare."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass
class Row:
    """One figure.

    Attributes:
        section: the table that it stands in.
        name: what it is of.
        unit: of the values.
        more: whether more is better.
        values: of each library, a round each; None where it failed.
        failures: why a library has no figure.
    """

    section: str
    name: str
    unit: str
    more: bool = False
    values: dict[str, list[float | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def known(self, peer: str) -> list[float]:
        return [value for value in self.values.get(peer, ()) if value is not None]

    def median(self, peer: str) -> float | None:
        known = self.known(peer)
        return statistics.median(known) if known else None

    def ratios(self, ours: str, peer: str) -> list[float]:
        """How many times better ours is, in each round."""
        pairs = zip(self.values.get(ours, ()), self.values.get(peer, ()), strict=False)
        return [mine / other if self.more else other / mine for mine, other in pairs if mine and other]

    def ahead(self, ours: str, peer: str) -> float | None:
        """The median of the ratios."""
        ratios = self.ratios(ours, peer)
        return statistics.median(ratios) if ratios else None


class Rows:
    """The rows in the order in which they came."""

    def __init__(self, known: Iterable[Row] = ()) -> None:
        self._rows = {(row.section, row.name): row for row in known}

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def get(self, section: str, name: str) -> Row | None:
        return self._rows.get((section, name))

    def add(self, section: str, name: str, unit: str, peer: str, value: float | None, *, more: bool = False) -> None:
        row = self._rows.setdefault((section, name), Row(section, name, unit, more))
        row.values.setdefault(peer, []).append(value)

    def failed(self, section: str, name: str, unit: str, peer: str, why: str, *, more: bool = False) -> None:
        self.add(section, name, unit, peer, None, more=more)
        self._rows[section, name].failures[peer] = why
