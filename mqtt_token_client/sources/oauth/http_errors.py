"""Why a request to an authorization server got no answer: translates the exceptions of requests."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...errors import (
    AuthorizationServerUnavailable,
    AuthorizationServerUntrusted,
    ConfigurationError,
    InvalidTokenResponse,
    MqttTokenError,
)
from .http import holds_certificates

if TYPE_CHECKING:
    import ssl

PROXY_CREDENTIALS = "give its user name and password in the proxy's URL: http://user:password@host:port"
_TUNNEL_FAILED = re.compile(r"Tunnel connection failed: (\d{3})")
_TRUST = "ca_bundle='plant-ca.pem'"
_CLIENT_CERTIFICATE = "client_auth=MutualTLS('device.crt', 'device.key')"


def explain(
    error: BaseException, where: str, ca_bundle: str | os.PathLike[str] | None, proxy: str | None
) -> MqttTokenError:
    """Translate an exception of a request.

    Args:
        error: nothing of it is kept, as it refers to the request.
        where: the URL, without its query.
        ca_bundle: path of the trusted certificates, if there is one.
        proxy: host and port of the proxy, if there is one.
    """
    from requests.exceptions import InvalidSchema

    for cause in _causes(error):  # their frames refer to each other, and to a socket, until the garbage collection
        traceback.clear_frames(cause.__traceback__)
    if isinstance(error, InvalidSchema) and "SOCKS" in str(error):
        return ConfigurationError(
            "proxies: a SOCKS proxy needs the \"proxy\" extra: pip install 'mqtt-token-client[proxy]'"
        )
    if ca_bundle is not None and where.startswith("https:") and not holds_certificates(ca_bundle):
        why = f"ca_bundle: {os.fspath(ca_bundle)!r} contains no certificate now, unlike when the program began"
        return AuthorizationServerUnavailable(f"{where}: {why}")
    if type(error) is OSError and error.errno is None:  # by requests itself: a file of certificates does not exist
        return AuthorizationServerUntrusted(f"{where}: {error}")
    return _of_connection(error, where, ca_bundle, proxy)


def _of_connection(
    error: BaseException, where: str, ca_bundle: str | os.PathLike[str] | None, proxy: str | None
) -> MqttTokenError:
    import ssl
    from http.client import BadStatusLine

    from requests.exceptions import ContentDecodingError

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause, where, ca_bundle)
        if isinstance(cause, ContentDecodingError):
            return InvalidTokenResponse(f"{where}: the answer cannot be decompressed")
    if proxy is not None and _proxy_failed(causes):
        return AuthorizationServerUnavailable(f"{where}: the proxy {proxy} gave no connection: {_at_proxy(causes)}")
    why = _why(causes) if proxy is None else f"through the proxy {proxy}: {_why(causes)}"
    if where.startswith("http:") and any(isinstance(cause, ConnectionResetError | BadStatusLine) for cause in causes):
        why += "; if this port speaks TLS, the URL must begin with https://"
    return AuthorizationServerUnavailable(f"{where}: {why}")


def _untrusted(
    error: ssl.SSLCertVerificationError, where: str, ca_bundle: str | os.PathLike[str] | None
) -> MqttTokenError:
    import ssl

    from ...tls_errors import certificate_problem, may_pass

    authorities = []
    if ca_bundle is not None and os.path.isfile(ca_bundle):  # noqa: PTH113 - pathlib takes a while to load
        authorities = ssl.create_default_context(cafile=ca_bundle).get_ca_certs()
    kind = AuthorizationServerUnavailable if may_pass(error) else AuthorizationServerUntrusted
    return kind(f"{where}: its certificate was not accepted: {certificate_problem(error, _TRUST, authorities)}")


def _why(causes: list[BaseException]) -> str:
    """Return what went wrong; the innermost cause says most."""
    import ssl
    from http.client import BadStatusLine, RemoteDisconnected

    from ...tls_errors import handshake_problem

    why = type(causes[0]).__name__
    for cause in causes:
        if isinstance(cause, TimeoutError):
            why = "timed out"
        elif isinstance(cause, RemoteDisconnected):
            why = "the connection was closed without an answer"
        elif isinstance(cause, BadStatusLine):
            why = "the answer is not valid HTTP"
        elif isinstance(cause, ssl.SSLError):
            why = handshake_problem(cause, _CLIENT_CERTIFICATE)
        elif isinstance(cause, OSError) and cause.strerror:
            why = cause.strerror
    return why


def _proxy_failed(causes: list[BaseException]) -> bool:
    """Whether it was the proxy, not the server: what is connected to is the proxy."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

    return any(isinstance(cause, ConnectTimeoutError | NewConnectionError | ProxyError) for cause in causes)


def _at_proxy(causes: list[BaseException]) -> str:
    import ssl

    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS; its URL must begin with http://"
        status = _TUNNEL_FAILED.match(str(cause)) if isinstance(cause, OSError) else None
        if status is not None:
            return f"HTTP {status[1]}" + (f"; {PROXY_CREDENTIALS}" if status[1] == "407" else "")
        if type(cause).__name__ == "SOCKS5AuthError":  # of PySocks
            return f"it rejected the login; {PROXY_CREDENTIALS}"
    return _why(causes)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it wraps, which requests and urllib3 keep in different places."""
    found: list[BaseException] = [error]
    for cause in found:
        yield cause
        for inner in (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args):
            if isinstance(inner, BaseException) and not any(inner is known for known in found):
                found.append(inner)
