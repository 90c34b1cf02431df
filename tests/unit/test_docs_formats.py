"""What the documents show in other languages than Python is well-formed, and a test runs each block where it can be."""

from __future__ import annotations

import configparser
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from cryptography.fernet import Fernet

from devtools.servers.keys import Keys
from devtools.servers.pki import Pki
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.config import read_config
from tests.unit.documented import ROOT, RUN_BY, Block, all_blocks

BLOCKS = list(all_blocks())
SHELL = [block for block in BLOCKS if block.language == "sh"]
TOML = [block for block in BLOCKS if block.language == "toml" and block.document != "docs/identity-providers.md"]
ENDS_A_COMMAND = {"|", "||", "&&", ";", "&", ")", "<", ">"}
# What a part of a file needs around it.
SOURCE = '\n[source]\ntype = "client_credentials"\ntoken_endpoint = "https://id.example.com/token"\nclient_id = "a"\n'


def test_a_test_runs_each_block() -> None:
    """Of a document and language that are new, or that no longer occur, ``tests/unit/documented.py`` is behind."""
    assert {(block.document, block.language) for block in BLOCKS} == set(RUN_BY)
    for (document, language), files in RUN_BY.items():
        for name in files:
            text = (ROOT / name).read_text()
            assert Path(document).name in text or "all_blocks" in text or "documented(" in text, (document, language)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_block_has_no_syntax_error_and_known_options(block: Block) -> None:
    if shell := shutil.which("bash"):
        done = subprocess.run([shell, "-n"], input=block.code, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    for arguments in commands_of("mqtt-token", block.code):
        parse(arguments)


def commands_of(name: str, code: str) -> Iterator[list[str]]:
    """The arguments of each use of a program in a shell script."""
    for line in code.replace("\\\n", " ").splitlines():
        if name not in line:
            continue
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        arguments: list[str] | None = None
        for word in words:
            if word == name:
                arguments = []
            elif arguments is not None and word in ENDS_A_COMMAND:
                yield arguments
                arguments = None
            elif arguments is not None:
                arguments.append(word)
        if arguments is not None:
            yield arguments


def parse(arguments: list[str]) -> None:
    """Check the names of the command and its options, without running it."""
    command: click.Command = mqtt_token
    while isinstance(command, click.Group) and arguments:
        found = command.get_command(click.Context(command), arguments[0])
        assert found is not None, f"there is no command {arguments[0]}"
        command, arguments = found, arguments[1:]
    command.make_parser(click.Context(command)).parse_args(list(arguments))


def test_an_option_that_does_not_exist_is_found() -> None:
    (arguments,) = commands_of("mqtt-token", "printf x | mqtt-token pub -t a \\\n  --no-such 1 | tee out")
    assert arguments == ["pub", "-t", "a", "--no-such", "1"]
    with pytest.raises(click.NoSuchOption):
        parse(arguments)


def test_make_knows_the_targets_of_the_readme() -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    (block,) = [block for block in SHELL if block.document == "README.md" and "make" in block.code]
    targets = [line.removeprefix("make ") for line in block.code.splitlines()]
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", TOML, ids=str)
def test_a_toml_block_is_a_file_or_a_part_of_one(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Keys, pki: Pki
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    contents = {
        "secret": b"s3cret",
        "pump-secret": b"s3cret",
        "mqtt-token-client.key": Fernet.generate_key(),
        "device.pem": (keys.folder / "client.pem").read_bytes(),
        "plant-ca.pem": Path(pki.ca).read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(content)
    file = tmp_path / "mqtt-token.toml"
    if "[source" not in block.code:
        code = f'{block.code}\n{SOURCE}client_secret_file = "secret"\n'
    elif "[source]" not in block.code:
        code = f"{SOURCE}\n{block.code}"
    else:
        code = block.code
    file.write_text(code)
    assert read_config(file).source is not None


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in ("json", "xml", "ini", "yaml")], ids=str
)
def test_a_setting_is_well_formed(block: Block) -> None:
    match block.language:
        case "json":
            assert json.loads(block.code)
        case "xml":
            assert ElementTree.fromstring(block.code) is not None
        case "ini":
            parser = configparser.ConfigParser(strict=False, interpolation=None)
            parser.read_string(block.code)
            assert parser.sections()
        case "yaml":
            yaml = pytest.importorskip("yaml")
            assert yaml.safe_load(block.code)


def test_the_readme_is_short_and_begins_with_a_program() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert "```python" in lines[:12], "the first snippet is on the first screen"
