"""An open connection to the broker, ready for CONNECT: TCP, TLS, and a proxy in between. It blocks."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..errors import BrokerUnreachable, CertificateRejected, ConfigurationError

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_TIMEOUT = 10.0  # seconds for TCP, and again for TLS

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: a device whose clock has not been set yet
# sees these, and they pass when it is.
_MATTERS_OF_TIME = (9, 10)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_broker(url: str, *, allow_insecure: bool = False) -> Address:
    """The address in a broker's URL.

    Raises:
        ConfigurationError: it is no such URL, or plain MQTT to another machine without ``allow_insecure``.
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
        raise ConfigurationError(f"broker: the URL begins with mqtts:// or mqtt://, not {parts.scheme or 'nothing'}://")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("broker: no user name or password in the URL; the token is the password")
    if not host or port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
        raise misshapen
    if parts.scheme == "mqtt" and not allow_insecure and not _is_loopback(host):
        raise ConfigurationError(
            f"broker: mqtt:// to {host} would send the token unencrypted; use mqtts://, or allow_insecure=True"
        )
    return Address(host, port or _PORTS[parts.scheme], parts.scheme == "mqtts")


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


def dial(address: Address, context: ssl.SSLContext | None, proxy: str | None) -> socket.socket:
    """A connected socket that does not block, past its TLS handshake.

    Raises:
        BrokerUnreachable: no connection; it may be there later.
        CertificateRejected: the broker's certificate is not trusted or names another host.
    """
    sock = _connect(address, proxy)
    try:
        sock.settimeout(_TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=address.host)
        sock.setblocking(False)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        trouble = BrokerUnreachable if error.verify_code in _MATTERS_OF_TIME else CertificateRejected
        raise trouble(f"{address}: its certificate was not accepted: {error.verify_message}") from None
    except OSError as error:
        sock.close()
        raise BrokerUnreachable(f"{address}: no TLS connection: {_text(error)}") from None
    return sock


def _connect(address: Address, proxy: str | None) -> socket.socket:
    try:
        if proxy is None:
            return socket.create_connection((address.host, address.port), timeout=_TIMEOUT)
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
