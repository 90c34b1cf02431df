"""``mqtt-token journal``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.journal.disk import open_journal
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import RecordedMessage


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(mqtt_token, ["journal", *map(str, arguments)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with 1,200 messages of two topics."""
    path = tmp_path / "journal"
    journal = open_journal(path, commit_every=60)
    journal.open("pump", print)
    for number in range(1, 1201):
        message = RecordedMessage(encode_topic("rare" if number % 100 == 0 else "often"), b"abc", 1, False, b"")
        message.number = number
        journal.append(message)
    journal.close()
    return path


def test_show_counts_messages_and_bytes_by_topic(path: Path) -> None:
    result = run("show", path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("1200 messages wait; the file takes ")
    assert lines[1].split() == ["1188", "messages", "3564", "bytes", '"often"']
    assert lines[2].split() == ["12", "messages", "36", "bytes", '"rare"']


def test_show_as_json(path: Path) -> None:
    found = json.loads(run("show", path, "--json").output)
    assert found["messages"] == 1200
    assert found["topics"]["rare"] == {"messages": 12, "bytes": 36}


def test_export_prints_each_message(path: Path) -> None:
    found = [json.loads(line) for line in run("export", path).output.splitlines()]
    assert [one["number"] for one in found] == list(range(1, 1201))
    assert found[0] == {
        "number": 1,
        "topic": "often",
        "qos": 1,
        "retain": False,
        "stage": "new",
        "expires_in": None,
        "payload": "YWJj",
    }


def test_clear_deletes_everything(path: Path) -> None:
    assert run("clear", path, "--yes").output == "1200 messages were deleted\n"
    journal = open_journal(path)
    journal.open("another", print)
    assert journal.load(lambda: None, lambda: None).count == 0
    journal.close()


def test_clear_asks_first(path: Path) -> None:
    assert run("clear", path).exit_code == 1
    assert json.loads(run("show", path, "--json").output)["messages"] == 1200


def test_a_journal_in_use_is_not_touched(path: Path) -> None:
    journal = open_journal(path)
    journal.open("pump", print)
    result = run("clear", path, "--yes")
    assert (result.exit_code, result.output) == (1, f"Error: a client uses {path}; stop it first\n")
    journal.close()


def test_a_damaged_file_is_an_error(path: Path) -> None:
    path.write_bytes(b"damaged" * 1000)
    result = run("show", path)
    assert result.exit_code == 1
    assert f"{path} is damaged" in result.output
