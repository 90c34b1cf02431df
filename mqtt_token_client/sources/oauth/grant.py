"""What every grant has in common: where it asks, who asks, and what the token is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import ClassVar

from ...errors import ConfigurationError
from ...token import Token
from .client_auth import ClientAuthentication, ClientSecret
from .http import HttpClient, url_problem
from .token_endpoint import TokenEndpoint

_CLIENT = ("client_id", "client_secret", "client_assertion", "client_assertion_type")
_OWN = frozenset((*_CLIENT, "grant_type", "device_code", "refresh_token"))
_HERE = frozenset(("scope", "audience", "resource"))


class Grant:
    """A client of one authorization server that asks for one kind of token.

    Args:
        client_id: the client's identifier at the authorization server.
        issuer: the authorization server, as it names itself.
        endpoints: the addresses of its endpoints, by their names in the metadata, instead of ``issuer``.
        client_auth: proves who the client is.
        parameters: the form fields of what is asked for.
        transport: how the server is reached.

    Raises:
        ConfigurationError: an argument is wrong, or does not go with another.
    """

    _name: ClassVar[str]

    def __init__(
        self,
        client_id: str,
        issuer: str | None,
        endpoints: Mapping[str, str | None],
        client_auth: ClientAuthentication,
        parameters: list[tuple[str, str]],
        transport: HttpClient,
    ) -> None:
        if not is_text(client_id):
            raise ConfigurationError("client_id: a string of printable characters is needed")
        _check_choice(issuer, endpoints)
        self._addresses = dict(endpoints) if issuer is None else {"issuer": issuer}
        for name, url in self._addresses.items():
            problem = url_problem(url, allow_insecure=transport.allow_insecure)
            if problem is None and name == "issuer" and "?" in str(url):
                problem = "an issuer has no query (RFC 8414 section 2)"
            if problem:
                raise ConfigurationError(f"{name}: {problem}")
        self._client_id = client_id
        self._parameters = parameters
        self._endpoint = TokenEndpoint(client_id, client_auth, self._addresses if issuer is None else issuer, transport)

    def revoke(self, token: Token) -> bool:
        """Have the server end a token before its time: the refresh token, if there is one, else the access token
        (RFC 7009). What it does to the access tokens of a refresh token is up to the server.

        Returns:
            Whether the server has done so, for its metadata names a ``revocation_endpoint`` and it revokes this kind.

        Raises:
            TokenError: it could not be asked, or it refused.
        """
        if token.refresh_token:
            return self._endpoint.revoke(token.refresh_token, "refresh_token")
        return self._endpoint.revoke(token.value, "access_token")

    @property
    def key(self) -> str:
        """A name for the tokens of this source, the same in every process: of what is asked for, not of the secret."""
        asked = [part for pair in self._addresses.items() for part in pair]
        identity = json.dumps([*asked, self._client_id, *self._parameters])
        return f"{self._name}-{sha256(identity.encode()).hexdigest()[:32]}"

    def __repr__(self) -> str:
        where = ", ".join(f"{name}={url!r}" for name, url in self._addresses.items())
        return f"{type(self).__name__}(client_id={self._client_id!r}, {where})"


def _check_choice(issuer: str | None, endpoints: Mapping[str, str | None]) -> None:
    given = [name for name, url in endpoints.items() if url is not None]
    missing = [name for name, url in endpoints.items() if url is None]
    if issuer is not None and given:
        raise ConfigurationError(f"issuer, {', '.join(endpoints)}: give the issuer alone, or instead all others")
    if issuer is None and not given:
        raise ConfigurationError(f"issuer: it is missing; give it, or instead {' and '.join(endpoints)}")
    if issuer is None and missing:
        raise ConfigurationError(
            f"{missing[0]}: it is missing; give it beside {' and '.join(given)}, or instead the issuer alone"
        )


def client_authentication(
    client_secret: str | None, client_auth: ClientAuthentication | None, default: ClientAuthentication | None = None
) -> ClientAuthentication:
    """The client authentication that two arguments stand for, of which at most one may be given; ``default`` if none.

    Raises:
        ConfigurationError: both are given, or none though there is no default, or one is wrong.
    """
    if client_secret is not None and client_auth is not None:
        raise ConfigurationError("client_secret, client_auth: give one of the two, not both")
    if client_auth is not None and not callable(getattr(client_auth, "authenticate", None)):
        raise ConfigurationError("client_auth: an object with authenticate(request) is needed")
    chosen = client_auth or default if client_secret is None else ClientSecret(client_secret)
    if chosen is None:
        raise ConfigurationError("client_secret, client_auth: give one of the two")
    return chosen


def is_text(value: object) -> bool:
    """Whether this is a string of printable characters that is not empty."""
    return isinstance(value, str) and value != "" and value.isprintable()


def grant_parameters(scope: object, audience: object, resource: object, extra: object) -> list[tuple[str, str]]:
    """The form fields of what a user asked for.

    Args:
        scope: one space-separated string, or a list of scopes (RFC 6749 section 3.3), or None.
        audience: a string, or None.
        resource: a URI, or a list of them (RFC 8707 section 2), or None.
        extra: a mapping of further parameters, or None.

    Raises:
        ConfigurationError: one is not of that kind.
    """
    scopes = _texts("scope", scope)
    fields = [("scope", " ".join(scopes))] if scopes else []
    if audience is not None:
        if not isinstance(audience, str) or not is_text(audience):
            raise ConfigurationError("audience: a string of printable characters is needed")
        fields.append(("audience", audience))
    fields += [("resource", one) for one in _texts("resource", resource)]
    return fields + _extra(extra)


def _texts(name: str, value: object) -> list[str]:
    values = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(values, list | tuple) or not all(is_text(one) for one in values):
        raise ConfigurationError(f"{name}: a string, or a list of strings, of printable characters is needed")
    return list(values)


def _extra(extra: object) -> list[tuple[str, str]]:
    if extra is None:
        return []
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra: a mapping of strings is needed, not {type(extra).__name__}")
    for name, value in extra.items():
        if not is_text(name) or not isinstance(value, str):
            raise ConfigurationError(f"extra: a string to each name is needed; that of {name!r} is none")
        if name in _OWN | _HERE:
            raise ConfigurationError(f"extra: {name!r} has an argument of its own, or is not for you to set")
    return sorted(extra.items())
