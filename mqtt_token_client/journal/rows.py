"""A message as a row of the database, with a checksum: SQLite has none, and a damaged payload must not be sent."""

from __future__ import annotations

from zlib import crc32

from ..mqtt.session.delivery import Outgoing, RecordedExpiringMessage, RecordedMessage, Stage
from .batch import FIRST_RELEASED, NEW, SENT
from .timeline import Timeline

COLUMNS = "number, topic, payload, properties, flags, packet_id, stage, expires_at, checksum"

Row = tuple[int, bytes, bytes, bytes, int, int, int, float | None, int]


class DamagedError(Exception):
    """The content of the file is not what was written."""


def to_row(message: Outgoing, payload: bytes, packet_id: int, stage: int, timeline: Timeline) -> Row:
    """Return the row of a message; ``payload`` is as it was accepted."""
    flags = message.qos | message.retain << 2 | getattr(message, "replaces", False) << 3
    topic, properties, expires_at = message.topic, message.properties, timeline.from_monotonic(message.expires_at)
    checksum = _checksum(message.number, topic, payload, properties, flags, expires_at)
    return (message.number, topic, payload, properties, flags, packet_id, stage, expires_at, checksum)


def to_message(row: Row, timeline: Timeline) -> Outgoing:
    """Return the message of a row.

    Raises:
        DamagedError: the row is not what was written.
    """
    number, topic, payload, properties, flags, packet_id, stage, expires_at, checksum = row
    try:
        if checksum != _checksum(number, topic, payload, properties, flags, expires_at):
            raise DamagedError(f"the checksum of message {number} is wrong")
        fields = topic, payload, flags & 3, bool(flags & 4), properties
        if expires_at is None:
            message = RecordedMessage(*fields)
        else:
            message = RecordedExpiringMessage(*fields, timeline.to_monotonic(expires_at))
        message.replaces = bool(flags & 8)
        message.number, message.packet_id = number, packet_id
        message.stage = (Stage.NEW, Stage.SENT, Stage.RELEASED)[min(stage, FIRST_RELEASED)]
    except TypeError as error:
        raise DamagedError(f"message {number}: {error}") from None
    return message


def _checksum(
    number: int, topic: bytes, payload: bytes, properties: bytes, flags: int, expires_at: float | None
) -> int:
    return crc32(payload, crc32(properties, crc32(topic, crc32(b"%d,%d,%r" % (number, flags, expires_at)))))


assert (NEW, SENT, FIRST_RELEASED) == (0, 1, 2)
