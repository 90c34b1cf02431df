"""A picture that refreshes on a terminal, and lines where there is none."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live

if TYPE_CHECKING:
    from rich.console import RenderableType

_PERIOD = 10.0  # seconds between lines
_REFRESHES = 4  # of the picture, a second


def show_until(
    over: threading.Event,
    picture: Callable[[Console], RenderableType] | None,
    line: Callable[[], str],
    timeout: float | None = None,
) -> bool:
    """Show how something goes until it is over, the time is, or Ctrl-C.

    Args:
        over: set when it is over.
        picture: draws it for the terminal; None shows lines there, too.
        line: the same in one line, for a log, at the beginning, every ten seconds and at the end.
        timeout: seconds to wait; None has no limit.

    Returns:
        Whether it is over.
    """
    console = Console()
    try:
        if picture is None or not can_refresh(console):
            return _lines(over, line, timeout)
        draw = picture
        with Live(get_renderable=lambda: draw(console), console=console, refresh_per_second=_REFRESHES):
            return over.wait(timeout)
    except KeyboardInterrupt:
        return over.is_set()


def can_refresh(console: Console) -> bool:
    """Whether a picture can refresh there: not where TERM is dumb, as it is in Emacs."""
    return console.is_terminal and not console.is_dumb_terminal


def _lines(over: threading.Event, line: Callable[[], str], timeout: float | None) -> bool:
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    try:
        while (left := deadline - time.monotonic()) > 0:
            click.echo(line())
            if over.wait(min(_PERIOD, left)):
                break
    finally:
        click.echo(line())
    return over.is_set()
