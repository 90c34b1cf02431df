"""Files that hold a secret or a private key: other users must not be able to read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import ConfigurationError


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
