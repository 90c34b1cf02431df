"""ejabberd with its own JWT authentication: MQTT 3.1.1 and 5."""

from __future__ import annotations

from pathlib import Path

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .documented import documented
from .keys import Keys
from .processes import Process, accepts, free_port, need


class Ejabberd:
    """A broker with the settings of docs/brokers.md. It accepts tokens that the EC key signed, as password. The user
    name must be the token's ``sub``, a JID of the host ``localhost``. The token is checked in CONNECT only.

    Version 23.01 is the one of Debian 12. Sessions are lost when it ends.

    Attributes:
        host: 127.0.0.1.
        port: plain.
    """

    host = "127.0.0.1"

    def __init__(self, keys: Keys, folder: Path) -> None:
        need("erl", "ejabberdctl", packages="ejabberd")
        self.port = free_port()
        public = load_pem_public_key((keys.folder / "es.pub.pem").read_bytes())
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(public)  # type: ignore[arg-type]
        (folder / "jwk.json").write_text(jwk)
        replaced = {
            "plant.example.com": "localhost",
            "/etc/ejabberd/jwk.json": str(folder / "jwk.json"),
            "8883": f"{self.port}\n    ip: {self.host}",
            "    tls: true\n": "",
        }
        (folder / "ejabberd.yml").write_text(documented("ejabberd", "yaml", replaced))
        environment = {
            "HOME": str(folder),
            "EJABBERD_CONFIG_PATH": str(folder / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(folder / "ejabberd.log"),
            "ERL_LIBS": str(_libraries()),
        }
        # Without a node name there is no epmd. ejabberdctl changes the user, and starts a daemon.
        command = ["erl", "-noinput", "-mnesia", "dir", f'"{folder / "mnesia"}"', "-s", "ejabberd"]
        self._process = Process("ejabberd", command, folder / "output.log", environment)

    def start(self) -> None:
        """Start it; this takes some 3 to 6 seconds."""
        self._process.start(lambda: accepts(self.port), timeout=60)

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self._process.stop(timeout=20)

    def reset(self) -> None:
        """Start it unless it runs."""
        if not self._process.alive:
            self.start()


def _libraries() -> Path:
    """Where Debian has its Erlang libraries; the folder's name depends on the architecture."""
    found = next(Path("/usr/lib").glob("*/ejabberd-*/ebin"), None)
    if found is None:
        raise FileNotFoundError("the libraries of ejabberd are missing; install the package ejabberd")
    return found.parent.parent
