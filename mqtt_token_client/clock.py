"""Elapsed time that counts suspend and ignores steps of the wall clock, and the server's time of day.

A Raspberry Pi has no clock chip: its wall clock starts years in the past and jumps when NTP answers. Nothing in this
library measures a duration on it.
"""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds on a clock that never steps and goes on while the machine sleeps (CLOCK_BOOTTIME, else monotonic)."""
    return time.clock_gettime(_CLOCK)


def boot_id() -> str:
    """What names this boot of the machine, as the readings of :func:`monotonic` hold for it alone (Linux, random(4));
    empty where nothing does.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes a while to load
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def http_date(text: str | None) -> float | None:
    """Seconds since the epoch of an HTTP date, in any of its forms (RFC 9110 section 5.6.7); None for anything else."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime  # loads what a client without a token request has no use for

    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


class ServerClock:
    """The time of day as a server tells it in its HTTP ``Date`` header (RFC 9110 section 6.6.1), carried forward on
    the monotonic clock. Until a server has spoken it is this machine's wall clock.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None

    @property
    def known(self) -> bool:
        """Whether a server has told its time."""
        return self._ahead is not None

    def learn(self, date_header: str | None, at: float | None = None) -> None:
        """Take over a ``Date`` header that was made at ``at`` (a reading of :func:`monotonic`; now by default).

        A missing or unreadable header changes nothing.
        """
        told = http_date(date_header)
        if told is None:
            return
        self._ahead = told - (monotonic() if at is None else at)

    def now(self) -> float:
        """Seconds since the epoch, by the server."""
        return time.time() if self._ahead is None else monotonic() + self._ahead
