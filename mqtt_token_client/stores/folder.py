"""A folder that is this user's alone, and files in it that are replaced whole, whenever the power goes."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError, StoreError

_NAME = "mqtt-token-client"


def user_folder() -> Path:
    """Where all programs of this user look (XDG Base Directory Specification, ``XDG_STATE_HOME``).

    Raises:
        ConfigurationError: the user has no home.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the specification: to be ignored
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:
            raise ConfigurationError("store: this user has no home; name a folder: FileStore('/var/lib/…')") from None
    return state / _NAME


def default_folder() -> Path:
    """In the folder that systemd gave this service (``StateDirectory=`` in systemd.exec(5)), else the user's."""
    service = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(service) / _NAME if service else user_folder()


def fault(folder: Path) -> str | None:
    """What is wrong with a folder for secrets, and what to do; None for a private one, and for one yet to be made.

    One that others may look into is refused and not tightened: it may be theirs to look into for the sake of the other
    files in it.
    """
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder"
    if found.st_uid != os.geteuid():
        return (
            f"{folder} belongs to another user (uid {found.st_uid}); name a folder of the user that runs this program"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        return f"{folder} is open to other users (mode {mode:03o}); name a new folder inside it, or chmod it to 700"
    return None


def prepare(folder: Path) -> None:
    """Make the folder if it is not there.

    Raises:
        OSError: it cannot be made.
        StoreError: it is not private.
    """
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)
    if why := fault(folder):
        raise StoreError(f"store: {why}")


def replace(file: Path, content: bytes) -> None:
    """Give a file new content, with mode 600: a reader and a power cut see the old one or the new one, never a part.
    For one writer at a time.

    Raises:
        OSError: it could not be done; the old content stays.
    """
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.unlink(missing_ok=True)  # of a writer that died
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(descriptor)
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(file.parent)


def sync(folder: Path) -> None:
    """Write to disk which files a folder has: without it, a power cut may take a rename back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
