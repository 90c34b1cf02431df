"""Text that fits the width of a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap

_NARROWEST = 20  # columns for text beside its indent


def wrapped(text: str, indent: int = 0) -> str:
    """Break a text between words, so that it fits the terminal if each line but the first is indented. Where stdout is
    not a terminal, it stays on one line.

    Args:
        text: one line.
        indent: columns before each further line, and what is printed before the first.
    """
    if not sys.stdout.isatty():
        return text
    width = max(shutil.get_terminal_size().columns - indent, _NARROWEST)
    lines = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    return f"\n{' ' * indent}".join(lines)
