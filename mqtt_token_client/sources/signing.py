"""Signer: signs JWTs with a device's private key (RFC 7515, RFC 7519)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..errors import ConfigurationError, TokenError
from ..private_files import check_private, read_small
from ..value import hidden
from .oauth.grant import is_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey

_REQUIRED_KEYS = {  # RFC 7518 sections 3.3 and 3.4, RFC 8037 section 3.1
    "ES256": "an EC key on P-256",
    "RS256": "an RSA key of 2048 bits or more",
    "EdDSA": "an Ed25519 key",
}


class Signer:
    """Signs JWTs. Safe to use from several threads.

    Args:
        private_key: path of a PEM file, or PEM text as str or bytes, without a passphrase. A file is read for each
            signature, so a key that is replaced while the device runs is used from then on.
        algorithm: ES256, RS256 or EdDSA.
        key_id: the ``kid`` in the JWT's header; None leaves it out.

    Raises:
        ConfigurationError: there is no such key, it is not for the algorithm, or every user can read its file. It is
            checked here so that a mistake shows when a device is installed, not at its first request for a token.
    """

    def __init__(self, private_key: object, algorithm: object, key_id: object) -> None:
        if not isinstance(algorithm, str) or algorithm not in _REQUIRED_KEYS:
            raise ConfigurationError(f"algorithm must be one of {', '.join(_REQUIRED_KEYS)}, got {algorithm!r}")
        if key_id is not None and not is_text(key_id):
            raise ConfigurationError("key_id must be a string of printable characters, or None")
        private_key = hidden(private_key)
        self._key: bytes | Path
        if isinstance(private_key, bytes):
            self._key = private_key
        elif isinstance(private_key, str) and "-----BEGIN" in private_key:
            self._key = hidden(private_key.encode(errors="replace"))
        elif isinstance(private_key, str | Path):
            self._key = Path(private_key)
            # Not Path.is_file(), which raises for some names. The path is not shown: it may be a key that is not PEM.
            if not os.path.isfile(self._key):  # noqa: PTH113
                raise ConfigurationError("private_key must be PEM text, or the path of a file that exists")
            check_private("private_key", self._key)
        else:
            raise ConfigurationError(
                f"private_key must be PEM text or the path of a PEM file, got {type(private_key).__name__}"
            )
        self.algorithm = algorithm
        self._headers = None if key_id is None else {"kid": key_id}
        key = _read(self._key, algorithm)
        if isinstance(key, str):
            raise ConfigurationError(f"private_key: {key}")

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed JWT with these claims.

        Raises:
            TokenError: the key's file cannot be read now, or contains another kind of key now.
        """
        import jwt

        key = _read(self._key, self.algorithm)
        if isinstance(key, str):
            raise TokenError(f"private_key: {key}")
        return jwt.encode(dict(claims), key, self.algorithm, self._headers)


def _read(source: bytes | Path, algorithm: str) -> PrivateKey | str:
    """Return the key, or a text that says what is wrong with it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where, pem = "this is", source
    if isinstance(pem, Path):
        where = f"{source!s} contains"
        try:
            pem = read_small(pem)
        except OSError as error:
            return f"{source!s}: {error.strerror}"
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        return f"{where} a key with a passphrase, which a device cannot enter"
    except (ValueError, UnsupportedAlgorithm):
        return f"{where} something else than a private key in PEM"
    return (
        key if _fits(key, algorithm) else f"{algorithm} needs {_REQUIRED_KEYS[algorithm]}; {where} another kind of key"
    )


def _fits(key: object, algorithm: str) -> TypeGuard[PrivateKey]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if algorithm == "RS256":
        return isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048
    if algorithm == "ES256":
        return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    return isinstance(key, ed25519.Ed25519PrivateKey)
