"""The settings of a broker as docs/brokers.md shows them, so that the servers of the tests run with these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_DOCUMENT = Path(__file__).parents[2] / "docs" / "brokers.md"


def documented(section: str, language: str, replaced: Mapping[str, str]) -> str:
    """Return the first block in a language of a section, with parts of it replaced.

    Args:
        section: its heading.
        language: of the block.
        replaced: what to write there, by what is replaced, such as a path.

    Raises:
        LookupError: there is no such block, or a part does not occur in it exactly once.
    """
    text = _DOCUMENT.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    block = found and re.search(rf"^```{language}\n(.*?)^```", found[1], re.MULTILINE | re.DOTALL)
    if not block:
        raise LookupError(f"docs/brokers.md, {section}: there is no block of {language}")
    settings = block[1]
    for old, new in replaced.items():
        if settings.count(old) != 1:
            raise LookupError(f"docs/brokers.md, {section}: {old!r} must occur once")
        settings = settings.replace(old, new)
    return settings
