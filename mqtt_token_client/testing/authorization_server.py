"""An authorization server in this process: issues short-lived JWTs by client credentials or the device flow."""

from __future__ import annotations

import logging
import math
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from authlib.integrations.flask_oauth2 import AuthorizationServer as OAuth2Endpoints
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from ..errors import ConfigurationError
from .device_grant import DeviceAuthorization, DeviceCode, DeviceLogins
from .device_page import device_page
from .refresh_tokens import Family, Refresh, RefreshTokens, Revocation
from .state import State, load, save

if TYPE_CHECKING:
    from joserfc.jwk import KeySet, KeySetSerialization
    from werkzeug.serving import BaseWSGIServer

logging.getLogger("authlib").addHandler(logging.NullHandler())

_SECRET_METHODS = ["client_secret_basic", "client_secret_post"]
_SECRET_GRANTS = ["client_credentials"]
_PUBLIC_METHODS = ["none"]
_PUBLIC_GRANTS = [DEVICE_CODE_GRANT_TYPE, "refresh_token"]
_SOMEONE = "someone"  # the person who approves


class AuthorizationServer:
    """Issues JWT access tokens (RFC 9068, RS256) on loopback, to one client with a secret and to one without:

    - client credentials (RFC 6749 section 4.4), with the secret by HTTP Basic or in the request body;
    - the device flow (RFC 8628), for the public client. A person approves on the page ``/device``, or a test with
      :meth:`approve`. Each refresh token can be used once and is replaced; if it is used again, all tokens of that
      login are revoked. ``/revoke`` revokes them too (RFC 7009).

    A context manager: it serves from ``__enter__`` to ``__exit__``, on threads of its own. Its metadata are at both
    well-known paths (RFC 8414, OpenID Connect Discovery), its keys at ``/jwks``.

    Args:
        lifetime: seconds that a token is valid, which may have a fraction; ``exp`` and ``iat`` then have one too (RFC
            7519 section 2). The attribute of the same name may be changed while the server runs.
        client_id: the client with a secret.
        client_secret: its secret; by default the one in ``state``, else a random one.
        device_client_id: the client without one.
        device_code_lifetime: seconds that a person has to approve a device.
        interval: seconds that a device must wait between polls; a poll that comes too early adds five.
        audience: the claim ``aud`` of the tokens.
        port: the port to listen on; 0 selects a free one.
        state: a file, created if necessary with mode 600, that keeps the signing key, the client secret and the hashes
            of the refresh tokens for a server that is started later. Without it, a new server knows none of them. For
            one server at a time.

    Attributes:
        issuer: the issuer's URL, known while the server runs.

    Raises:
        ConfigurationError: a duration is not above 0, both clients have the same name, or the file of ``state`` cannot
            be used.
        OSError: on ``__enter__``: the port is taken.
    """

    issuer: str

    def __init__(
        self,
        lifetime: float = 6.0,
        client_id: str = "demo",
        client_secret: str | None = None,
        *,
        device_client_id: str = "demo-device",
        device_code_lifetime: float = 600.0,
        interval: float = 1.0,
        audience: str = "mqtt",
        port: int = 0,
        state: str | Path | None = None,
    ) -> None:
        durations = {"lifetime": lifetime, "device_code_lifetime": device_code_lifetime, "interval": interval}
        for name, seconds in durations.items():
            if not 0 < seconds < math.inf:
                raise ConfigurationError(f"{name} must be more than 0 seconds, got {seconds}")
        if client_id == device_client_id:
            raise ConfigurationError("device_client_id must differ from client_id")
        self.lifetime = lifetime
        self.client_id = client_id
        self.device_client_id = device_client_id
        self.audience = audience
        self._port = port
        self._state_file = None if state is None else Path(state)
        self._state = State() if self._state_file is None else load(self._state_file)
        if client_secret:
            self._state = replace(self._state, client_secret=client_secret)
        self.client_secret = self._state.client_secret
        self._logins = DeviceLogins(_whole(device_code_lifetime), _whole(interval))
        self._refresh_tokens = RefreshTokens(self._state.families, self._save)
        self._failures: deque[Response] = deque()
        self._issued: dict[str, bool] = {}  # the claims jti of access tokens, and whether each is still valid
        self._save(self._state.families)

    @property
    def jwks(self) -> KeySetSerialization:
        """The public key, as a JWK Set (RFC 7517)."""
        return self._state.keys.as_dict(private=False)

    def approve(self, user_code: str, subject: str = _SOMEONE) -> None:
        """Approve a device, as a person would on the page.

        Args:
            user_code: the code that the device shows.
            subject: the person, which is the claim ``sub`` of the tokens.

        Raises:
            ConfigurationError: no device is waiting with this code.
        """
        self._decide(user_code, approved=True, subject=subject)

    def deny(self, user_code: str) -> None:
        """Refuse a device, as a person would on the page.

        Raises:
            ConfigurationError: no device is waiting with this code.
        """
        self._decide(user_code, approved=False, subject="")

    def fail(self, status: int = 503, times: int = 1, retry_after: float | str | None = None) -> None:
        """Answer the next ``times`` token requests with an HTTP error, as in an outage.

        Args:
            status: the HTTP status.
            times: how many requests; 0 ends the outage.
            retry_after: the ``Retry-After`` header: seconds, or an HTTP date.
        """
        self._failures.clear()
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._failures.extend(Response("out of order\n", status, headers, mimetype="text/plain") for _ in range(times))

    def expire_now(self) -> None:
        """Revoke all access tokens issued so far. A :class:`Broker` rejects them from now on; its ``check_tokens()``
        closes the connections that presented them before.
        """
        self._issued = dict.fromkeys(self._issued, False)

    def is_revoked(self, jti: str) -> bool:
        """Whether the access token with this claim was revoked by :meth:`expire_now`."""
        return not self._issued.get(jti, True)

    def __enter__(self) -> Self:
        app = Flask(__name__)
        with socket.create_server(("127.0.0.1", self._port)) as listener:  # werkzeug would exit if the port is taken
            self._server: BaseWSGIServer = make_server(
                "127.0.0.1", self._port, app, True, request_handler=_QuietHandler, fd=listener.fileno()
            )
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

    def _decide(self, user_code: str, *, approved: bool, subject: str) -> None:
        if not self._logins.decide(user_code, approved=approved, subject=subject):
            raise ConfigurationError(
                "user_code: no device is waiting with this code; it may have been used or have expired"
            )

    def _save(self, families: Mapping[str, Family]) -> None:
        if self._state_file is not None:
            save(self._state_file, replace(self._state, families=families))

    def _add_routes(self, app: Flask) -> None:
        clients = {
            self.client_id: _Client(self.client_id, self.client_secret, _SECRET_METHODS, _SECRET_GRANTS),
            self.device_client_id: _Client(self.device_client_id, "", _PUBLIC_METHODS, _PUBLIC_GRANTS),
        }
        endpoints = OAuth2Endpoints(app, query_client=clients.get, save_token=lambda *_: None)
        endpoints.device_logins, endpoints.refresh_tokens = self._logins, self._refresh_tokens
        for grant in (_ClientCredentialsGrant, DeviceCode, Refresh):
            endpoints.register_grant(grant)
        endpoints.register_token_generator("default", _TokenGenerator(self))
        endpoints.register_endpoint(DeviceAuthorization(endpoints, f"{self.issuer}/device"))
        endpoints.register_endpoint(Revocation)
        app.register_blueprint(device_page(self._logins, _SOMEONE))

        @app.post("/token")
        def token() -> Any:  # Authlib has no types
            try:
                return self._failures.popleft()
            except IndexError:
                return endpoints.create_token_response()

        @app.post("/device_authorization")
        def device_authorization() -> Any:  # Authlib has no types
            return endpoints.create_endpoint_response(DeviceAuthorization.ENDPOINT_NAME)

        @app.post("/revoke")
        def revoke() -> Any:  # Authlib has no types
            return endpoints.create_endpoint_response(Revocation.ENDPOINT_NAME)

        @app.get("/jwks")
        def jwks() -> KeySetSerialization:
            return self.jwks

        @app.get("/.well-known/oauth-authorization-server")
        @app.get("/.well-known/openid-configuration")
        def metadata() -> dict[str, Any]:
            return {
                "issuer": self.issuer,
                "token_endpoint": f"{self.issuer}/token",
                "device_authorization_endpoint": f"{self.issuer}/device_authorization",
                "revocation_endpoint": f"{self.issuer}/revoke",
                "jwks_uri": f"{self.issuer}/jwks",
                "grant_types_supported": _SECRET_GRANTS + _PUBLIC_GRANTS,
                "response_types_supported": [],
                "token_endpoint_auth_methods_supported": _SECRET_METHODS + _PUBLIC_METHODS,
                "revocation_endpoint_auth_methods_supported": Revocation.CLIENT_AUTH_METHODS,
            }


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's own name
        """Write no access log, which would disturb the demo's output."""


class _Client:
    """A client as Authlib expects it (``authlib.oauth2.rfc6749.ClientMixin``)."""

    def __init__(self, client_id: str, client_secret: str, methods: Collection[str], grants: Collection[str]) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._methods = methods
        self._grants = grants

    def get_client_id(self) -> str:
        return self._client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self._client_secret.encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        return method in self._methods

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self._grants


class _ClientCredentialsGrant(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = _SECRET_METHODS

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        # Authlib's own method does the same, but writes the token to its debug log.
        token = self.generate_token(scope=self.request.payload.scope, include_refresh_token=False)
        return 200, token, self.TOKEN_RESPONSE_HEADER


class _TokenGenerator(JWTBearerTokenGenerator):  # type: ignore[misc]  # Authlib has no types
    def __init__(self, server: AuthorizationServer) -> None:
        super().__init__(server.issuer, "RS256", expires_generator=lambda *_: _whole(server.lifetime))
        self._server = server

    def get_jwks(self) -> KeySet:
        return self._server._state.keys  # noqa: SLF001 - a part of the server

    def get_audiences(self, _client: _Client, _user: object, _scope: str) -> str:
        return self._server.audience

    def get_extra_claims(self, _client: _Client, _grant_type: str, _user: object, _scope: str) -> dict[str, Any]:
        # Authlib rounds iat down to a second, which would take up to a second of six.
        now, jti = time.time(), secrets.token_urlsafe(16)
        self._server._issued[jti] = True  # noqa: SLF001 - a part of the server
        return {"iat": now, "exp": now + self._server.lifetime, "jti": jti}


def _whole(seconds: float) -> float:
    """Return whole seconds as an integer, as some clients accept nothing else."""
    return int(seconds) if seconds == int(seconds) else seconds
