"""HiveMQ Community Edition with an extension that accepts JWTs: MQTT 3.1.1 and 5, plain, TLS and WebSocket."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from .keys import Keys
from .pki import Pki
from .processes import BUILD, Process, free_port, need, unavailable

_HERE = Path(__file__).parent
_PACKAGES = "default-jdk-headless maven"
_STORE_PASSWORD = "store"  # of a file in a temporary folder: Java requires one


def _jars() -> Path:
    """The folder with the libraries of HiveMQ.java, filled by Maven if pom.xml is newer."""
    jars, pom = BUILD / "hivemq", _HERE / "pom.xml"
    filled = jars / "filled"
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "hivemq.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not filled.exists() or filled.stat().st_mtime < pom.stat().st_mtime:
            shutil.rmtree(jars, ignore_errors=True)  # other versions
            done = subprocess.run(
                ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                unavailable(f"mvn dependency:copy-dependencies in devtools/servers failed: {done.stdout[-500:]}")
            filled.touch()
    return jars


class HiveMQ:
    """A broker that accepts tokens for the audience ``rabbitmq`` signed with any of the keys, and ends a connection
    when its token expires. It accepts them as password, or by the authentication method OAUTH2-JWT. It keeps its
    sessions in memory.

    Attributes:
        host: 127.0.0.1.
        port: plain.
        tls_port: TLS with a certificate for localhost and 127.0.0.1.
        ws_port: WebSocket, plain; its path is /mqtt.
        username_port: plain; the token is the user name.
        behind_gateway_port: WebSocket, plain; accepts any client, as a broker does behind a gateway that checks the
            token.
    """

    host = "127.0.0.1"

    def __init__(self, keys: Keys, pki: Pki, folder: Path) -> None:
        need("java", "javac", "mvn", packages=_PACKAGES)
        self.port, self.tls_port, self.ws_port = free_port(), free_port(), free_port()
        self.username_port, self.behind_gateway_port = free_port(), free_port()
        store = folder / "store.p12"
        _write_store(pki, store)
        password = f"<password>{_STORE_PASSWORD}</password>"
        password += f"<private-key-password>{_STORE_PASSWORD}</private-key-password>"
        tls = f"<tls><keystore><path>{store}</path>{password}</keystore></tls>"
        websocket = "<path>/mqtt</path><subprotocols><subprotocol>mqtt</subprotocol></subprotocols>"
        listeners = [
            self._listener("tcp-listener", self.port, "plain"),
            self._listener("tls-tcp-listener", self.tls_port, "tls", tls),
            self._listener("websocket-listener", self.ws_port, "websocket", websocket),
            self._listener("tcp-listener", self.username_port, "username"),
            self._listener("websocket-listener", self.behind_gateway_port, "behind a gateway", websocket),
        ]
        (folder / "config.xml").write_text(f"""\
<hivemq>
  <listeners>{"".join(listeners)}</listeners>
  <persistence><mode>in-memory</mode></persistence>
  <mqtt><queued-messages><max-queue-size>100000</max-queue-size></queued-messages></mqtt>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
""")
        java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{_jars()}/*"]
        command = [*java, str(_HERE / "HiveMQ.java"), str(folder), *map(str, keys.public)]
        self._process = Process("hivemq", command, folder / "hivemq.log")
        self._from = 0

    def _listener(self, kind: str, port: int, name: str, options: str = "") -> str:
        where = f"<port>{port}</port><bind-address>{self.host}</bind-address><name>{name}</name>"
        return f"<{kind}>{where}{options}</{kind}>"

    def start(self) -> None:
        """Start it, on the same ports and without sessions; this takes some 4 seconds."""
        begin = self._process.logged()
        self._process.start(lambda: "\nready\n" in self._process.read(begin), timeout=60)

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self._process.stop()

    def reset(self) -> None:
        """Start it unless it runs, and let :meth:`log` begin here."""
        if not self._process.alive:
            self.start()
        self._from = self._process.logged()

    def log(self) -> str:
        """Its log since :meth:`reset`."""
        return self._process.read(self._from)

    def accepted(self, client_id: str) -> int:
        """The number of tokens of a client it accepted, or of connections behind a gateway."""
        return len(re.findall(rf"^accepted {re.escape(client_id)}$", self.log(), re.MULTILINE))

    def refused(self, client_id: str) -> int:
        """The number of tokens of a client it rejected."""
        return len(re.findall(rf"^refused {re.escape(client_id)}: ", self.log(), re.MULTILINE))


def _write_store(pki: Pki, path: Path) -> None:
    """Write the server's certificate and key in the format that Java requires."""
    key = serialization.load_pem_private_key(pki.server.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(pki.server.certificate.read_bytes())
    sealed = serialization.BestAvailableEncryption(_STORE_PASSWORD.encode())
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"server", key, certificate, None, sealed))
