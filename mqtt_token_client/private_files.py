"""Files that hold a secret or a private key: other users must not be able to read them."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from .errors import ConfigurationError
from .value import hidden

_LARGEST = 65_536  # bytes of a key or a secret
_READ = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))  # no system has all


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read it. Of a FIFO or a device, opening or reading it may take forever.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    with ExitStack() as otherwise:
        descriptor = os.open(path, _READ)
        otherwise.callback(os.close, descriptor)
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise OSError(None, "not a regular file")
        opened = os.fdopen(descriptor, "rb")  # it rejects a folder
        otherwise.pop_all()
        return opened


def read_small(path: str | os.PathLike[str]) -> bytes:
    """Read a file that a person has named for a key or a secret, of 64 KiB at most.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger.
    """
    with open_regular(path) as file:
        content: bytes = hidden(file.read(_LARGEST + 1))
    if len(content) > _LARGEST:
        raise OSError(None, "longer than 64 KiB; give the path of the right file")
    return content


def check_private(name: str, path: str | os.PathLike[str]) -> None:
    """Check that the other users of this machine cannot read a file. Its group may.

    Args:
        name: the argument or entry, for the error.
        path: of a file that exists.

    Raises:
        ConfigurationError: they can, by its mode and those of the folders that lead to it.
    """
    if os.name != "posix":
        return
    file = Path(path).resolve()
    try:
        readable = file.stat().st_mode & stat.S_IROTH
        reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in file.parents)
    except OSError:  # whoever reads it says what is wrong
        return
    if readable and reachable:
        raise ConfigurationError(
            f"{name}: every user of this machine can read {os.fspath(path)!r}: chmod it to 600 "
            "(Kubernetes: defaultMode: 0400, Docker: mode: 0400), and replace what is in it if others may have read it"
        )
