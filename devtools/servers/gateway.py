"""A gateway before a broker's WebSocket, under Node, that reads the token in the HTTP header of the upgrade."""

from __future__ import annotations

import json
from pathlib import Path

from .keys import Keys
from .oidc import install_packages
from .processes import Process, accepts, free_port

_HERE = Path(__file__).parent


class Gateway:
    """Passes on to a broker whose upgrade has ``Authorization: Bearer`` with a token for the audience ``rabbitmq``
    signed with any of the keys, and ends the connection when the token ends; answers HTTP 401 to others.

    Attributes:
        port: plain.
    """

    def __init__(self, broker_port: int, keys: Keys, folder: Path) -> None:
        install_packages()
        self.port = free_port()
        by_algorithm = {"RS256": str(keys.folder / "rs.pub.pem"), "ES256": str(keys.folder / "es.pub.pem")}
        told = {"port": self.port, "broker": broker_port, "keys": by_algorithm}
        command = ["node", str(_HERE / "gateway.mjs")]
        self._process = Process("gateway", command, folder / "gateway.log", {"TEST_GATEWAY": json.dumps(told)})
        self._process.start(lambda: accepts(self.port))

    def close(self) -> None:
        self._process.stop()

    @property
    def accepted(self) -> int:
        """How many upgrades it has passed on."""
        return self._process.read(0).count("accepted ")

    @property
    def refused(self) -> int:
        """How many tokens it has refused."""
        return self._process.read(0).count("refused: ")
