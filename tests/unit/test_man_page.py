"""The man page and the shell completion, which are made of the command's own definitions."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import click
import pytest

from mqtt_token_client.cli.commands import mqtt_token
from tests.unit.command_line import cli_runner

ROOT = Path(__file__).parents[2]
MAN_PAGE = ROOT / "man/mqtt-token.1"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man_page", ROOT / "scripts/man_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_man_page_is_that_of_the_command(generator: ModuleType) -> None:
    assert MAN_PAGE.read_text() == generator.page(), "python scripts/man_page.py > man/mqtt-token.1"


def test_the_man_page_has_every_command_and_option() -> None:
    text = MAN_PAGE.read_text()
    for name, command in mqtt_token.commands.items():
        section = re.search(rf"^\.SS {name}\b.*?(?=^\.SS \w+ |^\.SH)", text, re.MULTILINE | re.DOTALL)
        assert section, name
        for option in command.params:
            if isinstance(option, click.Option):
                for one in option.opts:
                    assert "\\fB" + one.replace("-", "\\-") + "\\fR" in section[0], (name, one)


def test_no_line_of_the_man_page_is_taken_for_a_request_by_accident(generator: ModuleType) -> None:
    assert [generator.roff(text) for text in (".a", "'a", "a.", "a-b", "a\\b")] == [
        *("\\&.a", "\\&'a", "a.", "a\\-b", "a\\eb")
    ]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_formats_the_man_page_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(MAN_PAGE)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    ended = cli_runner().invoke(mqtt_token, ["completion", shell])
    assert (ended.exit_code, f"_MQTT_TOKEN_COMPLETE={shell}_complete" in ended.stdout) == (0, True), ended.output


def test_the_command_answers_what_the_script_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_MQTT_TOKEN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "mqtt-token init --pro")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        mqtt_token(prog_name="mqtt-token")
    assert capsys.readouterr().out.split() == ["plain,--profile", "plain,--provider"]
