"""NATS in operator mode, whose user JWTs are passwords of MQTT 3.1.1."""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from paho.mqtt import publish
from paho.mqtt.enums import MQTTProtocolVersion

from .documented import documented
from .processes import Process, accepts, free_port, need
from .secret_check import remember_secret

_KINDS = {
    "operator": 14 << 3,
    "account": 0,
    "user": 20 << 3,
}  # the first byte of a key: its text begins with O, A or U
_UNLIMITED = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1)
_JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


class NatsKey:
    """An nkey: an Ed25519 key whose public half is written in base32, with its kind before it and a checksum behind.

    Args:
        kind: ``operator``, ``account`` or ``user``.

    Attributes:
        public: the public half.
    """

    def __init__(self, kind: str) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = bytes([_KINDS[kind]]) + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = base64.b32encode(raw + _checksum(raw).to_bytes(2, "little")).decode().rstrip("=")

    def sign(self, subject: NatsKey, nats: dict[str, object], expires: int = 0, age: int = 0) -> str:
        """Return a JWT of NATS about a subject, issued ``age`` seconds ago. ``expires`` is in seconds since 1970; 0 for
        one that does not expire.
        """
        claims: dict[str, object] = {
            "iss": self.public,
            "sub": subject.public,
            "iat": int(time.time()) - age,
            "jti": uuid.uuid4().hex,
            "name": "test",
            "nats": {"version": 2, **nats},
        }
        if expires:
            claims["exp"] = expires
        signed = ".".join(
            _encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)
        )
        return f"{signed}.{_encoded(self._key.sign(signed.encode()))}"


class Nats:
    """A broker with the settings of docs/brokers.md, and an account in memory. It accepts JWTs of the account's users,
    as password, with any user name; it closes the connection of one that expires.

    Version 2.9 is the one of Debian 12. Sessions are kept while the folder is.

    Attributes:
        host: 127.0.0.1.
        port: plain.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        need("nats-server", packages="nats-server")
        self.port = free_port()
        operator, system = NatsKey("operator"), NatsKey("account")
        self._account, self._user = NatsKey("account"), NatsKey("user")
        accounts = {
            system.public: operator.sign(system, {"type": "account", "limits": _UNLIMITED}),
            self._account.public: operator.sign(self._account, {"type": "account", "limits": _UNLIMITED | _JETSTREAM}),
        }
        replaced = {
            "jetstream: enabled": f'jetstream {{ store_dir: "{folder / "jetstream"}" }}',
            "port: 8883": f"listen: {self.host}:{self.port}",
            '  tls { cert_file: "/etc/nats/server.crt", key_file: "/etc/nats/server.key" }\n': "",
        }
        settings = [
            documented("NATS", "conf", replaced),
            f"listen: {self.host}:{free_port()}",
            f"operator: {operator.sign(operator, {'type': 'operator', 'system_account': system.public})}",
            f"system_account: {system.public}",
            "resolver: MEMORY",
            f"resolver_preload: {{ {', '.join(f'{key}: {jwt}' for key, jwt in accounts.items())} }}",
        ]
        (folder / "nats.conf").write_text("\n".join(settings))
        self._process = Process("nats", ["nats-server", "-c", str(folder / "nats.conf")], folder / "nats.log")

    def token(self, lifetime: float, age: int = 0) -> str:
        """A JWT of a user that was issued ``age`` seconds ago and expires in so many seconds; negative if it has."""
        nats = {"type": "user", "bearer_token": True, "subs": -1, "data": -1, "payload": -1}
        signed = self._account.sign(self._user, nats, int(time.time() + lifetime), age)
        remember_secret(signed)
        return signed

    def start(self) -> None:
        """Start it; this takes some tenths of a second.

        An account's first client makes its streams. Two at once make them twice: 2.9 then accepts no session any more
        (3 of 60 starts; 0 of 100 after one client alone).
        """
        self._process.start(lambda: accepts(self.port), timeout=20)
        publish.single(
            "first",
            hostname=self.host,
            port=self.port,
            auth={"username": "first", "password": self.token(60)},
            protocol=MQTTProtocolVersion.MQTTv311,
        )

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self._process.stop(timeout=20)

    def reset(self) -> None:
        """Start it unless it runs."""
        if not self._process.alive:
            self.start()


def _checksum(data: bytes) -> int:
    """CRC-16/XMODEM."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
