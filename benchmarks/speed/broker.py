"""Mosquitto without limits."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed.proc import processor_time
from devtools.servers.pki import Pki
from devtools.servers.processes import Process, accepts, free_port, need


class Broker:
    """Mosquitto without authentication, so that no check of tokens is measured, and without limits on its queues.

    Attributes:
        port: plain.
        tls_port: TLS.
        ca: the file with the authority that signed its certificate.
    """

    def __init__(self, folder: Path) -> None:
        need("mosquitto", packages="mosquitto")
        pki = Pki(folder)
        self.port, self.tls_port, self.ca = free_port(), free_port(), str(pki.ca)
        config = folder / "broker.conf"
        config.write_text(f"""\
user root
allow_anonymous true
log_dest stderr
log_type error
sys_interval 0
max_inflight_messages 0
max_queued_messages 0
listener {self.port} 127.0.0.1
listener {self.tls_port} 127.0.0.1
certfile {pki.server.certificate}
keyfile {pki.server.key}
""")
        self._process = Process("broker", ["mosquitto", "-c", str(config)], folder / "broker.log")
        self._start()

    def _start(self) -> None:
        self._process.start(lambda: accepts(self.tls_port))

    def restart(self) -> None:
        """As after a power cut: all sessions are lost."""
        self._process.kill()
        self._start()

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return processor_time(self._process.pid)

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        self._process.signal(number)

    def close(self) -> None:
        self._process.stop()
