"""A journal whose files are damaged at random: a client starts all the same, and sends nothing that is not right."""

from __future__ import annotations

import random
import shutil
import threading
from collections import Counter
from pathlib import Path

from mqtt_token_client import Event, MqttTokenError, open_journal
from mqtt_token_client.journal.disk import DiskJournal
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import RecordedMessage, Stage
from mqtt_token_client.mqtt.session.journal_events import JournalFailed

_PUBLISHED = 40
MESSAGES = 36  # in good_files()
_SECTOR = 512
Files = dict[str, bytes]


def message(number: int) -> RecordedMessage:
    """A message that says in its payload which one it is."""
    one = RecordedMessage(
        encode_topic(f"t/{number % 3}"), b"%d." % number * (number * 37 % 700), 1 + number % 2, False, b""
    )
    one.number, one.disk = number, False
    return one


def opened(path: Path, events: list[Event]) -> DiskJournal:
    """The journal, as a client opens it."""
    journal = open_journal(path, commit_every=0)
    journal.open("device", events.append)
    return journal


def flush(journal: DiskJournal) -> None:
    """Return when everything is on the disk, or has failed."""
    done = threading.Event()
    journal.flush(done.set)
    assert done.wait(10), "the journal does not answer"


def good_files(folder: Path) -> list[Files]:
    """The files of one journal as a power cut leaves them, and as a process that closes it does."""
    journal = opened(folder / "outbox", [])
    for number in range(1, _PUBLISHED + 1):
        journal.append(message(number))
        if number % 10 == 0:
            flush(journal)
    for number in range(1, 20):
        journal.mark(number, 100 + number, Stage.SENT if number % 3 else Stage.RELEASED)
        if number % 4 == 0:
            journal.remove(number)
            journal.received(number)
    flush(journal)
    cut = {path.name: path.read_bytes() for path in folder.iterdir()}
    journal.close()
    return [cut, {path.name: path.read_bytes() for path in folder.iterdir()}]


def damage(files: Files, chance: random.Random) -> Files:
    """The files with some wrong bytes in one of them, or without its end."""
    name = chance.choice([name for name, content in files.items() if content])
    content = bytearray(files[name])
    at = chance.choice((chance.randrange(len(content)), chance.randrange(min(len(content), 200))))
    match chance.choice(("bit", "bytes", "sector", "end", "many")):
        case "bit":
            content[at] ^= 1 << chance.randrange(8)
        case "bytes":
            content[at : at + 8] = chance.randbytes(len(content[at : at + 8]))
        case "sector":
            start = at - at % _SECTOR
            lost = len(content[start : start + _SECTOR])
            content[start : start + _SECTOR] = chance.choice((bytes(lost), chance.randbytes(lost)))
        case "end":
            del content[at:]
        case "many":
            for _ in range(20):
                content[chance.randrange(len(content))] = chance.randrange(256)
    return {**files, name: bytes(content)}


def run(folder: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Open so many damaged journals. Return how they were found, and what is wrong."""
    chance = random.Random(seed)
    first = folder / "good"
    first.mkdir(mode=0o700)
    good = good_files(first)
    found, faults = Counter[str](), list[str]()
    for number in range(count):
        place = folder / "damaged"
        place.mkdir(mode=0o700)
        files = damage(chance.choice(good), chance)
        for name, content in files.items():
            (place / name).write_bytes(content)
        try:
            found[_look(place / "outbox")] += 1
        except (MqttTokenError, AssertionError) as error:
            faults.append(f"journal {number} of seed {seed}: {type(error).__name__}: {error}")
        shutil.rmtree(place)
    return found, faults


def _look(path: Path) -> str:
    events: list[Event] = []
    journal = opened(path, events)
    try:
        recorded = journal.load(lambda: None, lambda: None)
        for one in recorded.messages:
            expected = message(one.number)
            assert (one.topic, one.payload, one.qos) == (expected.topic, expected.payload, expected.qos), one
        new = message(recorded.last_number + 1)
        journal.append(new)
        flush(journal)
        if any(isinstance(event, JournalFailed) for event in events):
            return "set aside" if list(path.parent.glob("*.corrupt")) else "not written"
        assert new.stored, "the journal takes no message, and does not say so"
        return "complete" if recorded.count == MESSAGES else "in part"
    finally:
        journal.close()
