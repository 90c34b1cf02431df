"""Signing JWTs with a device's private key (RFC 7515, RFC 7519)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..errors import ConfigurationError, TokenError
from .oauth.grant import is_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey

_NEEDED = {  # RFC 7518 sections 3.3 and 3.4, RFC 8037 section 3.1
    "ES256": "an EC key on P-256",
    "RS256": "an RSA key of 2048 bits or more",
    "EdDSA": "an Ed25519 key",
}


class Signer:
    """Signs JWTs. Safe to use from several threads.

    Args:
        private_key: path of a PEM file, or PEM itself as str or bytes, without a passphrase. A file is read for each
            signature: a key that is exchanged while the device runs is used from then on.
        algorithm: ES256, RS256 or EdDSA.
        key_id: the ``kid`` in the JWT's header; None leaves it out.

    Raises:
        ConfigurationError: there is no such key now, or it does not fit the algorithm. Whoever installs a device
            learns it there, and not from its first request for a token.
    """

    def __init__(self, private_key: object, algorithm: object, key_id: object) -> None:
        if not isinstance(algorithm, str) or algorithm not in _NEEDED:
            raise ConfigurationError(f"algorithm: one of {', '.join(_NEEDED)} is needed, not {algorithm!r}")
        if key_id is not None and not is_text(key_id):
            raise ConfigurationError("key_id: a string of printable characters is needed, or None")
        self._key: bytes | Path
        if isinstance(private_key, bytes):
            self._key = private_key
        elif isinstance(private_key, str) and "-----BEGIN" in private_key:
            self._key = private_key.encode(errors="replace")
        elif isinstance(private_key, str | Path):
            self._key = Path(private_key)
            # Not Path.is_file(), which raises for some names; and not named: it may be a key that is not in PEM.
            if not os.path.isfile(self._key):  # noqa: PTH113
                raise ConfigurationError("private_key: it is neither PEM, nor the path of a file that exists")
        else:
            raise ConfigurationError(
                f"private_key: the path of a PEM file is needed, or PEM, not {type(private_key).__name__}"
            )
        self.algorithm = algorithm
        self._headers = None if key_id is None else {"kid": key_id}
        key = _read(self._key, algorithm)
        if isinstance(key, str):
            raise ConfigurationError(f"private_key: {key}")

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT with these claims.

        Raises:
            TokenError: the key's file cannot be read now, or holds another kind of key now.
        """
        import jwt

        key = _read(self._key, self.algorithm)
        if isinstance(key, str):
            raise TokenError(f"private_key: {key}")
        return jwt.encode(dict(claims), key, self.algorithm, self._headers)


def _read(source: bytes | Path, algorithm: str) -> PrivateKey | str:
    """The key, or what is wrong with it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where, pem = "this is", source
    if isinstance(pem, Path):
        where = f"{source!s} holds"
        try:
            pem = pem.read_bytes()
        except OSError as error:
            return f"{source!s}: {error.strerror}"
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        return f"{where} a key with a passphrase, which nobody is there to type"
    except (ValueError, UnsupportedAlgorithm):
        return f"{where} no private key in PEM"
    return key if _fits(key, algorithm) else f"{algorithm} needs {_NEEDED[algorithm]}; {where} another"


def _fits(key: object, algorithm: str) -> TypeGuard[PrivateKey]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if algorithm == "RS256":
        return isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048
    if algorithm == "ES256":
        return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, ed25519.Ed25519PrivateKey)
