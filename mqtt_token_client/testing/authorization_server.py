"""An authorization server inside this process: client credentials for JWT access tokens with a short life."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from authlib.integrations.flask_oauth2 import AuthorizationServer as OAuth2Endpoints
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, Response
from joserfc.jwk import KeySet, RSAKey
from werkzeug.serving import WSGIRequestHandler, make_server

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from joserfc.jwk import KeySetSerialization
    from werkzeug.serving import BaseWSGIServer

logging.getLogger("authlib").addHandler(logging.NullHandler())

_GRANT_TYPE = "client_credentials"
_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class AuthorizationServer:
    """Issues JWT access tokens (RFC 9068, RS256) for the client credentials grant (RFC 6749 section 4.4), on loopback.

    A context manager: it serves from ``__enter__`` to ``__exit__``, in threads of its own. Its metadata stand at both
    well-known paths (RFC 8414, OpenID Connect Discovery), its keys at ``/jwks``. The client proves who it is by HTTP
    Basic or in the request body.

    Args:
        lifetime: seconds that a token lives, fractions too. ``exp`` and ``iat`` then carry them as well (RFC 7519
            section 2). The attribute of the same name may be changed while the server runs.
        client_id: the one client that there is.
        client_secret: its secret; a random one by default.
        audience: the claim ``aud`` of the tokens.
        port: the port to listen on; 0 picks a free one.

    Attributes:
        issuer: the issuer's URL, known while the server runs.
        jwks: the public key, as a JWK Set (RFC 7517).

    Raises:
        ConfigurationError: ``lifetime`` is not a number above 0.
    """

    issuer: str

    def __init__(
        self,
        lifetime: float = 6.0,
        client_id: str = "demo",
        client_secret: str | None = None,
        *,
        audience: str = "mqtt",
        port: int = 0,
    ) -> None:
        if not lifetime > 0:
            raise ConfigurationError(f"lifetime: seconds above 0, not {lifetime}")
        self.lifetime = lifetime
        self.client_id = client_id
        self.client_secret = client_secret or secrets.token_urlsafe(24)
        self.audience = audience
        self._port = port
        self._keys = KeySet([RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})])
        self.jwks: KeySetSerialization = self._keys.as_dict(private=False)
        self._failures: deque[Response] = deque()

    def fail_next(self, times: int = 1, status: int = 503, retry_after: float | str | None = None) -> None:
        """Answer the next ``times`` token requests with an HTTP status and no token, as in an outage.

        Args:
            times: how many requests; 0 ends the outage.
            status: the HTTP status.
            retry_after: the ``Retry-After`` header: seconds, or an HTTP date.
        """
        self._failures.clear()
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._failures.extend(Response("out of order\n", status, headers, mimetype="text/plain") for _ in range(times))

    def __enter__(self) -> Self:
        app = Flask(__name__)
        self._server: BaseWSGIServer = make_server("127.0.0.1", self._port, app, True, request_handler=_QuietHandler)
        self.issuer = f"http://127.0.0.1:{self._server.port}"
        self._add_routes(app)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="authorization-server", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def _add_routes(self, app: Flask) -> None:
        client = _Client(self.client_id, self.client_secret)
        endpoints = OAuth2Endpoints(app, query_client={self.client_id: client}.get, save_token=lambda *_: None)
        endpoints.register_grant(_ClientCredentialsGrant)
        endpoints.register_token_generator("default", _TokenGenerator(self))

        @app.post("/token")
        def token() -> Any:  # Authlib has no types
            try:
                return self._failures.popleft()
            except IndexError:
                return endpoints.create_token_response()

        @app.get("/jwks")
        def jwks() -> KeySetSerialization:
            return self.jwks

        @app.get("/.well-known/oauth-authorization-server")
        @app.get("/.well-known/openid-configuration")
        def metadata() -> dict[str, Any]:
            return {
                "issuer": self.issuer,
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "grant_types_supported": [_GRANT_TYPE],
                "response_types_supported": [],
                "token_endpoint_auth_methods_supported": _AUTH_METHODS,
            }


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's own name
        """No access log: it would run across a demo's table and a test's output."""


class _Client:
    """The client as Authlib asks for it (``authlib.oauth2.rfc6749.ClientMixin``)."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._client_id = client_id
        self._client_secret = client_secret

    def get_client_id(self) -> str:
        return self._client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self._client_secret.encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        return method in _AUTH_METHODS

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == _GRANT_TYPE


class _ClientCredentialsGrant(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = _AUTH_METHODS

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        # Authlib's own does the same and writes the token into its debug log.
        token = self.generate_token(scope=self.request.payload.scope, include_refresh_token=False)
        return 200, token, self.TOKEN_RESPONSE_HEADER


class _TokenGenerator(JWTBearerTokenGenerator):  # type: ignore[misc]  # Authlib has no types
    def __init__(self, server: AuthorizationServer) -> None:
        super().__init__(server.issuer, "RS256", expires_generator=lambda *_: self._lifetime())
        self._server = server

    def _lifetime(self) -> float:
        # Whole seconds go out as an integer, which is all that some clients read.
        lifetime = self._server.lifetime
        return int(lifetime) if lifetime == int(lifetime) else lifetime

    def get_jwks(self) -> KeySet:
        return self._server._keys  # noqa: SLF001 - the server's own other half

    def get_audiences(self, _client: _Client, _user: object, _scope: str) -> str:
        return self._server.audience

    def get_extra_claims(self, _client: _Client, _grant_type: str, _user: object, _scope: str) -> dict[str, float]:
        # Authlib cuts iat to the second before, which would take up to a second of a life of six.
        now = time.time()
        return {"iat": now, "exp": now + self._server.lifetime}
