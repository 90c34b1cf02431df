"""A gateway, run by Node, in front of a broker's WebSocket: it checks the token in the upgrade request's header."""

from __future__ import annotations

import json
from pathlib import Path

from .keys import Keys
from .oidc import install_packages
from .processes import Process, accepts, free_port

_HERE = Path(__file__).parent


class Gateway:
    """Forwards a client to the broker if its upgrade request has ``Authorization: Bearer`` with a token for the
    audience ``rabbitmq`` signed with any of the keys, and ends the connection when the token expires; answers HTTP 401
    to others.

    Attributes:
        port: plain.
    """

    def __init__(self, broker_port: int, keys: Keys, folder: Path) -> None:
        install_packages()
        self.port = free_port()
        by_algorithm = {"RS256": str(keys.folder / "rs.pub.pem"), "ES256": str(keys.folder / "es.pub.pem")}
        options = {"port": self.port, "broker": broker_port, "keys": by_algorithm}
        command = ["node", str(_HERE / "gateway.mjs")]
        self._process = Process("gateway", command, folder / "gateway.log", {"TEST_GATEWAY": json.dumps(options)})
        self._process.start(lambda: accepts(self.port))

    def close(self) -> None:
        self._process.stop()

    @property
    def accepted(self) -> int:
        """The number of upgrade requests it forwarded."""
        return self._process.read(0).count("accepted ")

    @property
    def refused(self) -> int:
        """The number of tokens it rejected."""
        return self._process.read(0).count("refused: ")
