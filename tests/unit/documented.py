"""The fenced blocks of README.md and docs/, and which test runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = "tests/unit/test_docs_formats.py"  # at least its syntax, and the options of mqtt-token

# By document and language; a test that is named runs each such block. A new document or language has to come in here.
RUN_BY: dict[tuple[str, str], tuple[str, ...]] = {
    ("README.md", ""): ("tests/unit/test_docs_formats.py",),  # a drawing
    ("README.md", "python"): ("tests/unit/test_docs.py", "tests/unit/test_docs_programs.py"),
    ("README.md", "sh"): (_SHELL, "tests/integration/test_demo.py"),
    ("docs/asyncio.md", "python"): ("tests/unit/test_docs_asyncio.py", "tests/integration/test_documented_aiomqtt.py"),
    ("docs/brokers.md", "conf"): ("tests/integration/test_documented_commands.py", "devtools/servers/nats.py"),
    ("docs/brokers.md", "erlang"): ("devtools/servers/rabbitmq.py",),
    ("docs/brokers.md", "ini"): ("tests/unit/test_docs_formats.py",),
    ("docs/brokers.md", "json"): ("tests/unit/test_docs_formats.py",),
    ("docs/brokers.md", "python"): ("tests/unit/test_docs.py", "tests/unit/test_docs_programs.py"),
    ("docs/brokers.md", "sh"): (_SHELL, "tests/integration/test_documented_commands.py"),  # Mosquitto's, ClearBlade's
    ("docs/brokers.md", "xml"): ("tests/unit/test_docs_formats.py",),
    ("docs/brokers.md", "yaml"): ("tests/unit/test_docs_formats.py", "devtools/servers/ejabberd.py"),
    ("docs/command.md", "python"): ("tests/unit/test_docs.py",),
    ("docs/command.md", "sh"): (_SHELL, "tests/unit/test_recipes.py", "tests/integration/test_documented_commands.py"),
    ("docs/command.md", "toml"): ("tests/unit/test_docs_formats.py",),
    ("docs/configuration.md", "toml"): ("tests/unit/test_docs_formats.py",),
    ("docs/examples.md", "sh"): (_SHELL, "tests/integration/test_demo.py"),
    ("docs/gateway.md", "python"): ("tests/unit/test_docs.py",),
    ("docs/identity-providers.md", "toml"): ("tests/unit/test_identity_providers.py",),
    ("docs/index.md", "python"): ("tests/unit/test_docs_programs.py",),
    ("docs/index.md", "sh"): (_SHELL,),  # run by scripts/try-installing
    ("docs/installing.md", "sh"): (_SHELL,),  # run by scripts/try-installing
    ("docs/journal.md", "python"): ("tests/unit/test_docs_programs.py",),
    ("docs/journal.md", "toml"): ("tests/unit/test_docs_formats.py",),
    ("docs/metrics.md", "python"): ("tests/unit/test_docs_programs.py",),
    ("docs/paho.md", "python"): ("tests/unit/test_docs.py",),
    ("docs/processes.md", "python"): ("tests/unit/test_docs.py",),
    ("docs/raspberry-pi.md", "sh"): (_SHELL,),  # run by scripts/try-tutorial, but for ssh
    ("docs/service.md", "python"): ("tests/unit/test_docs_programs.py",),
    ("docs/service.md", "sh"): (_SHELL, "tests/integration/test_documented_commands.py"),
    ("docs/service.md", "toml"): ("tests/unit/test_docs_formats.py",),
    ("docs/shell.md", "sh"): (_SHELL, "tests/integration/test_documented_commands.py"),
    ("docs/sources.md", "python"): ("tests/unit/test_docs.py",),
    ("docs/stores.md", "ini"): ("tests/integration/test_documented_commands.py",),
    ("docs/stores.md", "python"): ("tests/unit/test_docs.py",),
    ("docs/stores.md", "sh"): (_SHELL, "tests/integration/test_documented_commands.py"),
    ("docs/testing.md", "python"): ("tests/unit/test_testing_first_test.py",),
    ("docs/testing.md", "sh"): (_SHELL,),  # run by scripts/try-installing
    ("docs/troubleshooting.md", "sh"): (_SHELL, "tests/integration/test_documented_commands.py"),
    ("docs/tutorial.md", "sh"): (_SHELL,),  # run by scripts/try-tutorial
}


@dataclass(frozen=True)
class Block:
    """One fenced block: its text, and where it is."""

    document: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    def run(self, names: dict[str, Any]) -> None:
        """Run it; tracebacks and warnings name the line of the document."""
        exec(compile("\n" * self.line + self.code, self.document, "exec"), names)


def blocks(document: str, language: str | None = None) -> list[Block]:
    """The blocks of a document, of a language if one is given."""
    text = (ROOT / document).read_text()
    return [
        Block(document, text.count("\n", 0, fence.start()) + 1, fence[1], fence[2])
        for fence in _FENCE.finditer(text)
        if language in (None, fence[1])
    ]


def all_blocks() -> Iterator[Block]:
    """The blocks of README.md and of all pages of the site."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        yield from blocks(str(path.relative_to(ROOT)))
