"""Messages on stdout, whose reader may pause for as long as it likes."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PATIENCE = 2.0  # seconds without progress, after which a reader of stdout is not waited for any more


def check_stdout() -> None:
    """Raise a ClickException if stdout is closed: for commands that do something before they print."""
    try:
        os.write(sys.stdout.fileno(), b"")
    except OSError as error:
        if error.errno == errno.EBADF:  # others are found when there is something to print
            raise cannot_write(error) from None


def cannot_write(error: OSError) -> click.ClickException:
    """The error of a command whose output cannot be written, such as to a full disk."""
    return click.ClickException(f"stdout: {error.strerror}")


class Output(io.FileIO):
    """stdout or stderr, for what commands print and click and rich write. What fails on stdout ends the command with
    one line; on stderr it has nobody to tell, and changes no exit code.
    """

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of the data, and wait for a reader that pauses.

        Raises:
            BrokenPipeError: nobody reads stdout any more. click ends the command without a word.
            ClickException: stdout cannot be written.
        """
        size = memoryview(data).nbytes
        if self._failed:  # what is left in the buffer goes nowhere
            return size
        try:
            while (written := super().write(data)) is None:  # another process has set it to be non-blocking
                select.select([], [self], [])
        except OSError as error:
            self._failed = True
            if self.fileno() == 2:
                return size
            if isinstance(error, BrokenPipeError):
                raise
            raise cannot_write(error) from None
        return written


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
        count: how many lines were to be printed so far.
    """

    error: OSError | None = None

    def __init__(self, ended: Callable[[], object]) -> None:
        self._ended = ended
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self.count = self._printed = 0  # lines
        self._parts = 0  # that have been written
        self._finished = threading.Event()
        threading.Thread(target=self._print, name="printer", daemon=True).start()

    def put(self, line: bytes) -> None:
        """Print a line when those before it have been printed. Returns at once."""
        self.count += 1
        self._lines.put(line + b"\n")

    def _print(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                write_out(line, self._progress)
                self._printed += 1
        except BrokenPipeError:
            pass
        except OSError as error:  # such as a full disk
            self.error = error
        finally:
            self._finished.set()
            self._ended()

    def _progress(self) -> None:
        self._parts += 1

    @property
    def unprinted(self) -> int:
        """How many lines wait for a reader that pauses, with the one that is printed in part; 0 if nobody reads stdout
        any more.
        """
        return 0 if self._finished.is_set() else self.count - self._printed

    def finish(self, *, patient: bool = False) -> None:
        """Wait until all lines are printed, or nobody reads stdout any more, or a reader pauses.

        Args:
            patient: whether to wait for a reader that pauses.
        """
        self._lines.put(None)
        before = self._parts
        while not self._finished.wait(None if patient else _PATIENCE):
            if self._parts == before:
                return
            before = self._parts
