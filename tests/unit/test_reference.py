"""The site: its reference has every public name, and its navigation every page."""

from __future__ import annotations

import re
from pathlib import Path

import mqtt_token_client

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_public_name_is_in_the_reference_where_it_is_defined() -> None:
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    described = set(re.findall(r"^::: mqtt_token_client\.([\w.]+)\.(\w+)$", pages, re.MULTILINE))
    public = {(module, name) for name, module in mqtt_token_client._HOMES.items()}
    assert public - described == set()
    assert {module for module, _ in described - public} <= {
        *("testing.authorization_server", "testing.broker", "testing.device_clock", "contrib.paho", "contrib.systemd")
    }


def test_every_page_is_in_the_navigation() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert set(re.findall(r": ([\w/-]+\.md)$", navigation, re.MULTILINE)) == pages


def test_every_event_is_in_the_table_of_events() -> None:
    table = (DOCS / "using.md").read_text()
    named = {name for name in mqtt_token_client._HOMES if _is_event(getattr(mqtt_token_client, name))}
    assert {name for name in named if f"| `{name}` |" not in table} == set()


def _is_event(value: object) -> bool:
    return (
        isinstance(value, type) and issubclass(value, mqtt_token_client.Event) and value is not mqtt_token_client.Event
    )
