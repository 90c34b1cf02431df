"""docs/errors.md: it has every error and reason code, and every text that the library puts into an error."""

from __future__ import annotations

import ast
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
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
SHORTEST = 8  # characters of a piece of text that is looked for


def trees() -> dict[str, ast.Module]:
    """The modules of the package, by their paths."""
    package = ROOT / "mqtt_token_client"
    return {str(path.relative_to(package)): ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}


def texts_of(node: ast.expr, named: Mapping[str, list[ast.expr]], seen: set[str]) -> Iterator[str]:
    """The texts that an expression stands for, with … for what is only known when it runs.

    Args:
        node: the expression.
        named: what each name is assigned, and what each function returns, which has () behind its name.
        seen: the names that were followed already.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        for part in node.values:  # such as a hint at the end
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name | ast.IfExp):
                yield from texts_of(part.value, named, seen)
    elif isinstance(node, ast.BinOp):
        yield from texts_of(node.left, named, seen)
        yield from texts_of(node.right, named, seen)
    elif isinstance(node, ast.IfExp):
        yield from texts_of(node.body, named, seen)
        yield from texts_of(node.orelse, named, seen)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts_of(value, named, seen)
    elif isinstance(node, ast.Name | ast.Call):
        name = node.id if isinstance(node, ast.Name) else called(node)
        if name not in seen:
            seen.add(name)
            for value in named.get(name, []):
                yield from texts_of(value, named, seen)


def called(node: ast.Call) -> str:
    return f"{node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)}()"


def assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
        elif isinstance(node, ast.NamedExpr):
            found.setdefault(node.target.id, []).append(node.value)
    return found


def returned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What each function of a module returns."""
    return {
        f"{function.name}()": [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
    }


def is_error(node: ast.AST) -> TypeGuard[ast.Call]:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES and bool(node.args)
    )


@cache
def texts() -> dict[str, list[tuple[str, str]]]:
    """The errors that each module makes: the class, and the text with … for what varies."""
    modules = trees()
    everywhere = assigned(node for tree in modules.values() for node in tree.body)
    for tree in modules.values():
        everywhere |= returned(tree)
    found: dict[str, list[tuple[str, str]]] = {}
    for path, tree in modules.items():
        nodes = list(ast.walk(tree))
        named = ChainMap(assigned(nodes), returned(tree), everywhere)
        errors_here = [node for node in nodes if is_error(node)]
        found[path] = [
            (ast.unparse(node.func), text) for node in errors_here for text in texts_of(node.args[0], named, set())
        ]
    return found


def pieces(text: str) -> list[str]:
    """The fixed pieces of a text that are long enough to be looked for."""
    found = [piece.strip(" :;,()[]'\"") for piece in text.split("…")]
    return [piece for piece in found if len(piece) >= SHORTEST and " " in piece]


def pattern(text: str) -> re.Pattern[str]:
    """What finds a text where something stands for what varies."""
    return re.compile(".*".join(re.escape(piece.strip(" :;,")) for piece in text.split("…")))


def rows(heading: str) -> Iterator[tuple[list[str], str]]:
    """The rows of the tables of a section: the texts in the first column, and the second one."""
    section = (ROOT / "docs/errors.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("|") and not line.startswith(("| text |", "|---")):
            _, shown, remedy, _ = re.split(r" \| |^\| | \|$", line)
            yield in_backticks(shown), remedy


def in_backticks(markdown: str) -> list[str]:
    return [text.strip() for _, text in re.findall(r"(`+)(.+?)\1(?!`)", markdown)]


def test_the_texts_of_errors_are_found() -> None:
    found = {
        path: {piece for _, text in errors_here for piece in pieces(text)} for path, errors_here in texts().items()
    }
    assert {
        "the first packet of the broker was not CONNACK",
        "perhaps this port speaks TLS (mqtts://) or WebSocket (ws://",
    } <= found["mqtt/lifecycle/connect.py"]
    assert "the client was closed before the message was acknowledged" in found["mqtt/session/recorded_outbox.py"]
    assert "must not contain a user name or a fragment" in found["sources/web_clock.py"]  # by a function elsewhere
    assert sum(map(len, found.values())) > 300


def test_each_text_of_an_error_is_on_the_page() -> None:
    missing = {
        f"{path}: {piece}"
        for path, errors_here in texts().items()
        for _, text in errors_here
        for piece in pieces(text)
        if piece not in PAGE
    }
    assert missing == set(), "docs/errors.md needs a row for these, with the cause and what to do"


def test_each_text_of_a_configuration_error_is_in_its_section_as_a_whole() -> None:
    shown = [text for found, remedy in rows("ConfigurationError") for text in (*found, *in_backticks(remedy))]
    elsewhere = "the WebSocket upgrade was answered with HTTP"  # with BrokerUnreachable; what follows it is here
    missing = {
        text
        for errors_here in texts().values()
        for kind, text in errors_here
        if kind == "ConfigurationError" and pieces(text) and elsewhere not in text
        if not any(map(pattern(text).search, shown))
    }
    assert missing == set(), "docs/errors.md needs a row for these in the section ConfigurationError"


def test_each_row_about_a_configuration_error_shows_texts_that_exist() -> None:
    known = {text for errors_here in texts().values() for _, text in errors_here}
    patterns = [pattern(text) for text in known if sum(map(str.isalpha, text)) >= SHORTEST]
    shown = [text for found, _ in rows("ConfigurationError") for text in found]
    assert [text for text in shown if not any(one.search(text) for one in patterns)] == []


def test_a_text_that_has_to_explain_itself_says_what_the_argument_must_be_and_what_it_got() -> None:
    left_alone = [text for shown, remedy in rows("ConfigurationError") if remedy.startswith("as the") for text in shown]
    assert len(left_alone) > 50
    assert [text for text in left_alone if not re.search(r" must .*, got ", text)] == []


def test_each_error_is_on_the_page() -> None:
    assert {name for name in CLASSES if name not in PAGE} == set()


def test_each_reason_code_is_on_the_page() -> None:
    rows = {f"| 0x{code:02X} | {known[0]} | " for code, known in reason_codes._CODES.items()}
    assert {row for row in rows if row not in PAGE} == set()


def test_each_alert_about_a_client_certificate_is_on_the_page() -> None:
    assert {text for text in tls_errors._ALERTS.values() if f"`{text}`" not in PAGE} == set()
