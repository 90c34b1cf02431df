"""Client authentication by a JWT that the client signs (RFC 7523 sections 2.2 and 3, OpenID Connect Core section 9)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ...clock import monotonic
from ...errors import ConfigurationError, TokenError
from ...value import hidden
from ..signing import Signer
from .client_auth import TokenRequest, check_secret, read_secret
from .grant import is_text

if TYPE_CHECKING:
    from ..web_clock import WebClock

_MAX_LIFETIME = 3600.0  # seconds; an assertion is for one request, and servers reject those that are valid for long
_MAX_BACKDATING = 5.0  # seconds
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # at least (RFC 7518 section 3.2)


class PrivateKeyJWT:
    """A client assertion signed with a private key that never leaves the device (``private_key_jwt``).

    Each attempt gets an assertion of its own, with times of the server's clock, as far as its answers have shown that:
    Keycloak's have no ``Date`` header, so before the first token the time is that of ``time_from``, or else of this
    device's clock.

    Args:
        private_key: path of a PEM file, or PEM text as str or bytes, without a passphrase. A file is read again for
            each assertion, so a key that is replaced while the device runs is used from then on.
        algorithm: ES256 (EC, P-256), RS256 (RSA) or EdDSA (Ed25519).
        key_id: the ``kid`` that identifies the key among the client's keys at the server. Leave it out if the file is
            going to be replaced: without it, a server tries all of them.
        audience: the ``aud`` that the server expects; by default its issuer identifier, or its token endpoint if there
            is no discovery.
        lifetime: seconds until the assertion expires.
        time_from: the URL of a web server that knows the time of day, if this device's clock may be wrong and the
            authorization server does not send the time; as for :class:`SignedJWT`. It is asked before each request
            until the authorization server has shown the time by a ``Date`` header or a token.

    Raises:
        ConfigurationError: an argument is wrong, or the key is not for the algorithm.
    """

    def __init__(
        self,
        private_key: str | bytes | Path,
        *,
        algorithm: str = "ES256",
        key_id: str | None = None,
        audience: str | None = None,
        lifetime: float = 60,
        time_from: str | None = None,
    ) -> None:
        private_key = hidden(private_key)
        _check_audience(audience)
        if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 1 <= lifetime <= _MAX_LIFETIME:
            raise ConfigurationError(f"lifetime must be 1 to {_MAX_LIFETIME:g} seconds, got {lifetime!r}")
        self._signer = Signer(private_key, algorithm, key_id)
        self._audience = audience
        self._lifetime = lifetime
        self._web_clock = _web_clock(time_from)

    def authenticate(self, request: TokenRequest) -> None:
        """Add the assertion to the form.

        Raises:
            TokenError: the key's file cannot be read now, or contains another kind of key now.
        """
        _assert(request, self._signer.sign, self._audience, self._lifetime, self._web_clock)


class ClientSecretJWT:
    """A client assertion authenticated with the client secret, which is not sent (``client_secret_jwt``).

    Args:
        client_secret: the secret that the server shares with the client, of at least 32 bytes (48 for HS384, 64 for
            HS512); or the path of its file, as a ``pathlib.Path``, which is read for each assertion.
        algorithm: HS256, HS384 or HS512.
        audience: as in :class:`PrivateKeyJWT`.
        time_from: as in :class:`PrivateKeyJWT`.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        client_secret: str | Path,
        *,
        algorithm: str = "HS256",
        audience: str | None = None,
        time_from: str | None = None,
    ) -> None:
        client_secret = hidden(client_secret)
        if not isinstance(algorithm, str) or algorithm not in _SECRET_BYTES:
            raise ConfigurationError(f"algorithm must be one of {', '.join(_SECRET_BYTES)}, got {algorithm!r}")
        problem = _secret_problem(check_secret(client_secret), algorithm)
        if problem:
            raise ConfigurationError(problem)
        _check_audience(audience)
        self._client_secret = client_secret
        self._algorithm = algorithm
        self._audience = audience
        self._web_clock = _web_clock(time_from)

    def authenticate(self, request: TokenRequest) -> None:
        """Add the assertion to the form.

        Raises:
            TokenError: the file of the secret cannot be read now, or contains no secret.
        """
        import jwt

        secret = read_secret(self._client_secret)
        problem = _secret_problem(secret, self._algorithm)
        if problem:
            raise TokenError(problem)
        request.secrets.append(secret)

        def sign(claims: dict[str, Any]) -> str:
            return jwt.encode(claims, secret, self._algorithm)

        _assert(request, sign, self._audience, 60, self._web_clock)


def _secret_problem(secret: str, algorithm: str) -> str | None:
    least = _SECRET_BYTES[algorithm]
    return None if len(secret.encode()) >= least else f"client_secret must have at least {least} bytes for {algorithm}"


def _web_clock(time_from: str | None) -> WebClock | None:
    if time_from is None:
        return None
    from ..web_clock import WebClock  # few devices need one

    return WebClock(time_from)


def _assert(
    request: TokenRequest,
    sign: Callable[[dict[str, Any]], str],
    audience: str | None,
    lifetime: float,
    web_clock: WebClock | None,
) -> None:
    """Add an assertion to the form of a request."""
    if web_clock is not None and not request.clock.from_server:  # again each time: a router may have answered
        web_clock.ask()  # an error is logged, and may have shown the time all the same
        if web_clock.clock.known:
            request.clock.learn_from(web_clock.clock.now(), monotonic(), from_server=False)
    # Somewhat in the past: servers reject an assertion that was issued in the future, even by less than a second.
    issued = int(request.clock.now() - min(_MAX_BACKDATING, lifetime / 10))
    metadata = request.metadata
    claims = {
        "iss": request.client_id,
        "sub": request.client_id,
        "aud": audience or metadata.get("issuer") or metadata.get("token_endpoint"),
        "jti": uuid4().hex,
        "iat": issued,
        "exp": int(issued + lifetime),
    }
    request.timed = True
    request.form += [
        ("client_id", request.client_id),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", hidden(sign(claims))),
    ]


def _check_audience(audience: object) -> None:
    if audience is not None and not is_text(audience):
        raise ConfigurationError("audience must be a string of printable characters, or None")
