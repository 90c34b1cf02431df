"""Messages on stdout, whose reader may pause for as long as it likes."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

import click

_PATIENCE = 2.0  # seconds without progress, after which a reader of stdout is not waited for any more


def check_stdout() -> None:
    """Raise a UsageError if this process was started without a stdout."""
    if sys.stdout is None:
        raise click.UsageError("stdout is closed")


def write_out(data: bytes, progress: Callable[[], object] = lambda: None) -> None:
    """Write to stdout, past its buffer: what waits in that for a reader that pauses would keep the process from ending.

    Args:
        data: what to write.
        progress: called when a part of it has been written.

    Raises:
        OSError: nobody reads it any more.
    """
    try:
        number = sys.stdout.fileno()
    except ValueError:  # of a stream in memory
        sys.stdout.buffer.write(data)
        return
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(number, rest[: select.PIPE_BUF]) :]
            progress()
        except BlockingIOError:  # another process has set this for the terminal or the pipe that both have
            select.select([], [number], [])


class Printer:
    """Prints lines in the background, so that a reader that pauses holds up neither the network nor Ctrl-C. They wait
    in memory.

    Args:
        ended: called when nothing is printed any more, at the latest when nobody reads stdout any more.

    Attributes:
        error: why nothing more can be printed, unless nobody reads it; None if something can.
    """

    error: OSError | None = None

    def __init__(self, ended: Callable[[], object]) -> None:
        self._ended = ended
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._parts = 0  # that have been written
        self._finished = threading.Event()
        threading.Thread(target=self._print, name="printer", daemon=True).start()

    def put(self, line: bytes) -> None:
        """Print a line when those before it have been printed. Returns at once."""
        self._lines.put(line + b"\n")

    def _print(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                write_out(line, self._count)
        except BrokenPipeError:
            pass
        except OSError as error:  # such as a full disk
            self.error = error
        finally:
            self._finished.set()
            self._ended()

    def _count(self) -> None:
        self._parts += 1

    def finish(self, *, patient: bool = False) -> bool:
        """Wait until all lines are printed, or nobody reads stdout any more; returns False if a reader pauses.

        Args:
            patient: whether to wait for a reader that pauses.
        """
        self._lines.put(None)
        before = self._parts
        while not self._finished.wait(None if patient else _PATIENCE):
            if self._parts == before:
                return False
            before = self._parts
        return True
