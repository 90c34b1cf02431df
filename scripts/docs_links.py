"""For the site: links from the pages to other files of the repository lead to GitHub."""

from __future__ import annotations

import re
from typing import Any

_REPOSITORY = "https://github.com/mqtt-token-client/mqtt-token-client/blob/main/"


def on_page_markdown(markdown: str, **_: Any) -> str:
    return re.sub(r"\]\(\.\./", f"]({_REPOSITORY}", markdown)
