"""A journal that is encrypted: what its file has, and what another key or none finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet

from devtools.servers.secret_check import remember_secret
from mqtt_token_client import ConfigurationError, open_journal
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.journal.batch import Batch
from mqtt_token_client.journal.database import Database
from mqtt_token_client.journal.rows import DamagedError
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import RecordedMessage
from mqtt_token_client.stores.encryption import Key

TOPIC, PAYLOAD, PROPERTIES = "a/topic/to/keep", b"a payload to keep", b"properties to keep"


def new_key() -> str:
    key = Fernet.generate_key().decode()
    remember_secret(key)
    return key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def opened(path: Path) -> Iterator[list[Database]]:
    """Databases to close."""
    databases: list[Database] = []
    yield databases
    for database in databases:
        database.close()


def write(path: Path, key: str | None, *, message: bool = True) -> None:
    """Make a journal with one message."""
    database = Database(path, None if key is None else Key("argument", key))
    database.claim("pump")
    if message:
        one = RecordedMessage(encode_topic(TOPIC), PAYLOAD, 1, True, PROPERTIES)
        one.number = 1
        batch = Batch(database.counters)
        batch.append(one, PAYLOAD, 0.0)
        database.commit(batch)
    database.close()


def test_no_topic_payload_or_property_is_in_the_file(path: Path) -> None:
    write(path, new_key())
    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for text in (TOPIC.encode(), PAYLOAD, PROPERTIES):
        assert text not in content
    write(path.with_name("plain"), None)
    assert PAYLOAD in b"".join(file.read_bytes() for file in path.parent.glob("plain*"))


def test_the_same_key_finds_everything(path: Path, opened: list[Database]) -> None:
    key = new_key()
    write(path, key)
    opened.append(Database(path, Key("argument", key)))
    (found,) = opened[0].load().messages
    assert (found.topic_name, found.payload, found.properties) == (TOPIC, PAYLOAD, PROPERTIES)
    assert (found.qos, found.retain) == (1, True)


@pytest.mark.parametrize("message", [True, False])
@pytest.mark.parametrize(
    ("written", "read", "error"),
    [
        ("one", "other", "journal is encrypted with another key; give that one"),
        ("one", None, "journal is encrypted; give its key"),
        (None, "other", "journal is not encrypted; open it without a key until its messages are sent, or give another"),
    ],
)
def test_another_key_is_an_error_that_names_what_to_do(
    path: Path, written: str | None, read: str | None, error: str, *, message: bool
) -> None:
    keys = {"one": new_key(), "other": new_key(), None: None}
    write(path, keys[written], message=message)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=error):
        open_journal(path, key=keys[read]).open("pump", print)
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", ["", "short", b"x" * 44, 7, "é" * 44])
def test_a_key_that_is_not_one_is_an_error_that_does_not_show_it(path: Path, key: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^key must be 32 bytes in URL-safe base64") as caught:
        open_journal(path, key=key)  # type: ignore[arg-type]
    assert not key or str(key) not in str(caught.value)


def test_a_message_that_cannot_be_decrypted_is_damage(path: Path, opened: list[Database]) -> None:
    write(path, new_key())
    opened.append(Database(path, Key("argument", new_key())))
    with pytest.raises(DamagedError, match="message 1: it cannot be decrypted"):
        opened[0].load()


def test_two_messages_with_the_same_content_do_not_look_the_same(path: Path) -> None:
    key = Key("argument", new_key())
    assert key.seal(b"21.5") != key.seal(b"21.5")
    assert key.unseal(key.seal(b"21.5")) == b"21.5"


def test_the_command_reads_the_key_from_a_file(path: Path, tmp_path: Path) -> None:
    key = new_key()
    write(path, key)
    key_file = tmp_path / "key"
    key_file.write_text(f"{key}\n")

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(mqtt_token, ["journal", *map(str, arguments)])
        return result.exit_code, result.output

    assert f'"{TOPIC}"' in run("show", path, "--key-file", key_file)[1]
    assert f'"topic": "{TOPIC}"' in run("export", path, "--key-file", key_file)[1]
    assert run("show", path) == (2, f"Error: journal: {path} is encrypted; give its key\n")
    key_file.write_text(new_key())
    assert "is encrypted with another key" in run("export", path, "--key-file", key_file)[1]
    assert run("clear", path, "--yes") == (0, "1 messages were deleted\n")
