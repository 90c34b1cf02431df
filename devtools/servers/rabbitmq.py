"""RabbitMQ with its own OAuth 2.0 backend, which fetches the keys of the authorization server: MQTT 3.1.1."""

from __future__ import annotations

import re
from pathlib import Path

from .documented import documented
from .processes import Process, accepts, free_port, need

# The wrapper in /usr/sbin changes the user; this one runs as the user that starts it.
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class RabbitMQ:
    """A broker that accepts tokens for the audience ``rabbitmq`` with rights in the claim ``scope``, as password.

    Version 3.10, the one of Debian 12, keeps a connection whose token has expired, and keeps sessions and queued
    messages through a SIGKILL. It has the virtual hosts ``/`` and ``plant``.

    Attributes:
        host: 127.0.0.1.
        port: plain.
    """

    host = "127.0.0.1"

    def __init__(self, jwks_uri: str, folder: Path) -> None:
        need(_SERVER, "epmd", packages="rabbitmq-server")
        self.port = free_port()
        epmd_port = free_port()
        (folder / "home").mkdir()
        (folder / "definitions.json").write_text('{"vhosts": [{"name": "/"}, {"name": "plant"}]}')
        (folder / "enabled_plugins").write_text("[rabbitmq_mqtt,rabbitmq_auth_backend_oauth2].\n")
        (folder / "rabbitmq.conf").write_text(f"""\
listeners.tcp = none
mqtt.listeners.tcp.1 = {self.host}:{self.port}
mqtt.allow_anonymous = false
mqtt.vhost = /
mqtt.exchange = amq.topic
auth_backends.1 = rabbit_auth_backend_oauth2
load_definitions = {folder / "definitions.json"}
log.file = false
log.console = true
log.console.use_colors = off
""")
        keys = "https://id.example.com/realms/plant/protocol/openid-connect/certs"
        (folder / "advanced.config").write_text(documented("RabbitMQ", "erlang", {keys: jwks_uri}))
        environment = {
            "HOME": str(folder / "home"),
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": self.host,
            "RABBITMQ_ALLOW_INPUT": "1",  # without a shell around it: the process that is started is the broker
            # epmd, the name service, would outlive it as a daemon: this class starts its own
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -start_epmd false -setcookie test "
            "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        self._epmd_port = epmd_port
        self._epmd = Process("epmd", ["epmd"], folder / "epmd.log", environment)
        self._process = Process("rabbitmq", [_SERVER], folder / "rabbitmq.log", environment)
        self._from = 0

    def start(self) -> None:
        """Start it, on the same port and with the same sessions each time; this takes some 5 to 10 seconds."""
        self._epmd.start(lambda: accepts(self._epmd_port))
        begin = self._process.logged()
        self._process.start(lambda: "Server startup complete" in self._process.read(begin), timeout=60)

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self._process.stop(timeout=20)
        self._epmd.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.kill()
        self._epmd.kill()

    def reset(self) -> None:
        """Start it unless it runs, and let :meth:`log` begin here."""
        if not self._process.alive:
            self.start()
        self._from = self._process.logged()

    def log(self) -> str:
        """Its log since :meth:`reset`."""
        return self._process.read(self._from)

    def accepted(self, client_id: str) -> int:
        """The number of connections of a client it accepted."""
        return len(re.findall(rf"accepting MQTT connection .*client id: {re.escape(client_id)}\)", self.log()))
