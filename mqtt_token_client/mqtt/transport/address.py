"""Where brokers are, the URLs that say so, and which of several to connect to."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from ...clock import monotonic
from ...errors import ConfigurationError
from ...loopback import is_loopback
from ...value import Value

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_AVOIDED = 60.0  # seconds after a failure in which a broker is used only if all the others have failed as well


class Address(Value):
    """Where a broker is.

    Attributes:
        host: a name or an IP address.
        port: its TCP port.
        tls: whether it speaks TLS.
        path: the path of its WebSocket, or None if it speaks MQTT without one.
    """

    host: str
    port: int
    tls: bool
    path: str | None = None

    @property
    def authority(self) -> str:
        """Host and port, as a URL writes them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The Host header of HTTP: without a port that is the standard one (RFC 9110 section 7.2)."""
        standard = self.port == _PORTS["wss" if self.tls else "ws"]
        return self.authority.rpartition(":")[0] if standard else self.authority

    def __str__(self) -> str:
        scheme = "mqtt" if self.path is None else "ws"
        return f"{scheme}{'s' if self.tls else ''}://{self.authority}{self.path or ''}"


class Brokers:
    """The addresses of one client, in the order of its preference.

    Attributes:
        current: the one to connect to. It stays the same, also after a loss, until it fails.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._avoided_until: dict[Address, float] = {}
        self._put_off_until: dict[Address, float] = {}
        self._failures: dict[Address, bool] = {}  # since one accepted the client: whether only a person can fix it
        self._failed_in_round: set[Address] = set()
        self.current = addresses[0]

    @property
    def hopeless(self) -> bool:
        """Whether every broker has failed, and only a person can fix each of the causes."""
        return len(self._failures) == len(set(self._addresses)) and all(self._failures.values())

    def accepted(self) -> Address:
        """Report that the current broker accepted the client; return which one it is."""
        self._failures.clear()
        self._failed_in_round.clear()
        self._put_off_until.pop(self.current, None)
        return self.current

    def put_off(self, seconds: float) -> None:
        """Report that the current broker asked for no attempt for so many seconds."""
        self._put_off_until[self.current] = monotonic() + seconds

    @property
    def wait(self) -> float:
        """The seconds until the current broker may be tried."""
        return max(0.0, self._put_off_until.get(self.current, 0.0) - monotonic())

    def failed(self, *, permanent: bool) -> bool:
        """Report that the current broker cannot be reached or rejected the client, and whether only a person can fix
        the cause. The next is the first that is not avoided, or else the one that has been avoided for the longest
        time. Return whether it has its turn for the first time since every one had one.
        """
        now = monotonic()
        self._failures[self.current] = permanent
        self._failed_in_round.add(self.current)
        self._avoided_until[self.current] = now + max(_AVOIDED, self.wait)
        self.current = min(self._addresses, key=lambda address: max(now, self._avoided_until.get(address, now)))
        if self.current not in self._failed_in_round:
            return True
        self._failed_in_round.clear()
        return False


def parse_broker(url: str, *, allow_insecure: bool = False) -> Address:
    """The address in a broker's URL.

    Args:
        url: such as ``mqtts://broker.example.com``.
        allow_insecure: whether plain MQTT may go to another machine.

    Raises:
        ConfigurationError: it is not such a URL, or leads to another machine without TLS and without
            ``allow_insecure``; or it is that of a WebSocket, and the ``websocket`` extra is not installed.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"broker must be a URL such as 'mqtts://broker.example.com', got {type(url).__name__}")
    parts, host, port = _split(url)
    websocket = parts.scheme in ("ws", "wss")
    tls = parts.scheme in ("mqtts", "wss")
    if not tls and not allow_insecure and not is_loopback(host):
        raise ConfigurationError(
            f"broker: {parts.scheme}:// to {host} would send the token unencrypted; "
            f"use {'wss' if websocket else 'mqtts'}://, or allow_insecure=True"
        )
    if websocket:
        _check_websocket_extra()
    return Address(host, port or _PORTS[parts.scheme], tls, _path(parts) if websocket else None)


def _split(url: str) -> tuple[SplitResult, str, int | None]:
    """The parts of a broker's URL, its host, and its port if there is one."""
    misshapen = ConfigurationError(
        "broker must be a URL of a host and perhaps a port from 1 to 65535, such as mqtts://broker.example.com:8883"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as the resolver will do
    except ValueError:
        raise misshapen from None
    if parts.scheme not in _PORTS:
        got = f"{parts.scheme}://" if parts.scheme else "a URL without a scheme"
        raise ConfigurationError(f"broker must begin with mqtts://, wss://, mqtt:// or ws://, got {got}")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("broker must not hold a user name or password; the token is the password")
    if not host or port == 0 or parts.query or parts.fragment:
        raise misshapen
    if parts.path.strip("/") and parts.scheme not in ("ws", "wss"):
        raise misshapen
    return parts, host, port


def _path(parts: SplitResult) -> str:
    if not (parts.path.isascii() and parts.path.isprintable()) or " " in parts.path:
        raise ConfigurationError(
            "broker must have a path of ASCII characters without spaces; percent-encode the others"
        )
    return parts.path or "/"


def _check_websocket_extra() -> None:
    try:
        import wsproto  # noqa: F401 - whether it is there
    except ImportError:
        raise ConfigurationError(
            "broker: ws:// and wss:// need the extra: pip install 'mqtt-token-client[websocket]'"
        ) from None
