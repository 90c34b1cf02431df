"""``mqtt-token journal``."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.clock import monotonic
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
    assert re.fullmatch(r' +1188 messages +3564 bytes  oldest \d s +"often"', lines[1])
    assert re.fullmatch(r' +12 messages +36 bytes  oldest \d s +"rare"', lines[2])


def test_show_as_json(path: Path) -> None:
    found = json.loads(run("show", path, "--json").output)
    assert found["messages"] == 1200
    age = found["topics"]["rare"].pop("oldest_seconds")
    assert 0 <= age < 60
    assert found["topics"]["rare"] == {"messages": 12, "bytes": 36, "oldest_is_exact": True}


@pytest.mark.parametrize(("hours", "shown"), [(0.01, "36 s"), (0.5, "30 min"), (47.9, "1 d"), (3, "3 h"), (72, "3 d")])
def test_show_says_how_long_the_oldest_message_has_waited(
    path: Path, monkeypatch: pytest.MonkeyPatch, hours: float, shown: str
) -> None:
    monkeypatch.setattr("mqtt_token_client.journal.timeline.monotonic", lambda: monotonic() + hours * 3600)
    line = run("show", path).output.splitlines()[1]
    assert re.search(rf"oldest {shown} +\"often\"$", line)


def test_show_says_where_the_time_of_a_power_cut_is_not_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_token_client.journal.timeline.boot_id", lambda: "another")
    lines = run("show", path).output.splitlines()
    assert lines[1] == "time in which the power was off is not counted where it says 'at least'"
    assert re.search(r'oldest at least \d s +"often"$', lines[2])
    found = json.loads(run("show", path, "--json").output)
    assert found["topics"]["often"]["oldest_is_exact"] is False


def test_export_prints_each_message(path: Path) -> None:
    found = [json.loads(line) for line in run("export", path).output.splitlines()]
    assert [one["number"] for one in found] == list(range(1, 1201))
    assert found[0].pop("age") < 60
    assert found[0] == {
        "number": 1,
        "topic": "often",
        "qos": 1,
        "retain": False,
        "stage": "new",
        "age_is_exact": True,
        "expires_in": None,
        "payload": "YWJj",
    }


def test_clear_deletes_everything(path: Path) -> None:
    assert run("clear", path, "--yes").output == "1200 messages were deleted\n"
    journal = open_journal(path)
    journal.open("another", print)
    assert journal.load(lambda: None, lambda: None).count == 0
    journal.close()


def test_clear_follows_a_symbolic_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert run("clear", link, "--yes").output == "1200 messages were deleted\n"
    assert (path.exists(), link.is_symlink()) == (False, True)


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


@pytest.mark.parametrize("command", ["show", "export"])
@pytest.mark.parametrize("key", ["", "no key", "A" * 43 + "="])
def test_a_wrong_key_is_wrong_usage(path: Path, tmp_path: Path, command: str, key: str) -> None:
    (file := tmp_path / "key").write_text(key)
    assert run(command, path, "--key-file", file).exit_code == 2


def test_another_programs_file_is_wrong_usage(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs") as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    assert run("show", tmp_path / "theirs").exit_code == 2
