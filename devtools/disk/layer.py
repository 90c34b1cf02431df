"""The layer between a process and its system calls: how it is built, preloaded and controlled. See layer.c."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
from pathlib import Path

from devtools.servers.processes import BUILD, INSTALL, need, unavailable

_SOURCE = Path(__file__).parent / "layer.c"
_PACKAGES = "gcc libc6-dev"


def environment() -> dict[str, str]:
    """The environment of a process that runs on the layer; the test is skipped if it cannot be built."""
    need("gcc", packages=_PACKAGES)
    library = BUILD / "disk_layer.so"
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "disk_layer.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not library.exists() or library.stat().st_mtime < _SOURCE.stat().st_mtime:
            flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Werror", "-fPIC", "-shared"]
            command = ["gcc", *flags, str(_SOURCE), "-o", str(library), "-ldl"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                unavailable(f"layer.c: {done.stderr}\na header missing? {INSTALL} {_PACKAGES}")
    return os.environ | {"LD_PRELOAD": str(library)}


class Layer:
    """The layer of this process, which must have been started in :func:`environment`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.disk_watch.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long]
        self._library.disk_watch.restype = None
        self._library.disk_fail.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long]
        self._library.disk_fail.restype = None
        self._library.disk_changes.restype = self._library.disk_calls.restype = ctypes.c_long

    def watch(self, folder: Path, log: Path, kill_at: int = 0) -> None:
        """Append each change below ``folder`` to ``log``; at change ``kill_at``, counted from 1, the process is killed.
        The folder's path must have no symbolic links. It must not be called again while files of the folder are open.
        """
        self._library.disk_watch(os.fsencode(folder), os.fsencode(log), kill_at)

    def fail(self, error: int, start: int, times: int = -1) -> None:
        """Let system calls on files of the folder fail.

        Args:
            error: ENOSPC, EIO or EROFS; 0 for none. It says which calls are counted: a full disk can be read.
            start: the first call to fail, counted from 1.
            times: how many fail; -1 for all from there on.
        """
        self._library.disk_fail(error, start, times)

    @property
    def changes(self) -> int:
        """How many changes were made since :meth:`watch`."""
        return int(self._library.disk_changes())

    @property
    def calls(self) -> int:
        """How many calls that could have failed were made since :meth:`fail`."""
        return int(self._library.disk_calls())
