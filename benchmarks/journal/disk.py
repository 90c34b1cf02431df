"""A disk of its own, an ext4 filesystem on a loop device, whose kernel counts what is written to it; needs root."""

from __future__ import annotations

import subprocess
from pathlib import Path

from devtools.servers.processes import need

_SIZE = 1 << 30
_WRITTEN, _FLUSHES = 6, 15  # columns of a block device's `stat`: sectors written, flush requests
_SECTOR = 512


class Disk:
    """Counts bytes and flushes.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        for command, package in (("mkfs.ext4", "e2fsprogs"), ("losetup", "mount"), ("mount", "mount")):
            need(command, packages=package)
        image, self.folder = folder / "image", folder / "disk"
        with image.open("wb") as file:
            file.truncate(_SIZE)
        _run("mkfs.ext4", "-q", "-b", "4096", str(image))
        self._device = _run("losetup", "--find", "--show", str(image)).strip()
        self.folder.mkdir()
        _run("mount", self._device, str(self.folder))

    def counts(self) -> tuple[int, int]:
        """Bytes that were written and flushes, so far."""
        fields = Path(f"/sys/block/{Path(self._device).name}/stat").read_text().split()
        return int(fields[_WRITTEN]) * _SECTOR, int(fields[_FLUSHES])

    def settle(self) -> None:
        """Write what the kernel has kept back."""
        _run("sync", "--file-system", str(self.folder))

    def close(self) -> None:
        _run("umount", str(self.folder))
        _run("losetup", "--detach", self._device)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
