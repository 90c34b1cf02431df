"""The signing keys of the authorization server, and tokens that tests sign with them."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .secret_check import remember_secret

RIGHTS = "rabbitmq.read:*/* rabbitmq.write:*/* rabbitmq.configure:*/* rabbitmq.read:*/*/* rabbitmq.write:*/*/*"


class Keys:
    """An RSA and an EC key that both brokers trust, and the keys of clients: EC of ``service-key-jwt``, RSA of
    ``service-key-jwt-rs``, Ed25519 of ``service-key-jwt-ed``.

    Attributes:
        folder: holds rs.pem, es.pem, client.pem, client-rs.pem, client-ed.pem, and rs.pub.pem, es.pub.pem.
        public: paths of the public keys that brokers trust.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public: list[Path] = []
        for name in ("rs", "es", "client", "client-rs", "client-ed"):
            key = _private_key(name)
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (folder / f"{name}.pem").write_bytes(pem)
            if not name.startswith("client"):
                public = folder / f"{name}.pub.pem"
                public.write_bytes(
                    key.public_key().public_bytes(
                        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                    )
                )
                self.public.append(public)

    def token(self, lifetime: float = 60, key: str = "es", **claims: object) -> str:
        """A JWT like those of the authorization server, signed here, for tokens that it would not issue.

        Args:
            lifetime: seconds until it expires; negative for a token that has expired.
            key: "rs" or "es"; "client" is a key that no broker trusts.
            claims: additional claims, or replacements; None removes one.
        """
        now = time.time()
        whole: dict[str, object] = {
            "sub": "test",
            "aud": "rabbitmq",
            "scope": RIGHTS,
            "iat": int(now),
            "exp": int(now + lifetime),
            "jti": uuid.uuid4().hex,
        }
        whole = {name: value for name, value in (whole | claims).items() if value is not None}
        algorithm = "RS256" if key == "rs" else "ES256"
        signed = jwt.encode(whole, (self.folder / f"{key}.pem").read_text(), algorithm, headers={"kid": key})
        remember_secret(signed)
        return signed


def _private_key(name: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    if name.endswith("rs"):
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate() if name.endswith("ed") else ec.generate_private_key(ec.SECP256R1())
