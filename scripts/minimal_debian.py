"""A minimal Debian of its own, in which scripts run the commands of a page as a reader would."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_REPOSITORY = "https://github.com/mqtt-token-client/mqtt-token-client"
# Where certificate authorities of one's own and the settings of pip are on this machine, if it needs any.
_OWN = ("usr/local/share/ca-certificates", "etc/pip.conf")


def blocks(page: str) -> list[str]:
    """The shell blocks of a page, or of a part of one."""
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def make(base: Path, release: str, packages: str) -> None:
    """Make the system by debootstrap, unless it is there from an earlier time."""
    if not (base / "etc/debian_version").exists():
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", release, str(base)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def copy(base: Path, machine: Path) -> None:
    """Copy it, with what this machine needs for downloads, and let git find this checkout where the project's is."""
    subprocess.run(["cp", "--archive", "--reflink=auto", str(base), str(machine)], check=True)
    for name in _OWN:
        source = Path("/", name)
        if source.is_dir():
            shutil.copytree(source, machine / name, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, machine / name)
    subprocess.run(["chroot", str(machine), "update-ca-certificates"], check=True, stdout=subprocess.DEVNULL)
    (machine / "etc/gitconfig").write_text(f'[url "/checkout"]\n\tinsteadOf = {_REPOSITORY}\n[safe]\n\tdirectory = *\n')
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(machine / "checkout")], check=True)


def remove(folder: Path) -> None:
    """Remove a folder with such a system, nothing that is mounted in it."""
    subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(folder)], check=False)
