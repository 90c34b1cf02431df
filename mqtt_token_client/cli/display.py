"""The output of the demo: turns a snapshot of its counters into what rich can print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..description import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

_WIDTH = 80
_BAR = 30
_EVENTS = 6
_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The demo at one moment; times are in seconds."""

    elapsed: float = 0.0
    token: str = ""  # the last characters of its jti
    token_left: float = 0.0
    token_lifetime: float = 0.0
    renewals: int = 0
    gaps: tuple[float, ...] = ()  # one for each rotation
    sent: int = 0
    received: int = 0
    lost: int = 0
    duplicated: int = 0
    events: tuple[tuple[float, str], ...] = ()


def sparkline(values: Sequence[float]) -> str:
    """Draw values as a row of blocks; the greatest value is the highest."""
    top = max(values, default=0.0)
    return "".join(_SPARKS[round((len(_SPARKS) - 1) * value / top)] if top else _SPARKS[0] for value in values)


def lifetime_bar(left: float, lifetime: float) -> Text:
    """Draw the remaining lifetime of a token: yellow in the last third, when it is renewed, red in the last tenth."""
    part = min(max(left / lifetime, 0.0), 1.0) if lifetime else 0.0
    filled = round(part * _BAR)
    colour = "green" if part > 1 / 3 else "yellow" if part > 1 / 10 else "red"
    return Text.assemble(("█" * filled, colour), ("░" * (_BAR - filled), "dim"), f" {max(left, 0.0):4.1f} s left")


def table(now: Snapshot) -> RenderableType:
    """Draw the whole picture, at most 80 columns wide."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True, min_width=9)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    rows.add_row(
        "token", Text.assemble((f"{now.token:<8}", "cyan"), " ", lifetime_bar(now.token_left, now.token_lifetime))
    )
    renewals = f"{now.renewals} renewal{'' if now.renewals == 1 else 's'}"
    rows.add_row("rotations", f"{len(now.gaps):<8} {renewals} in {now.elapsed:.0f} s")
    if now.gaps:
        recent = now.gaps[-_BAR:]
        last_and_max = f"last {milliseconds(now.gaps[-1])}, max {milliseconds(max(now.gaps))}"
        rows.add_row("gap", Text.assemble(f"{last_and_max}  ", (sparkline(recent), "cyan")))
    else:
        rows.add_row("gap", "no rotation yet")
    rows.add_row(
        "messages",
        Text.assemble(
            f"sent {now.sent}   received {now.received}   ",
            (f"lost {now.lost}", "bold red" if now.lost else "green"),
            "   ",
            (f"duplicated {now.duplicated}", "bold yellow" if now.duplicated else "green"),
        ),
    )
    rows.add_row()
    events = [(f"{at:6.1f} s", what) for at, what in now.events[-_EVENTS:]]
    for at, what in events + [("", "")] * (_EVENTS - len(events)):
        rows.add_row(Text(at, "dim", justify="right"), what)
    return Panel(rows, title="mqtt-token demo", subtitle="Ctrl-C stops it", width=_WIDTH, padding=(1, 2))


def line(now: Snapshot) -> str:
    """Format the last event and the counters as one line, for a log."""
    at, what = now.events[-1]
    return (
        f"{at:6.1f} s  {what}; sent {now.sent}, received {now.received}, lost {now.lost}, duplicated {now.duplicated}"
    )


def verdict(end: Snapshot) -> str:
    """Sum up the result of the demo in a paragraph."""
    if not end.gaps:
        return (
            f"In {end.elapsed:.0f} s the connection never moved onto a new token, so this shows nothing. "
            "Let it run longer."
        )
    rotations = "once" if len(end.gaps) == 1 else f"{len(end.gaps)} times"
    lost = f"{end.lost} WERE LOST" if end.lost else "none was lost"
    twice = end.duplicated or "none"
    return (
        f"In {end.elapsed:.0f} s, with tokens valid for {end.token_lifetime:.0f} s, the connection moved onto a new "
        f"token {rotations}. The longest gap in which nothing could be sent or received was "
        f"{milliseconds(max(end.gaps))}. "
        f"Of {end.sent} messages, {lost} and {twice} arrived twice."
    )
