"""GNOME Keyring as the Secret Service of a D-Bus session with nothing else in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .processes import Process, need

PASSWORD = "the password of this session"
_BUS = """<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


class Session:
    """A D-Bus session. Its configuration starts no service by itself, so that a keyring can be absent.

    Args:
        folder: for its files; a short path, because the path of a socket may have 107 characters.
    """

    def __init__(self, folder: Path) -> None:
        need("dbus-daemon", "dbus-send", "gnome-keyring-daemon", packages="dbus gnome-keyring")
        self.folder = folder
        self._socket = folder / "bus"
        config = folder / "bus.conf"
        config.write_text(_BUS.format(socket=self._socket))
        (folder / "home").mkdir()
        (folder / "run").mkdir(mode=0o700)
        self.env = {
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self._socket}",
            "HOME": str(folder / "home"),
            "XDG_DATA_HOME": str(folder / "home" / "data"),
            "XDG_STATE_HOME": str(folder / "home" / "state"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
        }
        self._bus = Process("D-Bus", ["dbus-daemon", f"--config-file={config}", "--nofork"], folder / "bus.log")
        self._bus.start(self._socket.exists)
        self.keyring: Process | None = None

    def start_keyring(self, password: str | None = PASSWORD) -> None:
        """Start the daemon, unlocked with a password, which becomes that of a new keyring; None leaves it locked."""
        password_file = self.folder / "password"
        password_file.write_text(password or "")
        command = 'exec gnome-keyring-daemon --foreground --components=secrets "$@" <"$0"'
        self.keyring = Process(
            "GNOME Keyring",
            ["bash", "-c", command, str(password_file), *(["--unlock"] if password else [])],
            self.folder / "keyring.log",
            self.env,
        )
        self.keyring.start(self._owned)

    def stop_keyring(self) -> None:
        """Stop the daemon; its files stay."""
        if self.keyring is not None:
            self.keyring.kill()
            self.keyring = None

    def close(self) -> None:
        self.stop_keyring()
        self._bus.kill()

    def _owned(self) -> bool:
        """Whether a program answers as the Secret Service."""
        asked = ["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets"]
        answer = subprocess.run(
            [
                "dbus-send",
                f"--bus=unix:path={self._socket}",
                "--dest=org.freedesktop.DBus",
                "--print-reply",
                "/",
                *asked,
            ],
            capture_output=True,
            check=False,
        )
        return b"boolean true" in answer.stdout
