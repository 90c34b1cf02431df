"""The time that ages and expiries in a journal are measured on.

The wall clock of a device may be wrong by years, so it is not asked. Within a boot, time is that of the monotonic
clock; after another boot it continues from what the last commit recorded. While the power is off it stands still: what
passed then is known once both boots have got the time of day from the same clock that can be trusted. It is recorded as
an absence, which messages of the earlier boot have waited through as well. Two clocks are not compared with each other:
one that is wrong would let messages expire.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple
from zlib import crc32

from ..clock import TimesOfDay, boot_id, monotonic

SCHEMA = """
    CREATE TABLE timeline (
        id INTEGER PRIMARY KEY, boot_id, base, opened, counted, server, machine, earlier_server, earlier_machine,
        earlier_number, uncertain, checksum
    );
    CREATE TABLE absences (number INTEGER PRIMARY KEY, seconds, checksum);
"""
_ROUNDING = 1.0  # seconds: an HTTP Date has no fractions


class _Boot(NamedTuple):
    """What is known of the present boot.

    Attributes:
        boot_id: see :func:`~mqtt_token_client.clock.boot_id`.
        base: the time of the journal when the monotonic clock was 0.
        opened: the number of the last message of earlier boots.
        counted: whether it is known how long the power was off before this boot.
        server, machine: the time of day when the time of the journal was 0, by the clock of the authorization server
            and by that of the machine; None until it is known.
        earlier_server, earlier_machine: the same as the last boot knew it that knew one of them.
        earlier_number: the number of that boot's last message.
        uncertain: the last message that has waited while the power was off for an unknown time.
    """

    boot_id: bytes
    base: float
    opened: int = 0
    counted: int = 1
    server: float | None = None
    machine: float | None = None
    earlier_server: float | None = None
    earlier_machine: float | None = None
    earlier_number: int = 0
    uncertain: int = 0


class Age(NamedTuple):
    """How long a message has waited.

    Attributes:
        seconds: so long at least.
        exact: whether that is all, as the time while the power was off is known.
    """

    seconds: float
    exact: bool


class Timeline:
    """The time of one open journal. Only the journal's thread changes it; any thread may ask it.

    Args:
        connection: to its file.
        reached: the time that the last commit recorded.
        last_number: the highest number of a message so far.

    Raises:
        ValueError: what the file says of the time is damaged.
    """

    def __init__(self, connection: sqlite3.Connection, reached: float, last_number: int) -> None:
        known, now = _read(connection), boot_id().encode()
        self._absences = _read_absences(connection)
        if known is not None and now and known.boot_id == now:
            self._boot = known
            return
        base = reached - monotonic()
        self._save(connection, _Boot(now, base) if known is None else _next(known, now, base, last_number))

    def _save(self, connection: sqlite3.Connection, boot: _Boot) -> None:
        self._boot = boot
        connection.execute(
            "INSERT OR REPLACE INTO timeline VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*boot, _checksum(boot))
        )

    def note_time(self, connection: sqlite3.Connection, times: TimesOfDay, at: float) -> None:
        """A clock that can be trusted has said the time of day.

        Args:
            connection: to the file, in a transaction.
            times: of the clocks.
            at: when it was that time, on the monotonic clock.
        """
        boot, now = self._boot, at + self._boot.base
        server = boot.server if times.server is None else times.server - now
        machine = boot.machine if times.machine is None else times.machine - now
        counted = boot.counted
        for offset, earlier in ((server, boot.earlier_server), (machine, boot.earlier_machine)):
            if not counted and offset is not None and earlier is not None:
                counted = 1
                if offset - earlier > _ROUNDING:
                    self._add_absence(connection, boot.earlier_number, offset - earlier)
        self._save(connection, boot._replace(server=server, machine=machine, counted=counted))

    def _add_absence(self, connection: sqlite3.Connection, number: int, seconds: float) -> None:
        absences = dict(self._absences)
        absences[number] = absences.get(number, 0.0) + seconds
        self._absences = tuple(sorted(absences.items()))
        row = number, absences[number]
        connection.execute("INSERT OR REPLACE INTO absences VALUES (?, ?, ?)", (*row, _checksum(row)))
        connection.execute(
            "DELETE FROM absences WHERE number < (SELECT ifnull(min(number), 0) FROM messages)"  # nobody waits any more
        )

    def now(self) -> float:
        """Return the seconds that have passed since the file was made, as far as the device was on."""
        return self._boot.base + monotonic()

    def from_monotonic(self, at: float) -> float:
        """Return a moment of the monotonic clock on this one."""
        return at + self._boot.base

    def to_monotonic(self, at: float, number: int) -> float:
        """Return the moment of the monotonic clock at which a time that was set for a message has passed.

        Args:
            at: the time.
            number: of the message, which may have waited while the power was off.
        """
        return at - self._boot.base - self._absent(number)

    def age(self, since: float, number: int) -> Age:
        """Return how long a message has waited that was accepted at the time ``since``."""
        boot = self._boot
        exact = number > boot.uncertain and (bool(boot.counted) or number > boot.opened)
        return Age(max(0.0, self.now() - since) + self._absent(number), exact)

    def _absent(self, number: int) -> float:
        return sum(seconds for last, seconds in self._absences if number <= last)


def _next(known: _Boot, boot_id: bytes, base: float, last_number: int) -> _Boot:
    """Return what is known as a boot begins, from what the one before it knew."""
    if known.server is None and known.machine is None:
        return known._replace(boot_id=boot_id, base=base, opened=last_number, counted=0, uncertain=last_number)
    uncertain = known.uncertain if known.counted else max(known.uncertain, known.opened)
    earlier = known.server, known.machine, last_number
    return _Boot(boot_id, base, last_number, 0, None, None, *earlier, uncertain)


def _read(connection: sqlite3.Connection) -> _Boot | None:
    row = connection.execute(f"SELECT {', '.join(_Boot._fields)}, checksum FROM timeline").fetchone()  # noqa: S608
    if row is None:
        return None
    boot = _Boot(*row[:-1])
    if row[-1] != _checksum(boot):
        raise ValueError("the time is damaged")
    return boot


def _read_absences(connection: sqlite3.Connection) -> tuple[tuple[int, float], ...]:
    rows = connection.execute("SELECT number, seconds, checksum FROM absences ORDER BY number").fetchall()
    if any(checksum != _checksum((number, seconds)) for number, seconds, checksum in rows):
        raise ValueError("the time is damaged")
    return tuple((number, seconds) for number, seconds, _ in rows)


def _checksum(values: tuple[object, ...]) -> int:
    return crc32(repr(tuple(values)).encode())
