"""``mqtt-token journal``: what waits in a journal on disk."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..clock import monotonic
from ..errors import MqttTokenError
from .login import Failure, exit_code

if TYPE_CHECKING:
    from ..journal.database import Database
    from ..journal.timeline import Age
    from ..mqtt.session.delivery import Outgoing

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))  # and their seconds

_KEY_FILE = click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The file with the key of an encrypted journal.",
)
_FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@click.group()
def journal() -> None:
    """Show, export or clear the messages that wait in a journal.

    The client that uses the journal has to be stopped first.
    """


@journal.command()
@_FILE
@_KEY_FILE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(file: Path, key_file: Path | None, as_json: bool) -> None:
    """Show how many messages wait, how many bytes they have, and how long the oldest has waited, by topic.

    A device without a reliable clock does not know how long its power was off. Then the age counts
    only the time that it was on, and is shown as "at least".
    """
    topics: dict[str, dict[str, Any]] = {}
    with _opened(file, key_file) as database:
        database.check_key()
        size = database.size
        for message, age in database.ages():  # the oldest first
            new = {"messages": 0, "bytes": 0, "oldest_seconds": int(age.seconds), "oldest_is_exact": age.exact}
            topic = topics.setdefault(message.topic_name, new)
            topic["messages"] += 1
            topic["bytes"] += len(message.payload)
    count = sum(topic["messages"] for topic in topics.values())
    if as_json:
        click.echo(json.dumps({"messages": count, "file_bytes": size, "topics": topics}))
        return
    click.echo(f"{count} messages wait; the file takes {size} bytes")
    if not all(topic["oldest_is_exact"] for topic in topics.values()):
        click.echo("time in which the power was off is not counted where it says 'at least'")
    for name, topic in sorted(topics.items(), key=lambda item: -item[1]["messages"]):
        oldest = _duration(topic["oldest_seconds"], exact=topic["oldest_is_exact"])
        numbers = f"{topic['messages']:>9} messages {topic['bytes']:>12} bytes"
        click.echo(f"{numbers}  oldest {oldest:<16}  {json.dumps(name)}")


@journal.command()
@_FILE
@_KEY_FILE
def export(file: Path, key_file: Path | None) -> None:
    """Print each message as a JSON object in a line, the oldest first. The payload is in Base64."""
    with _opened(file, key_file) as database:
        database.check_key()
        for message, age in database.ages():
            click.echo(json.dumps(_as_json(message, age)))


@journal.command()
@_FILE
@click.confirmation_option(prompt="Delete all messages that wait?", help="Do not ask.")
def clear(file: Path) -> None:
    """Delete all messages, and what the journal has of the session. It needs no key."""
    with _opened(file) as database:
        count = database.counters.count
    real = file.resolve()
    for ending in ("", "-wal"):
        real.with_name(real.name + ending).unlink(missing_ok=True)
    click.echo(f"{count} messages were deleted")


@contextmanager
def _opened(file: Path, key_file: Path | None = None) -> Iterator[Database]:
    from ..journal.database import Database
    from ..journal.disk import read_key
    from ..journal.rows import DamagedError

    try:
        database = Database(file, None if key_file is None else read_key(key_file.read_bytes()))
        try:
            yield database
        finally:
            database.close()
    except sqlite3.OperationalError as error:
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        text = f"a client uses {file}; stop it first" if busy else f"{file}: {error}"
        raise click.ClickException(text) from None
    except (sqlite3.Error, DamagedError) as error:
        raise click.ClickException(f"{file} is damaged: {error}") from None
    except MqttTokenError as error:
        raise Failure(str(error), exit_code(error, asks_a_person=False)) from None


def _duration(seconds: int, *, exact: bool) -> str:
    """Return a duration in words: ``3 h``, ``at least 2 d``."""
    unit, length = next((one for one in _UNITS if seconds >= one[1]), ("s", 1))
    return f"{'' if exact else 'at least '}{seconds // length} {unit}"


def _as_json(message: Outgoing, age: Age) -> dict[str, Any]:
    expires_in = None if message.expires_at is None else round(message.expires_at - monotonic(), 1)
    return {
        "number": message.number,
        "topic": message.topic_name,
        "qos": message.qos,
        "retain": message.retain,
        "stage": message.stage.name.lower(),
        "age": int(age.seconds),
        "age_is_exact": age.exact,
        "expires_in": expires_in,
        "payload": base64.b64encode(message.payload).decode(),
    }
