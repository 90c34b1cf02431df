"""The commands of docs/command.md hand the token to other programs without showing it to the machine's other users."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

COMMAND = (Path(__file__).parents[2] / "docs/command.md").read_text()
DOCS = sorted(f"docs/{path.name}" for path in (Path(__file__).parents[2] / "docs").glob("*.md"))
TOKEN = "eyJhbGciOiJFUzI1NiJ9.recipes-of-the-readme.c2lnbmF0dXJl"


def recipes(program: str) -> list[str]:
    shell = "".join(re.findall(r"^```sh\n(.*?)^```$", COMMAND, re.MULTILINE | re.DOTALL))
    return [line for line in shell.splitlines() if f"| {program} " in line]


def command_lines() -> str:
    """The command lines of all processes, as every user may read them."""
    found = b""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                found += (process / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
    return found.decode(errors="replace")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of PATH, with a ``mqtt-token`` that prints the token."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    command = tmp_path / "mqtt-token"
    command.write_text(f"#!/bin/sh\ncat {tmp_path}/token\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_sends_the_token_and_no_command_line_shows_it(path: Path) -> None:
    seen: list[tuple[str | None, bool]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.headers["Authorization"], TOKEN in command_lines()))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (recipe,) = recipes("curl")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        here = recipe.replace("https://api.example.com", f"http://127.0.0.1:{server.server_port}")
        subprocess.run(["sh", "-c", here], check=True, timeout=20)
        thread.join(20)
    assert seen == [(f"Bearer {TOKEN}", False)]


def test_mosquitto_pub_gets_the_token_as_an_option_in_a_file(path: Path) -> None:
    stub = path / "mosquitto_pub"
    stub.write_text(f'#!/bin/sh\necho "$@" >{path}/arguments\ncat "$2" >{path}/options\n')
    stub.chmod(0o755)
    (recipe,) = recipes("mosquitto_pub")
    subprocess.run(["sh", "-c", recipe], check=True, timeout=20)
    assert (path / "options").read_text() == f"--pw {TOKEN}\n"
    assert TOKEN not in (path / "arguments").read_text()


@pytest.mark.parametrize("document", ["README.md", *DOCS])
def test_no_document_puts_the_token_on_a_command_line(document: str) -> None:
    text = (Path(__file__).parents[2] / document).read_text()
    blocks = "".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert "$(mqtt-token" not in blocks
    assert "`mqtt-token token`" not in blocks
