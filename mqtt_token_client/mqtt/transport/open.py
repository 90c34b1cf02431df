"""An open connection to the broker, ready for CONNECT: TCP, TLS, WebSocket, and a proxy in between. It blocks."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import cast
from urllib.parse import urlsplit

from ...clock import monotonic
from ...errors import BrokerUnreachable, CertificateRejected, ConfigurationError
from . import happy_eyeballs

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_TIMEOUT = 15.0  # seconds for all of it but the resolver's part

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: a device whose clock has not been set yet
# sees these, and they pass when it is.
_MATTERS_OF_TIME = (9, 10)

# Seconds: TCP repeats what a bad radio link loses for a while, and Linux allows no more.
_SHORTEST_KEEPALIVE, _LONGEST_KEEPALIVE = 15, 32_767


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is; ``path`` is that of its WebSocket, or None where it speaks MQTT without one."""

    host: str
    port: int
    tls: bool
    path: str | None = None

    @property
    def authority(self) -> str:
        """Host and port, as a URL and the Host header of HTTP write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        scheme = "mqtt" if self.path is None else "ws"
        return f"{scheme}{'s' if self.tls else ''}://{self.authority}{self.path or ''}"


def parse_broker(url: str, *, allow_insecure: bool = False) -> Address:
    """The address in a broker's URL.

    Raises:
        ConfigurationError: it is no such URL, or leads to another machine without TLS and without ``allow_insecure``;
            or it is one of a WebSocket, and the ``websocket`` extra is not installed.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"broker: a URL such as 'mqtts://broker.example.com', not {type(url).__name__}")
    misshapen = ConfigurationError(
        "broker: the URL has a host, and perhaps a port from 1 to 65535, such as mqtts://broker.example.com:8883"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as the resolver will do
    except ValueError:
        raise misshapen from None
    if parts.scheme not in _PORTS:
        raise ConfigurationError(
            f"broker: the URL begins with mqtts://, wss://, mqtt:// or ws://, not {parts.scheme or 'nothing'}://"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("broker: no user name or password in the URL; the token is the password")
    over_websocket = parts.scheme in ("ws", "wss")
    if not host or port == 0 or parts.query or parts.fragment or (parts.path.strip("/") and not over_websocket):
        raise misshapen
    if not (parts.path.isascii() and parts.path.isprintable()) or " " in parts.path:
        raise ConfigurationError("broker: a path other than of ASCII characters and without spaces is percent-encoded")
    tls = parts.scheme in ("mqtts", "wss")
    if not tls and not allow_insecure and not _is_loopback(host):
        raise ConfigurationError(
            f"broker: {parts.scheme}:// to {host} would send the token unencrypted; "
            f"use {'wss' if over_websocket else 'mqtts'}://, or allow_insecure=True"
        )
    if over_websocket:
        _check_websocket_extra()
    return Address(host, port or _PORTS[parts.scheme], tls, (parts.path or "/") if over_websocket else None)


def _check_websocket_extra() -> None:
    try:
        import wsproto  # noqa: F401 - whether it is there
    except ImportError:
        raise ConfigurationError(
            "broker: ws:// and wss:// need the extra: pip install 'mqtt-token-client[websocket]'"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_context(context: ssl.SSLContext, *, allow_insecure: bool = False) -> ssl.SSLContext:
    """A TLS context that verifies, at least TLS 1.2.

    Raises:
        ConfigurationError: it does not, and ``allow_insecure`` is not given.
    """
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError(
            "tls: an ssl.SSLContext, such as ssl.create_default_context(cafile='plant-ca.pem'), "
            f"not {type(context).__name__}"
        )
    if not allow_insecure:
        if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
            raise ConfigurationError("tls: the context does not verify the broker; do so, or allow_insecure=True")
        if context.minimum_version < ssl.TLSVersion.TLSv1_2:
            context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def open_transport(
    address: Address,
    context: ssl.SSLContext | None,
    proxy: str | None,
    headers: Mapping[str, str] | None = None,
    *,
    keepalive: int = 60,
    session: ssl.SSLSession | None = None,
) -> socket.socket:
    """A connected socket that does not block, past its TLS and its WebSocket handshake.

    Args:
        headers: of the WebSocket upgrade, with the token; without, it is in CONNECT.
        keepalive: MQTT's, in seconds: the operating system gives a dead connection up in about that time too. With 0 it
            does what it does by default.
        session: the TLS session of an earlier connection to the same address by the same context, to be resumed: that
            saves both sides the certificates. A server that does not take it back does without.

    Raises:
        BrokerUnreachable: no connection; it may be there later.
        BrokerRefused: the token in the headers was refused; the reason code is that of MQTT for it.
        CertificateRejected: the broker's certificate is not trusted or names another host.
        ConfigurationError: something else than a broker answers at the WebSocket's URL.
        ProtocolError: what answers there does not speak HTTP.
    """
    deadline = monotonic() + _TIMEOUT
    sock = _connect(address, proxy)
    try:
        _set_options(sock, keepalive)
        if context is not None:
            sock.settimeout(_left(deadline))
            sock = context.wrap_socket(sock, server_hostname=address.host, session=session)
        if address.path is not None:
            return _over_websocket(sock, address, headers or {}, deadline)
        sock.setblocking(False)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        trouble = BrokerUnreachable if error.verify_code in _MATTERS_OF_TIME else CertificateRejected
        raise trouble(f"{address}: its certificate was not accepted: {error.verify_message}") from None
    except ssl.SSLError as error:
        sock.close()
        if session is None:
            raise BrokerUnreachable(f"{address}: no TLS connection: {_text(error)}") from None
    except OSError as error:
        sock.close()
        layer = "WebSocket" if isinstance(sock, ssl.SSLSocket) or context is None else "TLS"
        raise BrokerUnreachable(f"{address}: no {layer} connection: {_text(error)}") from None
    except BaseException:
        sock.close()
        raise
    else:
        return sock
    return open_transport(address, context, proxy, headers, keepalive=keepalive)  # it may be because of the session


def _left(deadline: float) -> float:
    return max(0.001, deadline - monotonic())


def _set_options(sock: socket.socket, keepalive: int) -> None:
    """Small packets go out at once, and a connection whose other end has gone without a word is given up."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not keepalive:
        return
    seconds = min(max(keepalive, _SHORTEST_KEEPALIVE), _LONGEST_KEEPALIVE)
    for name, value in (
        ("TCP_KEEPIDLE", seconds),
        ("TCP_KEEPINTVL", seconds // 3),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", seconds * 1000),  # for what was sent and is not acknowledged (RFC 5482)
    ):
        if hasattr(socket, name):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _over_websocket(
    sock: socket.socket, address: Address, headers: Mapping[str, str], deadline: float
) -> socket.socket:
    from .websocket import upgrade

    standard = address.port == _PORTS["wss" if address.tls else "ws"]
    host = address.authority.rpartition(":")[0] if standard else address.authority
    websocket = upgrade(sock, host, address.path or "/", headers, deadline, str(address))
    return cast("socket.socket", websocket)  # as far as a connection uses one


def _connect(address: Address, proxy: str | None) -> socket.socket:
    try:
        if proxy is None:
            return happy_eyeballs.connect(address.host, address.port, _TIMEOUT)
        return _through(proxy, address)
    except OSError as error:
        raise BrokerUnreachable(f"{address}: no connection: {_text(error)}") from None


def _through(proxy: str, address: Address) -> socket.socket:
    from python_socks import ProxyError
    from python_socks.sync import Proxy

    try:
        return Proxy.from_url(proxy).connect(address.host, address.port, timeout=_TIMEOUT)
    except ProxyError as error:
        raise BrokerUnreachable(f"{address}: the proxy gave no connection: {error}") from None


def check_proxy(proxy: str) -> str:
    """A proxy's URL: ``http://``, ``socks5://`` or ``socks4://``, with user and password if need be.

    Raises:
        ConfigurationError: it is no such URL, or the ``proxy`` extra is not installed.
    """
    try:
        from python_socks.sync import Proxy
    except ImportError:
        raise ConfigurationError("proxy: needs the extra: pip install 'mqtt-token-client[proxy]'") from None
    try:
        Proxy.from_url(proxy)
    except (TypeError, ValueError, AttributeError):
        raise ConfigurationError("proxy: a URL such as socks5://host:1080 or http://host:3128") from None
    return proxy


def _text(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
