"""Opens a connection to the broker, ready for CONNECT: TCP, perhaps through a proxy, TLS, WebSocket. It blocks."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import cast

from ...errors import BrokerUnreachable
from . import happy_eyeballs
from .address import Address
from .tcp import set_options
from .tls import SessionRejectedError, handshake

_TIMEOUT = 15.0  # seconds for all of it but the resolver's part


def open_transport(
    address: Address,
    context: ssl.SSLContext | None,
    proxy: str | None,
    headers: Mapping[str, str] | None = None,
    *,
    keepalive: int = 45,
    session: ssl.SSLSession | None = None,
) -> socket.socket:
    """A connected socket that does not block, past its TLS and its WebSocket handshake.

    Args:
        address: the broker's.
        context: for TLS; None without.
        proxy: the URL of a proxy.
        headers: of the WebSocket upgrade, with the token; without any, the token is in CONNECT.
        keepalive: MQTT's, in seconds: the operating system gives up a dead connection in about that time too. 0 leaves
            its own default.
        session: the TLS session of an earlier connection to the same address by the same context, to be resumed: that
            saves both sides the certificates. A server that has forgotten it makes a full handshake.

    Raises:
        BrokerUnreachable: there is no connection; it may work later.
        BrokerRefused: the token in the headers was rejected; the reason code is that of MQTT for it.
        CertificateRejected: the broker's certificate is not trusted or names another host.
        ConfigurationError: something other than a broker answers at the WebSocket's URL.
        ProtocolError: what answers there does not speak HTTP.
    """
    try:
        return _open(address, context, proxy, headers or {}, keepalive, session)
    except SessionRejectedError:
        return _open(address, context, proxy, headers or {}, keepalive, None)


def _open(
    address: Address,
    context: ssl.SSLContext | None,
    proxy: str | None,
    headers: Mapping[str, str],
    keepalive: int,
    session: ssl.SSLSession | None,
) -> socket.socket:
    sock, deadline = _connect(address, proxy)
    peer = happy_eyeballs.peer(sock)
    try:
        set_options(sock, keepalive)
        if context is not None:
            sock = handshake(sock, context, address.host, deadline, str(address), session)
        if address.path is not None:
            from .websocket_upgrade import upgrade

            websocket = upgrade(sock, address.host_header, address.path, headers, deadline, str(address))
            return cast("socket.socket", websocket)  # as far as a connection uses one
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        happy_eyeballs.avoid(peer)
        layer = "TCP" if address.path is None else "WebSocket"
        raise BrokerUnreachable(f"{address}: no {layer} connection: {_text(error)}") from None
    except BaseException as error:
        sock.close()
        if isinstance(error, BrokerUnreachable):
            happy_eyeballs.avoid(peer)
        raise
    return sock


def _connect(address: Address, proxy: str | None) -> tuple[socket.socket, float]:
    """A connected socket, and until when the rest is to be done."""
    if proxy is not None:
        from .proxy import connect

        return connect(proxy, address.host, address.port, _TIMEOUT, str(address))
    try:
        return happy_eyeballs.connect(address.host, address.port, _TIMEOUT)
    except OSError as error:
        raise BrokerUnreachable(f"{address}: no connection: {_text(error)}") from None


def _text(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
