"""docs/errors.md: it has every error and reason code, and every text that the library puts into an error."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

from mqtt_token_client import errors, tls_errors
from mqtt_token_client.mqtt.codec import reason_codes

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs/errors.md").read_text().split())
CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.MqttTokenError)
}
# Their texts name the argument and say what to change; the others are for whoever did not write the line.
OF_ARGUMENTS = "ConfigurationError"
SHORTEST = 8  # characters of a piece of text that is looked for


def trees() -> dict[str, ast.Module]:
    """The modules that make such an error, by their paths."""
    makes = re.compile(rf"\b({'|'.join(CLASSES.keys() - {OF_ARGUMENTS})})\(")
    texts = {
        str(path.relative_to(ROOT / "mqtt_token_client")): path.read_text()
        for path in sorted((ROOT / "mqtt_token_client").rglob("*.py"))
        if "testing" not in path.parts
    }
    return {path: ast.parse(text) for path, text in texts.items() if makes.search(text)}


def texts_of(node: ast.expr, named: dict[str, list[ast.expr]]) -> Iterator[str]:
    """The texts that an expression stands for, with … for what is only known when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        for part in node.values:  # such as a hint at the end
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
                yield from texts_of(part.value, named)
    elif isinstance(node, ast.BinOp):
        yield from texts_of(node.left, named)
        yield from texts_of(node.right, named)
    elif isinstance(node, ast.IfExp):
        yield from texts_of(node.body, named)
        yield from texts_of(node.orelse, named)
    elif isinstance(node, ast.Name):
        for value in named.pop(node.id, []):
            yield from texts_of(value, named)


def assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def is_error(node: ast.AST) -> TypeGuard[ast.Call]:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in CLASSES.keys() - {OF_ARGUMENTS}
        and bool(node.args)
    )


@cache
def pieces() -> dict[str, set[str]]:
    """The fixed pieces of the texts of the errors that each module makes."""
    modules = trees()
    constants = assigned(node for tree in modules.values() for node in tree.body)
    found: dict[str, set[str]] = {}
    for path, tree in modules.items():
        nodes = list(ast.walk(tree))
        named = constants | assigned(nodes)
        texts = [text for node in nodes if is_error(node) for text in texts_of(node.args[0], dict(named))]
        found[path] = {piece.strip(" :;,()[]'\"") for text in texts for piece in text.split("…")}
    return found


def test_the_texts_of_errors_are_found() -> None:
    assert {
        "the first packet of the broker was not CONNACK",
        "perhaps this port speaks TLS (mqtts://) or WebSocket (ws://",
    } <= pieces()["mqtt/lifecycle/connect.py"]
    assert "the client was closed before the message was acknowledged" in pieces()["mqtt/session/recorded_outbox.py"]
    assert sum(len(piece) >= SHORTEST for found in pieces().values() for piece in found) > 100


def test_each_text_of_an_error_is_on_the_page() -> None:
    missing = {
        f"{path}: {piece}"
        for path, found in pieces().items()
        for piece in found
        if len(piece) >= SHORTEST and " " in piece and piece not in PAGE
    }
    assert missing == set(), "docs/errors.md needs a row for these, with the cause and what to do"


def test_each_error_is_on_the_page() -> None:
    assert {name for name in CLASSES if name not in PAGE} == set()


def test_each_reason_code_is_on_the_page() -> None:
    rows = {f"| 0x{code:02X} | {known[0]} | " for code, known in reason_codes._CODES.items()}
    assert {row for row in rows if row not in PAGE} == set()


def test_each_alert_about_a_client_certificate_is_on_the_page() -> None:
    assert {text for text in tls_errors._ALERTS.values() if f"`{text}`" not in PAGE} == set()
