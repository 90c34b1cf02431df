"""A lock between threads and processes that the kernel releases when its holder dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..clock import monotonic
from ..errors import StoreError, StoreLocked
from ..forking import reset_after_fork

_LOCK_TIMEOUT = 60.0  # seconds: a token request with all its retries takes less
_POLL = 0.05  # seconds between attempts: flock() has no timeout of its own


class _FileLock:
    """A lock by flock(2) on an open file; each has its own, so it also excludes other threads.

    A forked child shares the open file, and with it the lock. It closes its copy at once: that leaves the lock to the
    parent, which a release would not.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        reset_after_fork(self)

    def acquire(self, timeout: float) -> bool:
        """Wait for the lock, for ``timeout`` seconds at most; return whether it is held."""
        import fcntl

        assert self._file is not None
        gives_up = monotonic() + timeout
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= gives_up:
                    return False
                time.sleep(_POLL)
            else:
                return True

    def release(self) -> None:
        """Release the lock, if it is held; in a child that was forked in the meantime, do nothing."""
        if self._file is not None:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_UN)  # closing alone would leave it to a child that has not closed yet
            self.close()

    def after_fork(self) -> None:
        if self._file is not None:
            self.close()

    def close(self) -> None:
        """Close the file without releasing the lock."""
        assert self._file is not None
        os.close(self._file)
        self._file = None


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock file. It is never deleted, as this would allow two holders.

    Raises:
        StoreLocked: another holder has not released it within a minute.
        StoreError: the file cannot be created, opened or locked, or this system has no flock().
    """
    lock = _acquired(path)
    try:
        yield
    finally:
        lock.release()


def _acquired(path: Path) -> _FileLock:
    try:
        with ExitStack() as otherwise:
            lock = _FileLock(path)
            otherwise.callback(lock.close)
            if not lock.acquire(_LOCK_TIMEOUT):
                raise StoreLocked(f"store: another process or thread has held {path} for {_LOCK_TIMEOUT:g} s")
            otherwise.pop_all()
            return lock
    except OSError as error:
        raise StoreError(f"store: {path} cannot be locked: {error.strerror}") from None
    except ImportError:
        raise StoreError(f"store: {path} cannot be locked: this system has no flock()") from None
