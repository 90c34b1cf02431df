"""The processes of the tests' servers, as far as they need no server."""

from __future__ import annotations

from pathlib import Path

from devtools.servers.processes import Process


def test_the_log_of_a_server_whose_folder_is_gone_is_empty(tmp_path: Path) -> None:
    server = Process("a server", ["true"], tmp_path / "gone" / "server.log")
    assert server.logged() == 0
    assert server.tail() == ""


def test_the_tail_is_the_last_lines_of_the_log(tmp_path: Path) -> None:
    server = Process("a server", ["true"], tmp_path / "server.log")
    server.log.write_text("one\ntwo\nthree\n")
    assert server.tail(2) == "two\nthree"
