"""Mosquitto with a plugin that accepts JWTs: MQTT 3.1.1 and 5, plain and TLS, and both over WebSockets."""

from __future__ import annotations

import fcntl
import re
import signal
import subprocess
from pathlib import Path

from .keys import Keys
from .pki import Pki
from .processes import BUILD, INSTALL, Process, accepts, free_port, need, unavailable

_SOURCE = Path(__file__).parent / "jwt_auth.c"
_PACKAGES = "mosquitto mosquitto-dev libmosquitto-dev libcjson-dev libssl-dev gcc libc6-dev"


def _plugin() -> Path:
    """The compiled plugin, built if its source is newer."""
    plugin = BUILD / "jwt_auth.so"
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "plugin.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not plugin.exists() or plugin.stat().st_mtime < _SOURCE.stat().st_mtime:
            flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Werror", "-fPIC", "-shared"]
            command = ["gcc", *flags, str(_SOURCE), "-o", str(plugin), "-lcjson", "-lcrypto"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                unavailable(f"jwt_auth.c: {done.stderr}\na header missing? {INSTALL} {_PACKAGES}")
    return plugin


class Mosquitto:
    """A broker that accepts tokens for the audience ``rabbitmq`` signed with any of the keys, as password or by the
    authentication method OAUTH2-JWT, and ends a connection when its token expires.

    Attributes:
        host: 127.0.0.1.
        port: plain.
        tls_port: TLS with a certificate for localhost and 127.0.0.1.
        other_host_tls_port: TLS with a certificate for another host.
        client_tls_port: TLS for clients with a certificate of the test authority.
        ws_port: WebSocket, plain.
        wss_port: WebSocket, TLS.
    """

    host = "127.0.0.1"

    def __init__(self, keys: Keys, pki: Pki, folder: Path) -> None:
        need("mosquitto", "gcc", packages=_PACKAGES)
        self.port, self.tls_port, self.other_host_tls_port = free_port(), free_port(), free_port()
        self.client_tls_port, self.ws_port, self.wss_port = free_port(), free_port(), free_port()
        self._database, self._die = folder / "mosquitto.db", folder / "die"
        lines = f"""\
per_listener_settings false
allow_anonymous false
user root
log_dest stderr
log_type all
connection_messages true
persistence true
persistence_location {folder}/
autosave_interval 0
max_queued_messages 100000
max_inflight_messages 1000
plugin {_plugin()}
plugin_opt_aud rabbitmq
plugin_opt_on_expiry kick
plugin_opt_database {self._database}
plugin_opt_die {self._die}
"""
        lines += "".join(f"plugin_opt_key {path}\n" for path in keys.public)
        ours, others = (f"certfile {one.certificate}\nkeyfile {one.key}\n" for one in (pki.server, pki.other_host))
        for port, options in {
            self.port: "",
            self.tls_port: ours,
            self.client_tls_port: f"{ours}cafile {pki.ca}\nrequire_certificate true\n",
            self.ws_port: "protocol websockets\n",
            self.wss_port: f"protocol websockets\n{ours}",
            self.other_host_tls_port: others,  # the last one: start() waits for it
        }.items():
            lines += f"listener {port} {self.host}\n{options}"
        config = folder / "mosquitto.conf"
        config.write_text(lines)
        self._process = Process("mosquitto", ["mosquitto", "-c", str(config)], folder / "mosquitto.log")
        self._from = 0

    def start(self) -> None:
        """Start it, on the same ports each time; with all sessions if it was stopped or saved, otherwise with none."""
        self._die.unlink(missing_ok=True)
        self._process.start(lambda: accepts(self.other_host_tls_port))

    def stop(self) -> None:
        """Stop it with SIGTERM: it sends no DISCONNECT and no wills, and saves its sessions."""
        self._process.stop()

    def kill(self, *, save: bool = False) -> None:
        """Kill it with SIGKILL, in the middle of whatever it does.

        With ``save``, this happens right after a save: it starts again with its sessions, subscriptions and queued
        messages, and has acknowledged nothing that was not saved. Otherwise it starts again empty.
        """
        if save:
            self._die.touch()
            self._process.signal(signal.SIGUSR1)
            self._process.wait()
        else:
            self._process.kill()
            self._database.unlink(missing_ok=True)

    def reset(self) -> None:
        """Start it unless it runs, and let :meth:`log` begin here."""
        if not self._process.alive:
            self.start()
        self._from = self._process.logged()

    def log(self) -> str:
        """Its log since :meth:`reset`."""
        return self._process.read(self._from)

    def count(self, pattern: str) -> int:
        """The number of lines of its log since :meth:`reset` that match a regular expression."""
        return len(re.findall(pattern, self.log()))

    def accepted(self, client_id: str) -> int:
        """The number of connections of a client it accepted."""
        return self.count(rf"New client connected from \S+ as {re.escape(client_id)} ")

    def refused(self, client_id: str) -> int:
        """The number of tokens of a client it rejected."""
        return self.count(rf"jwt_auth: \S+ refused for {re.escape(client_id)}: ")

    def sent(self, topic: str) -> int:
        """How often it sent a message on a topic to any client; for a will that somebody subscribed to."""
        return self.count(rf"Sending PUBLISH to .*'{re.escape(topic)}'")
