"""A monotonic clock that counts suspend, and the server's time of day.

A Raspberry Pi has no clock chip: its wall clock starts years in the past and jumps when NTP answers. No duration in
this library is measured on it.
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

CLOCK_IS_SET = 1_704_067_200  # 2024-01-01: a clock that shows an earlier time has never been set
_MAX_RETRY_AFTER = 3600.0  # seconds
_TIMEX_BYTES = 512  # more than struct timex has
_TIME_ERROR = 5  # the clock is not synchronized
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Return the seconds on a clock that never jumps and counts suspend (CLOCK_BOOTTIME, else CLOCK_MONOTONIC)."""
    return time.clock_gettime(_CLOCK)


def wall() -> float:
    """Return the seconds since the epoch by this machine's wall clock, which may be wrong by years."""
    return time.time()


def synchronized_wall() -> float | None:
    """Return the seconds since the epoch by this machine's wall clock, if its kernel says that NTP or the like keeps it
    (Linux, adjtimex(2)); otherwise None.
    """
    import ctypes  # loaded by those with a journal only

    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError, TypeError):  # not Linux
        return None
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # all zero: change nothing
    return wall() if 0 <= state < _TIME_ERROR else None


def boot_id() -> str:
    """Return the identifier of this boot of the machine, as :func:`monotonic` starts anew with each (Linux, random(4));
    empty on other systems.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes long to load
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def http_date(text: str | None) -> float | None:
    """Return the seconds since the epoch of an HTTP date (RFC 9110 section 5.6.7); None if it is not one."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime  # many modules, which a client that requests no token does not need

    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _age(text: str | None) -> float:
    """Return the seconds of an ``Age`` header; 0 if it is missing or invalid."""
    return float(text) if text and text.isascii() and text.isdigit() else 0.0


class TimesOfDay(NamedTuple):
    """What the clocks say that can be trusted, in seconds since the epoch.

    Attributes:
        server: the authorization server's; None if it is not known yet.
        machine: this machine's; None if nothing keeps it.
    """

    server: float | None = None
    machine: float | None = None


class ServerClock:
    """The time of day of a server, from its HTTP ``Date`` header (RFC 9110 section 6.6.1) and the monotonic clock.

    Before the first such header it is what :meth:`learn_from` was given, or else this machine's wall clock.

    Args:
        earliest: the seconds since the epoch before which a ``Date`` header cannot be right and changes nothing.
        max_age: the seconds for which a cache may have had an answer (its ``Age``, RFC 9111 section 5.1) whose ``Date``
            counts. Some caches keep the server's ``Date``, which is old then, others put in their own.

    Attributes:
        from_server: whether the server itself has shown it, by a ``Date`` header or a token.
    """

    def __init__(self, earliest: float = -math.inf, max_age: float = 3.0) -> None:
        self._earliest = earliest
        self._max_age = max_age
        self._offset: float | None = None
        self._has_date = False
        self.from_server = False

    @property
    def known(self) -> bool:
        """Whether it is another time than that of this machine's wall clock."""
        return self._offset is not None

    def learn(self, date_header: str | None, at: float | None = None, age_header: str | None = None) -> None:
        """Set the time from a ``Date`` header that was sent at ``at`` (a reading of :func:`monotonic`; now by default).

        A missing or invalid header changes nothing.
        """
        date = http_date(date_header)
        if date is None or date < self._earliest or _age(age_header) > self._max_age:
            return
        self._has_date = self.from_server = True
        self._offset = date - (monotonic() if at is None else at)

    def learn_from(self, time_of_day: float, at: float, *, from_server: bool = True) -> None:
        """Set the time from something else, as some servers send no ``Date`` header. It changes nothing after one.

        Args:
            time_of_day: seconds since the epoch.
            at: when it was that time, as a reading of :func:`monotonic`.
            from_server: whether the server itself has shown it.
        """
        if not self._has_date:
            self.from_server = self.from_server or from_server
            self._offset = time_of_day - at

    def now(self) -> float:
        """Return the seconds since the epoch, by the server's clock."""
        return wall() if self._offset is None else monotonic() + self._offset


def seconds_to_wait(header: str | None, clock: ServerClock) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait (RFC 9110 section 10.2.3), an hour at most; None if
    it is missing or invalid.

    Args:
        header: seconds, or an HTTP date.
        clock: the server's, for a date.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        date = http_date(header)
        if date is None:
            return None
        seconds = date - clock.now()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _MAX_RETRY_AFTER)
