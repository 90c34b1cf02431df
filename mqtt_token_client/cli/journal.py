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

if TYPE_CHECKING:
    from ..journal.database import Database
    from ..mqtt.session.delivery import Outgoing

_PAGE = 1000  # messages that are read at once

_FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@click.group()
def journal() -> None:
    """Show, export or clear the messages that wait in a journal.

    The client that uses the journal has to be stopped first.
    """


@journal.command()
@_FILE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(file: Path, as_json: bool) -> None:
    """Show how many messages wait, and how many bytes they have, by topic."""
    topics: dict[str, dict[str, int]] = {}
    with _opened(file) as database:
        size = database.size
        for message in _messages(database):
            topic = topics.setdefault(message.topic_name, {"messages": 0, "bytes": 0})
            topic["messages"] += 1
            topic["bytes"] += len(message.payload)
    count = sum(topic["messages"] for topic in topics.values())
    if as_json:
        click.echo(json.dumps({"messages": count, "file_bytes": size, "topics": topics}))
        return
    click.echo(f"{count} messages wait; the file takes {size} bytes")
    for name, topic in sorted(topics.items(), key=lambda item: -item[1]["messages"]):
        click.echo(f"{topic['messages']:>9} messages {topic['bytes']:>12} bytes  {json.dumps(name)}")


@journal.command()
@_FILE
def export(file: Path) -> None:
    """Print each message as a JSON object in a line, the oldest first. The payload is in Base64."""
    with _opened(file) as database:
        for message in _messages(database):
            click.echo(json.dumps(_as_json(message)))


@journal.command()
@_FILE
@click.confirmation_option(prompt="Delete all messages that wait?", help="Do not ask.")
def clear(file: Path) -> None:
    """Delete all messages, and what the journal has of the session."""
    with _opened(file) as database:
        count = database.counters.count
    for ending in ("", "-wal"):
        file.with_name(file.name + ending).unlink(missing_ok=True)
    click.echo(f"{count} messages were deleted")


@contextmanager
def _opened(file: Path) -> Iterator[Database]:
    from ..journal.database import Database
    from ..journal.rows import DamagedError

    try:
        database = Database(file)
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
        raise click.ClickException(str(error)) from None


def _messages(database: Database) -> Iterator[Outgoing]:
    after, complete = 0, False
    while not complete:
        page, complete = database.page(after, _PAGE)
        for message in page:
            yield message
            after = message.number


def _as_json(message: Outgoing) -> dict[str, Any]:
    expires_in = None if message.expires_at is None else round(message.expires_at - monotonic(), 1)
    return {
        "number": message.number,
        "topic": message.topic_name,
        "qos": message.qos,
        "retain": message.retain,
        "stage": message.stage.name.lower(),
        "expires_in": expires_in,
        "payload": base64.b64encode(message.payload).decode(),
    }
