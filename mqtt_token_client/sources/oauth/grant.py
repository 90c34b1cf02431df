"""Grant: what all grants have in common, which is the server, the client and the parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from ...clock import ServerClock
from ...errors import ConfigurationError
from ...token import Token
from .client_auth import ClientAuthentication, ClientSecret
from .http import HttpClient, url_problem
from .token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from pathlib import Path

_CLIENT = ("client_id", "client_secret", "client_assertion", "client_assertion_type")
_RESERVED = frozenset((*_CLIENT, "grant_type", "device_code", "refresh_token"))
_ARGUMENTS = frozenset(("scope", "audience", "resource"))


class Grant:
    """A client of one authorization server that requests one kind of token.

    Args:
        client_id: the client's identifier at the authorization server.
        issuer: the issuer identifier of the authorization server.
        endpoints: the URLs of its endpoints, by their names in the metadata, instead of ``issuer``.
        client_auth: authenticates the client.
        parameters: the form fields of the request that say what the token is for.
        http: sends the requests.
        revocation_endpoint: the URL of that endpoint, beside ``endpoints`` or if the metadata of ``issuer`` has none.

    Raises:
        ConfigurationError: an argument is wrong, or cannot be combined with another.
    """

    _name: ClassVar[str]

    def __init__(
        self,
        client_id: str,
        issuer: str | None,
        endpoints: Mapping[str, str | None],
        client_auth: ClientAuthentication,
        parameters: list[tuple[str, str]],
        http: HttpClient,
        revocation_endpoint: str | None = None,
    ) -> None:
        if not is_text(client_id):
            raise ConfigurationError("client_id must be a string of printable characters")
        _check_choice(issuer, endpoints)
        self._addresses = dict(endpoints) if issuer is None else {"issuer": issuer}
        given = {} if revocation_endpoint is None else {"revocation_endpoint": revocation_endpoint}
        for name, url in {**self._addresses, **given}.items():
            problem = url_problem(url, allow_insecure=http.allow_insecure)
            if problem is None and name == "issuer" and "?" in str(url):
                problem = "must not contain a query (RFC 8414 section 2)"
            if problem:
                raise ConfigurationError(f"{name} {problem}")
        self._client_id = client_id
        self._parameters = parameters
        server = self._addresses if issuer is None else issuer
        self._endpoint = TokenEndpoint(client_id, client_auth, server, http, given)

    @property
    def endpoint(self) -> TokenEndpoint:
        """The authorization server, for use inside the library."""
        return self._endpoint

    def revoke(self, token: Token) -> bool:
        """Revoke a token at the server: the refresh token, if there is one, else the access token (RFC 7009). Whether
        the access tokens of a refresh token are revoked with it, the server decides.

        Returns:
            Whether the server revoked it. A server without a ``revocation_endpoint``, in its metadata or as an
            argument, cannot, and some cannot revoke access tokens.

        Raises:
            TokenError: the request failed, or the server rejected it.
        """
        if token.refresh_token:
            return self._endpoint.revoke(token.refresh_token, "refresh_token")
        return self._endpoint.revoke(token.value, "access_token")

    @property
    def clock(self) -> ServerClock:
        """The authorization server's time of day."""
        return self._endpoint.clock

    @property
    def scope(self) -> str | None:
        """The scopes that are requested, space-separated; None for the server's default."""
        return dict(self._parameters).get("scope")

    @property
    def key(self) -> str:
        """A name for the tokens of this source, the same in every process; it does not depend on the secret."""
        from hashlib import sha256  # needed only where tokens are stored

        asked = [part for pair in self._addresses.items() for part in pair]
        identity = json.dumps([*asked, self._client_id, *self._parameters])
        return f"{self._name}-{sha256(identity.encode()).hexdigest()[:32]}"

    def __repr__(self) -> str:
        where = ", ".join(f"{name}={url!r}" for name, url in getattr(self, "_addresses", {}).items())
        return f"{type(self).__name__}(client_id={getattr(self, '_client_id', None)!r}, {where})"


def _check_choice(issuer: str | None, endpoints: Mapping[str, str | None]) -> None:
    given = [name for name, url in endpoints.items() if url is not None]
    missing = [name for name, url in endpoints.items() if url is None]
    if issuer is not None and given:
        raise ConfigurationError(f"issuer cannot be combined with {' and '.join(endpoints)}")
    if issuer is None and not given:
        raise ConfigurationError(f"issuer is missing; give it, or {' and '.join(endpoints)} instead")
    if issuer is None and missing:
        raise ConfigurationError(
            f"{missing[0]} is missing; give it together with {' and '.join(given)}, or give the issuer instead"
        )


def client_authentication(
    client_secret: str | Path | None,
    client_auth: ClientAuthentication | None,
    default: ClientAuthentication | None = None,
) -> ClientAuthentication:
    """Return the client authentication that one of two arguments gives; ``default`` if neither is given.

    Raises:
        ConfigurationError: both are given, or neither and there is no default, or one is wrong.
    """
    if client_secret is not None and client_auth is not None:
        raise ConfigurationError("client_secret and client_auth cannot both be given")
    if client_auth is not None and not callable(getattr(client_auth, "authenticate", None)):
        raise ConfigurationError(
            f"client_auth must have a method authenticate(request), got {type(client_auth).__name__}"
        )
    chosen = client_auth or default if client_secret is None else ClientSecret(client_secret)
    if chosen is None:
        raise ConfigurationError("client_secret or client_auth must be given")
    return chosen


def is_text(value: object) -> bool:
    """Whether this is a non-empty string of printable characters."""
    return isinstance(value, str) and value != "" and value.isprintable()


def grant_parameters(scope: object, audience: object, resource: object, extra: object) -> list[tuple[str, str]]:
    """Return the form fields that say what the token is for.

    Args:
        scope: one space-separated string, or a list of scopes (RFC 6749 section 3.3), or None.
        audience: a string, or None.
        resource: a URI, or a list of them (RFC 8707 section 2), or None.
        extra: a mapping of further parameters, or None.

    Raises:
        ConfigurationError: an argument is of another type.
    """
    scopes = _texts("scope", scope)
    fields = [("scope", " ".join(scopes))] if scopes else []
    if audience is not None:
        if not isinstance(audience, str) or not is_text(audience):
            raise ConfigurationError("audience must be a string of printable characters")
        fields.append(("audience", audience))
    fields += [("resource", one) for one in _texts("resource", resource)]
    return fields + _extra(extra)


def _texts(name: str, value: object) -> list[str]:
    values = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(values, list | tuple) or not all(is_text(one) for one in values):
        raise ConfigurationError(f"{name} must be a string or a list of strings, of printable characters")
    return list(values)


def _extra(extra: object) -> list[tuple[str, str]]:
    if extra is None:
        return []
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra must be a mapping of strings, got {type(extra).__name__}")
    for name, value in extra.items():
        if not is_text(name) or not isinstance(value, str):
            raise ConfigurationError(f"extra[{name!r}] must be a string, and its name a non-empty string")
        if name in _RESERVED | _ARGUMENTS:
            raise ConfigurationError(
                f"extra must not contain {name!r}: it has an argument of its own, or is set by the library"
            )
    return sorted(extra.items())
