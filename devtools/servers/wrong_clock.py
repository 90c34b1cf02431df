"""A wall clock that a test sets, for one process: libfaketime."""

from __future__ import annotations

import os
from pathlib import Path

from .processes import need_library


class WrongClock:
    """The wall clock of the processes that are started with :meth:`environment`. Their monotonic clocks stay right.

    Args:
        file: where the offset is kept; a process sees at once what is written there, as in ``+3600``.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._library = need_library("libfaketimeMT.so.1", packages="libfaketime")

    def set(self, offset: int) -> None:
        """Let the clock be so many seconds off."""
        self.file.write_text(f"{offset:+d}\n", encoding="ascii")

    def environment(self) -> dict[str, str]:
        """The environment of a process that has this clock."""
        return os.environ | {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # On glibc 2.36 it takes the deadlines of Python's waits for the GIL, which are monotonic, for wall time:
            # threads that wait spin instead, and the process runs at a tenth of its speed.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
