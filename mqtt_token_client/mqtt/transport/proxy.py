"""A TCP connection through a proxy: HTTP CONNECT (RFC 9110 section 9.3.6), SOCKS5 (RFC 1928, RFC 1929) or SOCKS4.

The proxy resolves the broker's name, except with SOCKS4. One deadline holds for all of it,
however slowly the bytes come.
"""

from __future__ import annotations

import base64
import socket
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from ...clock import monotonic
from ...errors import BrokerUnreachable, ConfigurationError
from ...value import Value, hidden
from . import happy_eyeballs

_LONGEST_HEAD = 16_384  # bytes of a proxy's HTTP answer
_SOCKS5_ERRORS = {  # RFC 1928 section 6
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
}


class ProxyError(Exception):
    """The proxy does not lead to the broker."""


class _Proxy(Value):
    scheme: str
    host: str
    port: int
    user: str
    password: str

    _hidden = ("user", "password")


def check_proxy(proxy: str) -> str:
    """A proxy's URL: ``http://``, ``socks5://`` or ``socks4://`` with a port, and perhaps with user and password.

    Raises:
        ConfigurationError: it is not such a URL.
    """
    _parse(proxy)
    return proxy


def connect(proxy: str, host: str, port: int, timeout: float, broker: str) -> tuple[socket.socket, float]:
    """A socket that is connected to a host through a proxy, and when ``timeout`` is over, by
    :func:`~mqtt_token_client.clock.monotonic`. It blocks, until then at most.

    Args:
        proxy: its URL.
        timeout: seconds, to which the time of the resolver is added.
        broker: the broker's URL, for errors.

    Raises:
        BrokerUnreachable: the proxy cannot be reached, or does not lead to the host.
    """
    where = _parse(proxy)
    try:
        sock, deadline = happy_eyeballs.connect(where.host, where.port, timeout)
    except OSError as error:
        raise BrokerUnreachable(
            f"{broker}: no connection: the proxy {where.host}:{where.port} [{error.strerror or error}]"
        ) from None
    stream = _Stream(sock, deadline)
    try:
        _ASK[where.scheme](stream, where, host, port)
    except TimeoutError:
        problem = "no connection: the proxy timed out"
    except (OSError, ProxyError) as error:
        problem = f"the proxy gave no connection: {error}"
    except BaseException:
        sock.close()
        raise
    else:
        return sock, stream.deadline
    happy_eyeballs.avoid(happy_eyeballs.peer(sock))
    sock.close()
    raise BrokerUnreachable(f"{broker}: {problem}")


def _parse(proxy: str) -> _Proxy:
    proxy = hidden(proxy)
    parsed = _read(proxy)
    if isinstance(parsed, str):  # raised here, where no variable shows the password
        raise ConfigurationError(f"proxy must {parsed}")
    return parsed


def _read(proxy: object) -> _Proxy | str:
    """Return the parts of a proxy's URL, or what it must be instead."""
    shape = "be a URL such as socks5://host:1080 or http://host:3128"
    if not isinstance(proxy, str):
        return shape
    try:
        parts = urlsplit(proxy)
        host, port = parts.hostname, parts.port
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        return shape
    if parts.scheme not in _ASK or not host or not port:
        return shape
    if max(len(user.encode()), len(password.encode())) > 255 and parts.scheme == "socks5":  # RFC 1929 section 2
        return "have a user name and a password of at most 255 bytes each"
    return _Proxy(parts.scheme, host, port, user, password)


class _Stream:
    """Bytes from and to the proxy, all of them until one deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self.deadline = deadline

    def write(self, data: bytes) -> None:
        self._sock.settimeout(self._left())
        self._sock.sendall(data)

    def read(self, count: int) -> bytes:
        """So many bytes; and no more, as the next may be the broker's."""
        data = b""
        while len(data) < count:
            self._sock.settimeout(self._left())
            piece = self._sock.recv(count - len(data))
            if not piece:
                raise ProxyError("it closed the connection")
            data += piece
        return data

    def _left(self) -> float:
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _ask_http(stream: _Stream, proxy: _Proxy, host: str, port: int) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host.encode('idna').decode()}:{port}"
    credentials = ""
    if proxy.user or proxy.password:
        basic = hidden(base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode())
        credentials = hidden(f"Proxy-Authorization: Basic {basic}\r\n")
    stream.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n".encode())
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        if len(head) > _LONGEST_HEAD:
            raise ProxyError("its answer is too long")
        head += stream.read(1)
    version, _, status = head.split(b"\r\n", 1)[0].partition(b" ")
    code = status[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit():
        raise ProxyError("its answer is not valid HTTP")
    if not code.startswith(b"2"):
        raise ProxyError(f"HTTP {code.decode()}")


def _ask_socks5(stream: _Stream, proxy: _Proxy, host: str, port: int) -> None:
    by_password = bool(proxy.user or proxy.password)
    stream.write(b"\x05\x02\x00\x02" if by_password else b"\x05\x01\x00")
    version, method = stream.read(2)
    if version != 5 or method not in (0, 2 if by_password else 0):
        raise ProxyError("it accepts no authentication method of ours" if version == 5 else "it does not speak SOCKS5")
    if method == 2:
        user, password = hidden(proxy.user.encode()), hidden(proxy.password.encode())
        stream.write(b"\x01" + bytes((len(user),)) + user + bytes((len(password),)) + password)
        if stream.read(2)[1]:
            raise ProxyError("it rejected the user name and password")
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("idna")
        destination = bytes((3, len(name))) + name
    else:
        destination = (b"\x01" if address.version == 4 else b"\x04") + address.packed
    stream.write(b"\x05\x01\x00" + destination + port.to_bytes(2))
    version, code, _, kind = stream.read(4)
    if version != 5 or code:
        raise ProxyError(_SOCKS5_ERRORS.get(code, f"SOCKS5 error {code}"))
    length = {1: 4, 4: 16}.get(kind) or stream.read(1)[0]
    stream.read(length + 2)  # the address and port at its other side


def _ask_socks4(stream: _Stream, proxy: _Proxy, host: str, port: int) -> None:
    began = monotonic()
    address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]  # SOCKS4 knows no names
    stream.deadline += monotonic() - began
    stream.write(b"\x04\x01" + port.to_bytes(2) + socket.inet_aton(str(address)) + proxy.user.encode() + b"\0")
    version, code, *_ = stream.read(8)
    if version or code != 90:
        raise ProxyError(f"SOCKS4 error {code}")


_ASK = {"http": _ask_http, "socks5": _ask_socks5, "socks4": _ask_socks4}
