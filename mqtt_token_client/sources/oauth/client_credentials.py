"""ClientCredentials: the client credentials grant, for a device of its own (RFC 6749 section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...token import Token
from ...value import hidden, hide
from .client_auth import ClientAuthentication
from .grant import Grant, client_authentication, grant_parameters
from .http import HttpClient

if TYPE_CHECKING:
    from pathlib import Path


class ClientCredentials(Grant):
    """A token source: the client credentials grant. All parameters are sent with every request.

    Args:
        client_id: the client's identifier at the authorization server.
        issuer: the issuer identifier of the authorization server; its token endpoint is discovered (RFC 8414 or OpenID
            Connect Discovery 1.0).
        token_endpoint: the URL of the token endpoint, instead of ``issuer``.
        revocation_endpoint: the URL where tokens are revoked (RFC 7009), beside ``token_endpoint``, or if the metadata
            of the issuer has none.
        client_secret: the client's secret, or the path of its file as a ``pathlib.Path``, which is read for each
            request. It is sent in the Authorization header, unless the server's metadata supports only the body.
        client_auth: another client authentication, instead of ``client_secret``, such as ``ClientSecretPost``.
        scope: the scope to request, as one space-separated string or as a list.
        audience: the parameter of that name, which Auth0 and others require.
        resource: the resource or resources that the token is for (RFC 8707).
        extra: further parameters that the server requires.
        timeout: seconds to connect, and seconds without a byte; their sum is the deadline of each request.
        ca_bundle: path of the trusted certificates; by default those of ``REQUESTS_CA_BUNDLE``, else certifi's.
        proxies: a proxy URL for each scheme, as in requests; by default those of the environment.
        allow_insecure: allow plain http to other machines. To this machine (127.0.0.0/8, ::1, localhost) it is always
            allowed.

    Raises:
        ConfigurationError: an argument is wrong, or cannot be combined with another.
    """

    _name = "client_credentials"

    def __init__(
        self,
        *,
        client_id: str,
        issuer: str | None = None,
        token_endpoint: str | None = None,
        revocation_endpoint: str | None = None,
        client_secret: str | Path | None = None,
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
        client_secret, proxies = (
            hidden(client_secret),
            hide(proxies, proxies) if isinstance(proxies, Mapping) else proxies,
        )
        super().__init__(
            client_id,
            issuer,
            {"token_endpoint": token_endpoint},
            client_authentication(client_secret, client_auth),
            grant_parameters(scope, audience, resource, extra),
            HttpClient(timeout, ca_bundle, proxies, allow_insecure),
            revocation_endpoint,
        )

    def fetch(self, previous: Token | None) -> Token:  # noqa: ARG002 - this grant has no use for it
        """Request a new token.

        Raises:
            TokenError: as :meth:`TokenEndpoint.token`.
        """
        return self._endpoint.token([("grant_type", "client_credentials"), *self._parameters])
