"""A folder that only this user can open, and files in it that a power cut cannot damage."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError, StoreError

_NAME = "mqtt-token-client"


def user_folder() -> Path:
    """Return the folder for all programs of this user (XDG Base Directory Specification, ``XDG_STATE_HOME``).

    Raises:
        ConfigurationError: the user has no home.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the specification says to ignore it
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:
            raise ConfigurationError("store: this user has no home; give a folder: FileStore('/var/lib/…')") from None
    return state / _NAME


def default_folder() -> Path:
    """Return the folder of this systemd service (``StateDirectory=`` in systemd.exec(5)), else the user's."""
    service = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(service) / _NAME if service else user_folder()


def problem(folder: Path) -> str | None:
    """Say why a folder must not be used for secrets, and what to do; None if it is private or does not exist yet.

    The mode of a folder that is open to others is not changed, as they may need the other files in it.
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
            f"{folder} belongs to another user (uid {found.st_uid}); give a folder of the user that runs this program"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        return f"{folder} is open to other users (mode {mode:03o}); give a new folder inside it, or chmod it to 700"
    return None


def prepare(folder: Path) -> None:
    """Create the folder if it does not exist.

    Raises:
        OSError: it cannot be created.
        StoreError: it is not private.
    """
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)
    if why := problem(folder):
        raise StoreError(f"store: {why}")


def replace(file: Path, content: bytes) -> None:
    """Replace the content of a file, with mode 600: readers find the old content or the new one, never a part, also
    after a power cut. For one writer at a time.

    Raises:
        OSError: it failed; the old content stays.
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
    """Write the entries of a folder to disk: without this, a power cut may undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # vboxsf, SMB, FUSE: they have no such thing for a folder
            raise
    finally:
        os.close(descriptor)
