"""A device that signs its own token, as ClearBlade IoT Core asks for and Google Cloud IoT Core did."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..clock import monotonic
from ..errors import ConfigurationError, MqttTokenError, TokenError
from ..token import Token
from .oauth.http import HttpClient, url_problem
from .signing import Signer

_log = logging.getLogger(__name__)

_OURS = ("iat", "exp", "nbf")
_SHORTEST_LIFE = 5.0  # seconds
_BACKDATED = 5.0  # seconds, at most: brokers refuse what was issued in the future, if only by the width of a second
_CLOCK_IS_SET = 1_704_067_200  # 2024-01-01: a clock that says less has never been set


class SignedJWT:
    """A token source: JWTs signed with the device's private key, which no server issues.

    ``iat`` is some seconds ago and ``exp`` is ``lifetime`` later; there is no ``nbf``, which brokers check to the
    second.

    Args:
        private_key: path of a PEM file, or PEM itself as str or bytes, without a passphrase. A file is read again for
            each token, so that a key that is exchanged while the device runs is used from then on.
        algorithm: RS256 or ES256, which ClearBlade takes, or EdDSA.
        claims: the other claims, such as ``{"aud": "project"}``.
        lifetime: seconds from ``iat`` to ``exp``.
        key_id: the ``kid`` in the header; None leaves it out.
        max_lifetime: the longest ``lifetime`` that the broker takes; 24 hours at ClearBlade.
        time_from: the URL of a web server that tells the time of day in its answers (``Date``, RFC 9110 section
            6.6.1), for a device whose clock may be wrong. It is asked before each signature. A device without a clock
            chip needs one with plain http: until its clock is right, no certificate is valid. That is why plain http
            is allowed here to any machine. Nothing secret is sent there; who forges the answer can make the broker
            refuse the token, and no more than that.

    Raises:
        ConfigurationError: an argument is wrong, or the key does not fit the algorithm.
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
        if not _is_number(max_lifetime) or not max_lifetime >= _SHORTEST_LIFE:
            raise ConfigurationError(f"max_lifetime: {_SHORTEST_LIFE:g} seconds or more are needed")
        if not _is_number(lifetime) or not _SHORTEST_LIFE <= lifetime <= max_lifetime:
            raise ConfigurationError(
                f"lifetime: {_SHORTEST_LIFE:g} to {max_lifetime:g} s (max_lifetime) are possible, not {lifetime!r}"
            )
        problem = None if time_from is None else url_problem(time_from, allow_insecure=True)
        if problem:
            raise ConfigurationError(f"time_from: {problem}")
        self._claims = _checked(claims)
        self._lifetime = int(lifetime)
        self._signer = Signer(private_key, algorithm, key_id)
        self._time_from = time_from
        self._transport = HttpClient(timeout=(5.0, 5.0))
        self._key = json.dumps([algorithm, key_id, self._lifetime, self._claims], sort_keys=True)

    def fetch(self, previous: Token | None) -> Token:  # noqa: ARG002 - a signature needs no predecessor
        """A new token.

        Raises:
            TokenError: the key's file cannot be read now, or nobody has told the time of day yet.
        """
        unknown = self._ask_time()
        now, clock = self._transport.clock.now(), monotonic()
        if now < _CLOCK_IS_SET:
            raise TokenError(f"the clock of this device is not set, so no broker would take its token{unknown}")
        issued = int(now - min(_BACKDATED, self._lifetime / 10))
        value = self._signer.sign({**self._claims, "iat": issued, "exp": issued + self._lifetime})
        return Token(value, since=clock - (now - issued))

    @property
    def key(self) -> str:
        """A name for the tokens of this source, the same in every process: of what they say, not of the key."""
        return f"signed_jwt-{sha256(self._key.encode()).hexdigest()[:32]}"

    def _ask_time(self) -> str:
        """Learn the time of day, if somebody tells it; returns why nobody did, to go on from a message."""
        if self._time_from is None:
            return "; set it, or give time_from"
        try:
            # HEAD, and no answer from a cache, whose Date would be of when it was filled
            self._transport.send("HEAD", self._time_from, headers={"Cache-Control": "no-cache"})
        except MqttTokenError as error:  # a server that says so has told the time as well
            _log.info("time_from: %s", error)
            return f"; time_from: {error}"
        return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(claims: object) -> dict[str, Any]:
    """A copy of a user's claims."""
    if not isinstance(claims, Mapping) or not all(isinstance(name, str) for name in claims):
        raise ConfigurationError('claims: a mapping of claims by name is needed, such as {"aud": "project"}')
    for name in _OURS:
        if name in claims:
            raise ConfigurationError(f"claims: {name!r} is not for you to set; each token gets its own times")
    if not isinstance(claims.get("iss", ""), str):
        raise ConfigurationError("claims: 'iss' is a string (RFC 7519 section 4.1.1)")
    copy: dict[str, Any] | None = None
    with suppress(TypeError, ValueError, RecursionError):
        copy = json.loads(json.dumps(dict(claims), allow_nan=False))
    if copy is None:
        raise ConfigurationError("claims: JSON has no such value (RFC 7519 section 4)")
    return copy
