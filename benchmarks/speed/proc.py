"""What the kernel reports about a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def processor_time(pid: int) -> float:
    """Seconds so far, of all threads; finer than the ticks of /proc/PID/stat."""
    return sum(int(schedstat.split()[0]) for schedstat in tasks(pid, "schedstat")) / 1e9


def tasks(pid: int, name: str) -> Iterator[str]:
    """A file of each thread."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended in the meantime
            yield (task / name).read_text()
