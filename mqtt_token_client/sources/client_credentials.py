"""The client credentials grant: a device asks for itself (RFC 6749 section 4.4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..token import Token
from .client_auth import ClientAuthentication, ClientSecret
from .exchange import Transport, url_problem
from .grant import grant_parameters, is_text
from .token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from pathlib import Path


class ClientCredentials:
    """A token source: the client credentials grant. Every parameter is sent again on every renewal.

    Args:
        client_id: the client's identifier at the authorization server.
        issuer: the authorization server, as it names itself; its token endpoint is discovered (RFC 8414 or OpenID
            Connect Discovery 1.0).
        token_endpoint: the token endpoint itself, instead of ``issuer``.
        client_secret: the client's secret. It goes into the Authorization header, unless the server's metadata offers
            only the body.
        client_auth: another client authentication, instead of ``client_secret``, such as ``ClientSecretPost``.
        scope: the scope to ask for, as one space-separated string or as a list.
        audience: the parameter of that name, which Auth0 and others ask for.
        resource: the resource or resources that the token is for (RFC 8707).
        extra: further parameters that the server asks for.
        timeout: seconds to connect, and seconds without a byte; their sum is the deadline of each exchange.
        ca_bundle: path of the certificates to trust; by default those of ``REQUESTS_CA_BUNDLE``, else certifi's.
        proxies: a proxy URL for each scheme, as in requests; by default those of the environment.
        allow_insecure: allow plain http to other machines. To this one (127.0.0.0/8, ::1, localhost) it is allowed.

    Raises:
        ConfigurationError: an argument is wrong, or does not go with another.
    """

    def __init__(
        self,
        *,
        client_id: str,
        issuer: str | None = None,
        token_endpoint: str | None = None,
        client_secret: str | None = None,
        client_auth: ClientAuthentication | None = None,
        scope: str | Sequence[str] | None = None,
        audience: str | None = None,
        resource: str | Sequence[str] | None = None,
        extra: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = (10.0, 20.0),
        ca_bundle: str | Path | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_insecure: bool = False,
    ) -> None:
        if not is_text(client_id):
            raise ConfigurationError("client_id: a string of printable characters is needed")
        if (issuer is None) == (token_endpoint is None):
            raise ConfigurationError("issuer, token_endpoint: give one of the two")
        if (client_secret is None) == (client_auth is None):
            raise ConfigurationError("client_secret, client_auth: give one of the two")
        if client_auth is not None and not callable(getattr(client_auth, "authenticate", None)):
            raise ConfigurationError("client_auth: an object with authenticate(request) is needed")
        self._client_id = client_id
        self._server = ("issuer", issuer) if token_endpoint is None else ("token_endpoint", token_endpoint)
        name, url = self._server
        problem = url_problem(url, allow_insecure=allow_insecure)
        if problem is None and name == "issuer" and "?" in str(url):
            problem = "an issuer has no query (RFC 8414 section 2)"
        if problem:
            raise ConfigurationError(f"{name}: {problem}")
        self._grant = [("grant_type", "client_credentials"), *grant_parameters(scope, audience, resource, extra)]
        self._endpoint = TokenEndpoint(
            client_id,
            client_auth or ClientSecret(client_secret or ""),
            str(url) if name == "issuer" else {name: url},
            Transport(timeout, ca_bundle, proxies, allow_insecure),
        )

    def fetch(self, previous: Token | None) -> Token:  # noqa: ARG002 - this grant needs no predecessor
        """A new token.

        Raises:
            TokenError: as :meth:`TokenEndpoint.token`.
        """
        return self._endpoint.token(self._grant)

    @property
    def key(self) -> str:
        """A name for the tokens of this source, the same in every process: of what is asked for, not of the secret."""
        identity = json.dumps([*self._server, self._client_id, *self._grant])
        return f"client_credentials-{sha256(identity.encode()).hexdigest()[:32]}"

    def __repr__(self) -> str:
        name, url = self._server
        return f"ClientCredentials(client_id={self._client_id!r}, {name}={url!r})"
