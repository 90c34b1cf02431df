"""SignedJWT: the device signs its own tokens, as ClearBlade IoT Core requires and Google Cloud IoT Core did."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..clock import CLOCK_IS_SET, monotonic
from ..errors import ConfigurationError, TokenError
from ..token import Token
from ..value import hidden
from .signing import Signer
from .web_clock import WebClock

_TIME_CLAIMS = ("iat", "exp", "nbf")
_MIN_LIFETIME = 5.0  # seconds
_MAX_BACKDATING = 5.0  # seconds: brokers reject a token that was issued in the future, even by less than a second


class SignedJWT:
    """A token source: JWTs signed with the device's private key, which no server issues.

    ``iat`` is some seconds in the past and ``exp`` is ``lifetime`` later; there is no ``nbf``, which brokers check to
    the second.

    Args:
        private_key: path of a PEM file, or PEM text as str or bytes, without a passphrase. A file is read again for
            each token, so a key that is replaced while the device runs is used from then on.
        algorithm: RS256 or ES256, which ClearBlade accepts, or EdDSA.
        claims: the other claims, such as ``{"aud": "project"}``.
        lifetime: seconds from ``iat`` to ``exp``.
        key_id: the ``kid`` in the header; None leaves it out.
        max_lifetime: the longest ``lifetime`` that the broker accepts; 24 hours at ClearBlade.
        time_from: the URL of a web server whose answers contain the time of day (``Date``, RFC 9110 section 6.6.1),
            for a device whose clock may be wrong. It is requested before each signature. A device without a clock chip
            needs a plain http URL, as no certificate is valid until its clock is right; so plain http is allowed here
            to any machine. Nothing secret is sent there; a forged answer can at most make the broker reject the token.

    Raises:
        ConfigurationError: an argument is wrong, or the key is not for the algorithm.
    """

    def __init__(
        self,
        private_key: str | bytes | Path,
        algorithm: str,
        claims: Mapping[str, Any],
        lifetime: float,
        *,
        key_id: str | None = None,
        max_lifetime: float = 86_400,
        time_from: str | None = None,
    ) -> None:
        private_key = hidden(private_key)
        if not _is_number(max_lifetime) or not max_lifetime >= _MIN_LIFETIME:
            raise ConfigurationError(f"max_lifetime must be at least {_MIN_LIFETIME:g} seconds, got {max_lifetime!r}")
        if not _is_number(lifetime) or not _MIN_LIFETIME <= lifetime <= max_lifetime:
            raise ConfigurationError(
                f"lifetime must be {_MIN_LIFETIME:g} to {max_lifetime:g} seconds (max_lifetime), got {lifetime!r}"
            )
        self._claims = _checked(claims)
        self._lifetime = int(lifetime)
        self._signer = Signer(private_key, algorithm, key_id)
        self._web_clock = None if time_from is None else WebClock(time_from)
        self._key = json.dumps([algorithm, key_id, self._lifetime, self._claims], sort_keys=True)

    def fetch(self, previous: Token | None) -> Token:  # noqa: ARG002 - this source has no use for it
        """Sign a new token.

        Raises:
            TokenError: the key's file cannot be read now, or the time of day is unknown.
        """
        unknown = None if self._web_clock is None else self._web_clock.ask()
        now, clock = time.time() if self._web_clock is None else self._web_clock.clock.now(), monotonic()
        if now < CLOCK_IS_SET:
            why = "set it, or give time_from" if unknown is None else f"time_from: {unknown}"
            raise TokenError(f"the clock of this device is not set, so no broker would accept its token; {why}")
        issued = int(now - min(_MAX_BACKDATING, self._lifetime / 10))
        value = self._signer.sign({**self._claims, "iat": issued, "exp": issued + self._lifetime})
        return Token(value, since=clock - (now - issued))

    @property
    def key(self) -> str:
        """A name for the tokens of this source, the same in every process; it does not depend on the key."""
        return f"signed_jwt-{sha256(self._key.encode()).hexdigest()[:32]}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(claims: object) -> dict[str, Any]:
    """Return a checked copy of a user's claims."""
    if not isinstance(claims, Mapping) or not all(isinstance(name, str) for name in claims):
        raise ConfigurationError('claims must be a mapping of claims by name, such as {"aud": "project"}')
    for name in _TIME_CLAIMS:
        if name in claims:
            raise ConfigurationError(f"claims must not contain {name!r}: each token gets its own times")
    if not isinstance(claims.get("iss", ""), str):
        raise ConfigurationError("claims['iss'] must be a string (RFC 7519 section 4.1.1)")
    copy: dict[str, Any] | None = None
    with suppress(TypeError, ValueError, RecursionError):
        copy = json.loads(json.dumps(dict(claims), allow_nan=False))
    if copy is None:
        raise ConfigurationError("claims must contain only values that JSON can represent (RFC 7519 section 4)")
    return copy
