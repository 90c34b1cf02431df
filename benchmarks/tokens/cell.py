"""The result of a trial, and how it is worded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.tokens.bench import Answer, Bench

USES, EVERY = 20, 0.5  # uses of a token, and seconds from one to the next


@dataclass(frozen=True)
class Cell:
    """The result of a trial of a library.

    Attributes:
        text: for the table.
        cost: what is compared between libraries, the weightiest first and the less the better; None: not offered.
        data: what was measured.
    """

    text: str
    cost: tuple[float, ...] | None
    data: Answer


Trial = Callable[[Bench], Cell]


def not_offered(reason: str) -> Cell:
    return Cell(f"not offered: {reason}", None, {"not_offered": reason})


def errors_in(uses: list[Answer]) -> list[str]:
    return [use["error"] for use in uses if use["error"]]


def count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def part_of(failed: int, uses: int) -> str:
    if not failed:
        return "no use fails"
    return "all uses fail" if failed == uses else f"{failed} of {uses} uses fail"


def named(errors: list[str]) -> str:
    return f" ({', '.join(sorted(set(errors)))})" if errors else ""
