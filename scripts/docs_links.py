"""For the site: links from the pages to other files of the repository lead to GitHub; images are loaded from there."""

from __future__ import annotations

import re
from typing import Any

_REPOSITORY = "https://github.com/mqtt-token-client/mqtt-token-client"


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = re.sub(r"(!\[[^\]]*\]\()\.\./", rf"\1{_REPOSITORY}/raw/main/", markdown)
    return re.sub(r"\]\(\.\./", f"]({_REPOSITORY}/blob/main/", markdown)
