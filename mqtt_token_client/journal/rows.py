"""A message as a row of the database, with a checksum: SQLite has none, and a damaged payload must not be sent."""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

from ..errors import StoreError
from ..mqtt.session.delivery import RecordedMessage, Stage
from ..mqtt.session.packet_ids import HIGHEST_PACKET_ID
from ..stores.encryption import Key
from .batch import FIRST_RELEASED, NEW, SENT
from .timeline import Timeline

COLUMNS = "number, topic, payload, properties, flags, packet_id, stage, accepted_at, expires_at, checksum"

_LENGTH = struct.Struct(">I")  # of the properties

Row = tuple[int, bytes, bytes, bytes, int, int, int, int, float | None, int]


class DamagedError(Exception):
    """The content of the file is not what was written."""


class RestoredExpiringMessage(RecordedMessage):
    """A message of an earlier process that expires. The time of that is asked for each time, as the device may learn
    later how long the power was off.
    """

    __slots__ = ("_expiry", "_timeline")

    def set_expiry(self, expiry: float, timeline: Timeline) -> None:
        """Expire at a time of the journal's clock."""
        self._expiry, self._timeline = expiry, timeline

    @property
    def expires_at(self) -> float:  # type: ignore[override]  # nobody sets it
        return self._timeline.to_monotonic(self._expiry, self.number)

    def expiring(self, properties: bytes, expires_at: float) -> RecordedMessage:  # noqa: ARG002 - it is asked for each time
        message = RestoredExpiringMessage(self.topic, self.payload, self.qos, self.retain, properties)
        message.set_expiry(self._expiry, self._timeline)
        return message


def to_row(
    message: RecordedMessage,
    payload: bytes,
    packet_id: int,
    stage: int,
    accepted_at: float,
    timeline: Timeline,
    key: Key | None,
) -> Row:
    """Return the row of a message.

    Args:
        message: the message.
        payload: as it was accepted.
        packet_id, stage: as they are now.
        accepted_at: when it was accepted, on the monotonic clock.
        timeline: of the file.
        key: encrypts topic, payload and properties; None does not.
    """
    flags = message.qos | message.retain << 2  # an earlier version set bit 3 too
    expires_at = None if message.expires_at is None else timeline.from_monotonic(message.expires_at)
    content = message.topic, payload, message.properties
    if key is not None:
        topic, _, properties = content
        content = b"", key.seal(topic + _LENGTH.pack(len(properties)) + properties + payload), b""
    accepted = int(timeline.from_monotonic(accepted_at))
    checksum = _checksum(*content, message.number, flags, accepted, expires_at)
    return (message.number, *content, flags, packet_id, stage, accepted, expires_at, checksum)


def to_message(row: Row, timeline: Timeline, key: Key | None) -> RecordedMessage:
    """Return the message of a row that was written with this key.

    Raises:
        DamagedError: the row is not what was written.
    """
    number, topic, payload, properties, flags, packet_id, stage, accepted, expires_at, checksum = row
    try:
        if checksum != _checksum(topic, payload, properties, number, flags, accepted, expires_at):
            raise DamagedError(f"the checksum of message {number} is wrong")
        if not 0 <= packet_id <= HIGHEST_PACKET_ID or stage < 0:  # they change, so the checksum does not have them
            raise DamagedError(f"message {number} has packet identifier {packet_id} and stage {stage}")
        if key is not None:
            topic, payload, properties = _unsealed(key, payload)
        kind = RecordedMessage if expires_at is None else RestoredExpiringMessage
        message = kind(topic, payload, flags & 3, bool(flags & 4), properties)
        if expires_at is not None:
            assert isinstance(message, RestoredExpiringMessage)
            message.set_expiry(expires_at, timeline)
        message.number, message.packet_id = number, packet_id
        message.stage = (Stage.NEW, Stage.SENT, Stage.RELEASED)[min(stage, FIRST_RELEASED)]
    except (TypeError, ValueError, StoreError) as error:
        raise DamagedError(f"message {number}: {error}") from None
    return message


def _unsealed(key: Key, sealed: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the topic, payload and properties that were encrypted."""
    content = key.unseal(sealed)
    at = 2 + int.from_bytes(content[:2], "big")  # a topic begins with its length
    properties = at + _LENGTH.size
    payload = properties + _LENGTH.unpack_from(content, at)[0]
    return content[:at], content[payload:], content[properties:payload]


def _checksum(topic: bytes, payload: bytes, properties: bytes, *rest: Any) -> int:
    return crc32(payload, crc32(properties, crc32(topic, crc32(repr(rest).encode()))))


assert (NEW, SENT, FIRST_RELEASED) == (0, 1, 2)
