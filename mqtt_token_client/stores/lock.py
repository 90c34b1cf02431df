"""A lock between threads and processes that the kernel releases when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StoreError, StoreLocked

_WAIT = 60.0  # seconds: a token request with all its retries ends sooner


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which stays where it is afterwards: whoever unlinked it would let two holders in.

    Raises:
        StoreLocked: somebody has held it for a minute.
        StoreError: the file cannot be made, opened or locked.
    """
    from filelock import FileLock, Timeout

    # A new one each time, so that threads, too, exclude each other; and never its second choice where the file system
    # has no locks: a file that a power cut leaves behind as if it were held.
    lock = FileLock(path, timeout=_WAIT, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreLocked(f"store: {path} has been locked by somebody else for {_WAIT:g} s") from None
    except OSError as error:
        raise StoreError(f"store: {path} cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
