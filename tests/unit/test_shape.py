"""The bounds on files and classes that ruff cannot check; those on functions are in pyproject.toml."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mqtt_token_client"

MAX_LINES = 300  # of a module
MAX_ATTRIBUTES = 15  # of an instance of a class
MAX_METHODS = 20  # of a class, properties included
MAX_LAYERS = 12

# What still exceeds a bound. A line may only be removed: one that is no longer needed fails the test too.
KNOWN: set[str] = set()


def _modules() -> Iterator[tuple[str, str]]:
    """The path inside the package and the text of each module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text()


def _classes(text: str) -> Iterator[ast.ClassDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            yield node


def _methods(node: ast.ClassDef) -> set[str]:
    return {member.name for member in node.body if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)}


def _attributes(node: ast.ClassDef) -> set[str]:
    """What the methods of a class assign to ``self``, and the fields that its body declares."""
    assigned = {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, ast.Store)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "self"
    }
    declared = {
        member.target.id
        for member in node.body
        if isinstance(member, ast.AnnAssign)
        and isinstance(member.target, ast.Name)
        and "ClassVar" not in ast.unparse(member.annotation)
    }
    return assigned | declared


def _violations() -> set[str]:
    found = set()
    for name, text in _modules():
        if len(text.splitlines()) > MAX_LINES:
            found.add(f"{name}: lines")
        for node in _classes(text):
            if len(_attributes(node)) > MAX_ATTRIBUTES:
                found.add(f"{name}: attributes of {node.name}")
            if len(_methods(node)) > MAX_METHODS:
                found.add(f"{name}: methods of {node.name}")
        if not name.startswith("contrib/") and re.search(r"paho\.mqtt\.client|\b_paho|_Paho", text):
            found.add(f"{name}: paho-mqtt's client")
    return found


def test_no_file_or_class_exceeds_its_bound_and_only_contrib_uses_the_client_of_paho() -> None:
    found = _violations()

    assert found - KNOWN == set(), "new: split it"
    assert KNOWN - found == set(), "within the bound now: remove it from KNOWN"


def test_the_layers_of_the_import_contract_fit_into_twelve_lines() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer for contract in contracts if contract["type"] == "layers" for layer in contract["layers"]]

    assert 0 < len(layers) <= MAX_LAYERS


def test_attributes_are_counted_where_they_are_assigned_and_where_they_are_declared() -> None:
    text = """
class Sample:
    shared: ClassVar[int] = 0
    declared: int
    def __init__(self, other):
        self.plain = 1
        self.typed: int = 2
        self.first, (self.second, *self.rest) = other
        self.plain += 1
        other.not_ours = self.only_read
    @property
    def value(self): ...
    @value.setter
    def value(self, new): ...
    async def run(self): ...
"""
    (node,) = _classes(text)

    assert _attributes(node) == {"declared", "plain", "typed", "first", "second", "rest"}
    assert _methods(node) == {"__init__", "value", "run"}
