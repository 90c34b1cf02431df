"""A lock between threads and processes that the kernel releases when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StoreError, StoreLocked

_LOCK_TIMEOUT = 60.0  # seconds: a token request with all its retries takes less


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock file. It is never deleted, as this would allow two holders.

    Raises:
        StoreLocked: another holder has not released it within a minute.
        StoreError: the file cannot be created, opened or locked.
    """
    from filelock import FileLock, Timeout

    # A new one each time, so that it also excludes other threads. No soft lock where the file system has no locks: its
    # file would be taken for a held lock after a power cut.
    lock = FileLock(path, timeout=_LOCK_TIMEOUT, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreLocked(f"store: another process or thread has held {path} for {_LOCK_TIMEOUT:g} s") from None
    except OSError as error:
        raise StoreError(f"store: {path} cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
