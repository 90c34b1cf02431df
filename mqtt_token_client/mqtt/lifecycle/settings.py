"""Settings: how one client connects, the same for all its connections."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ...backoff import Backoff
from ...errors import ConfigurationError
from ...profiles import Credentials, PlacingFunction, Profile, check_profile, open_profile
from ...token import Token
from ...value import Value, hidden
from ..codec.packets import LARGEST_PACKET_SIZE, SMALLEST_PACKET_SIZE
from ..transport.address import Address, parse_broker

if TYPE_CHECKING:
    from ...tls_files import TlsFiles
    from ..codec.will import Will
    from ..transport.tls_context import TlsContext


class CredentialsSource(Protocol):
    """Makes the credentials for CONNECT and AUTH."""

    def credentials(self, refused: Token | None) -> Credentials:
        """Make credentials of a valid token other than ``refused``. Blocks: for a worker."""
        ...

    def rejection_hint(self, token: Token) -> str:
        """Say what the broker got that rejected this token, and what to check there."""
        ...

    def retry_in(self) -> float:
        """Seconds until it makes sense to ask again after a TokenError."""
        ...

    def take_turn(self, token: Token, begin: Callable[[], None]) -> Turn | None:
        """Call ``begin`` when the connection may move onto another token than ``token``, which it has. Returns the
        client's turn, to be ended when it has moved; None if it need not wait, and ``begin`` was not called.
        """
        ...


class Turn(Protocol):
    """When a client may move onto a new token, among those that share it."""

    def hurry(self) -> None:
        """Begin at once, if it has not begun."""

    def end(self) -> None:
        """The client has moved, or does not want to any more."""


class Settings(Value):
    """The arguments of a client that concern its connections, checked."""

    brokers: tuple[Address, ...]
    client_id: str
    protocol: int
    keepalive: int
    session_expiry: int
    clean_start: bool
    will: Will | None
    tls: TlsContext | None
    proxy: str | None
    profile: Profile
    backoff: Backoff
    max_packet_size: int  # bytes
    receive_maximum: int | None

    _hidden = ("proxy",)  # it may hold a password

    def takeover_fires_will(self, announced_expiry: int | None) -> bool:
        """Whether a broker may publish the will when a second connection takes the session over [MQTT-3.1.4-3].

        Args:
            announced_expiry: Session Expiry Interval that the broker uses instead (MQTT 5 section 3.2.2.3.2), if it
                announced one.
        """
        if self.will is None:
            return False
        session_expiry = self.session_expiry if announced_expiry is None else announced_expiry
        return not (self.protocol == 5 and self.will.delay and session_expiry)


def open_settings(
    broker: str | Sequence[str],
    *,
    client_id: str,
    profile: str | Profile | PlacingFunction,
    protocol: int,
    keepalive: int,
    session_expiry: int,
    clean_start: bool,
    will: Will | None,
    tls: ssl.SSLContext | TlsFiles | None,
    proxy: str | None,
    allow_insecure: bool,
    backoff: Backoff,
    max_packet_size: int,
    receive_maximum: int | None,
) -> Settings:
    """Check these arguments of a client.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    proxy = hidden(proxy)
    addresses = tuple(
        parse_broker(url, allow_insecure=allow_insecure)
        for url in (broker if isinstance(broker, Sequence) and not isinstance(broker, str) else [broker])
    )
    if not addresses:
        raise ConfigurationError("broker must have at least one URL")
    if protocol not in (4, 5):
        raise ConfigurationError(f"protocol must be 5, or 4 for MQTT 3.1.1, got {protocol!r}")
    if not isinstance(client_id, str) or not 0 < len(_encode_client_id(client_id)) <= 65_535 or "\0" in client_id:
        raise ConfigurationError(
            f"client_id must be a string of 1 to 65535 bytes without NUL, got {repr(client_id)[:80]}"
        )
    check_range("keepalive", keepalive, 0, 65_535)
    check_range("session_expiry", session_expiry, 0, 0xFFFFFFFF)
    if will is not None:
        _check_will(will, protocol)
    if not isinstance(clean_start, bool):
        raise ConfigurationError(f"clean_start must be True or False, got {clean_start!r}")
    if clean_start and protocol == 4 and session_expiry:  # Clean Session of 3.1.1 is for its whole connection
        raise ConfigurationError(
            "clean_start: needs protocol=5; in MQTT 3.1.1 connect once with session_expiry=0 before"
        )
    if not isinstance(backoff, Backoff):
        raise ConfigurationError(f"backoff must be a Backoff, got {type(backoff).__name__}")
    _check_what_is_received(max_packet_size, receive_maximum, protocol)
    placing = open_profile(profile)
    alpn = check_profile(placing, protocol, client_id, [str(address) for address in addresses])
    context = None
    if tls is not None or any(address.tls for address in addresses):
        from ..transport.tls_context import open_tls  # loaded only where it is needed

        context = open_tls(tls, alpn, allow_insecure=allow_insecure)
    return Settings(
        brokers=addresses,
        client_id=client_id,
        protocol=protocol,
        keepalive=keepalive,
        session_expiry=session_expiry,
        clean_start=clean_start,
        will=will,
        tls=context,
        proxy=None if proxy is None else _check_proxy(proxy),
        profile=placing,
        backoff=backoff,
        max_packet_size=max_packet_size,
        receive_maximum=receive_maximum,
    )


def _check_what_is_received(max_packet_size: int, receive_maximum: int | None, protocol: int) -> None:
    check_range("max_packet_size", max_packet_size, SMALLEST_PACKET_SIZE, LARGEST_PACKET_SIZE)
    if receive_maximum is not None:
        check_range("receive_maximum", receive_maximum, 1, 65_535)
        if protocol != 5:
            raise ConfigurationError("receive_maximum: it needs protocol=5, as MQTT 3.1.1 cannot limit the broker")


def _check_will(will: Will, protocol: int) -> None:
    from ..codec.will import Will  # few clients have one

    if not isinstance(will, Will):
        raise ConfigurationError(f"will must be a Will(topic, payload), got {type(will).__name__}")
    if protocol == 4 and (will.delay or will.properties):
        raise ConfigurationError(f"will: {'a delay needs' if will.delay else 'properties need'} protocol=5")


def _encode_client_id(client_id: str) -> bytes:
    try:
        return client_id.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("client_id cannot be encoded in UTF-8") from None


def check_range(name: str, value: int, lowest: int, highest: int) -> None:
    """Check a whole number between two others, both allowed.

    Raises:
        ConfigurationError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be a whole number from {lowest} to {highest}, got {value!r}")


def _check_proxy(proxy: str) -> str:
    from ..transport.proxy import check_proxy  # loaded only if there is one

    return check_proxy(proxy)
