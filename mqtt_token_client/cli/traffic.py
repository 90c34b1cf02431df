"""What ``mqtt-token sub --stats`` counts and shows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..description import describe, milliseconds
from ..events import Event, Rotated, TokenRenewed
from ..logs import printable

_WINDOW = 5.0  # seconds that a rate is the mean of
_WIDTH = 120  # columns of the picture at most
_OTHER_LINES = 9  # of the picture, beside those of the topics


class Count(NamedTuple):
    """Messages of a topic, or of all.

    Attributes:
        messages: how many.
        size: bytes of their payloads.
        last: the last payload.
    """

    messages: int = 0
    size: int = 0
    last: bytes = b""

    def add(self, payload: bytes) -> Count:
        return Count(self.messages + 1, self.size + len(payload), payload)


class Traffic:
    """Counts the messages of a subscriber. One thread adds, one reads."""

    def __init__(self) -> None:
        self.total = Count()
        self.topics: dict[str, Count] = {}
        self.state = "connecting"
        self.gaps: list[float] = []  # one for each rotation
        self._began = time.monotonic()
        self._earlier: deque[tuple[float, int]] = deque([(self._began, 0)])

    def add(self, topic: str, payload: bytes) -> None:
        """Count a message."""
        self.total = self.total.add(payload)
        self.topics[topic] = self.topics.get(topic, Count()).add(payload)

    def on_event(self, event: Event) -> None:
        """Take note of an event of the client."""
        if isinstance(event, Rotated):
            self.gaps.append(event.gap)
        if not isinstance(event, TokenRenewed):  # the rotation that follows is what matters here
            self.state = describe(event)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def rate(self) -> float:
        """Messages a second, the mean of the last seconds."""
        now, count = time.monotonic(), self.total.messages
        self._earlier.append((now, count))
        while len(self._earlier) > 2 and self._earlier[1][0] <= now - _WINDOW:
            self._earlier.popleft()
        began, before = self._earlier[0]
        return (count - before) / (now - began) if now > began else 0.0


def line(traffic: Traffic) -> str:
    """Sum up the traffic in one line, for a log."""
    return (
        f"{traffic.elapsed:.0f} s: {traffic.total.messages} messages, {traffic.rate():.1f} a second, "
        f"{size(traffic.total.size)}, {len(traffic.topics)} topics, {len(traffic.gaps)} rotations; {traffic.state}"
    )


def picture(traffic: Traffic, console: Console) -> RenderableType:
    """Draw the traffic as a table that fits the terminal: the topics with the most messages, and the sums."""
    width = min(console.width, _WIDTH)
    lines = max(1, console.height - _OTHER_LINES)
    topics = sorted(traffic.topics.copy().items(), key=lambda item: -item[1].messages)
    caption = f"{traffic.rate():.1f} messages a second for {traffic.elapsed:.0f} s. Ctrl-C stops it"
    table = Table(
        width=width, title=_line(f"mqtt-token sub: {traffic.state}"), caption=_line(caption), show_footer=True
    )
    table.add_column("topic", no_wrap=True, overflow="ellipsis", ratio=3, footer=_footer(topics, lines))
    table.add_column("messages", justify="right", no_wrap=True, footer=str(traffic.total.messages))
    table.add_column("size", justify="right", no_wrap=True, footer=size(traffic.total.size))
    table.add_column("last payload", no_wrap=True, overflow="ellipsis", ratio=2, footer=_rotations(traffic.gaps))
    for topic, count in topics[:lines]:
        last = printable(count.last.decode(errors="replace"))
        table.add_row(Text(printable(topic), "cyan"), str(count.messages), size(count.size), Text(last))
    return table


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _footer(topics: Sequence[object], lines: int) -> str:
    more = len(topics) - lines
    return f"{len(topics)} topics" + (f", {more} not shown" if more > 0 else "")


def _rotations(gaps: Sequence[float]) -> str:
    if not gaps:
        return "no rotation yet"
    return f"{len(gaps)} rotation{'' if len(gaps) == 1 else 's'}, longest gap {milliseconds(max(gaps))}"


def size(count: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
