"""The time that expiries in a journal are measured on: it counts what the device was on, from one boot to the next.

The wall clock of a device may be wrong by years, so it is not asked. Within a boot, time is that of the monotonic
clock; after another boot it continues from what the last commit recorded. While the power is off, it stands still.
"""

from __future__ import annotations

import sqlite3
from zlib import crc32

from ..clock import boot_id, monotonic


class Timeline:
    """The time of one open journal.

    Args:
        connection: to its file.
        reached: the time that the last commit recorded.

    Raises:
        ValueError: what the file says of the time is damaged.
    """

    def __init__(self, connection: sqlite3.Connection, reached: float) -> None:
        boot = boot_id().encode()
        rows = connection.execute("SELECT boot_id, base, checksum FROM timeline").fetchall()
        for known, base, checksum in rows:
            if not isinstance(known, bytes) or not isinstance(base, float) or checksum != _checksum(known, base):
                raise ValueError("the time is damaged")
            if known == boot and boot:
                self._base = base
                return
        self._base = reached - monotonic()
        connection.execute(
            "INSERT OR REPLACE INTO timeline VALUES (1, ?, ?, ?)", (boot, self._base, _checksum(boot, self._base))
        )

    def now(self) -> float:
        """Return the seconds that have passed."""
        return self._base + monotonic()

    def from_monotonic(self, at: float | None) -> float | None:
        """Return a moment of the monotonic clock on this one."""
        return None if at is None else at + self._base

    def to_monotonic(self, at: float) -> float:
        """Return a moment of this clock on the monotonic one."""
        return at - self._base


def _checksum(boot: bytes, base: float) -> int:
    return crc32(b"%s %r" % (boot, base))
