"""The CONNECT of a client: its settings, and the credentials made of its token."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigurationError
from ...profiles import Credentials
from ...value import HiddenBytes
from ..codec.encode import Encoder
from ..transport.address import Address
from .settings import Settings


def connect_packet(
    encoder: Encoder, settings: Settings, credentials: Credentials, broker: Address, *, first: bool
) -> bytes:
    """CONNECT with these credentials.

    Args:
        encoder: of the connection that it is for.
        settings: those of the client.
        credentials: what the profile made of the token.
        broker: where it is sent.
        first: whether the broker has accepted no connection of this client yet, so that ``clean_start`` applies.

    Raises:
        ConfigurationError: the credentials cannot be sent to this broker.
    """
    if credentials.auth_method is not None and settings.protocol != 5:
        raise ConfigurationError("profile: an Authentication Method needs protocol=5")
    if credentials.headers and broker.path is None:
        raise ConfigurationError(f"profile: HTTP headers need a ws:// or wss:// URL, got {broker}")
    packet: bytes = HiddenBytes(
        encoder.connect(
            client_id=settings.client_id,
            clean=settings.session_expiry == 0 or (settings.clean_start and first),
            keepalive=settings.keepalive,
            username=credentials.username,
            password=credentials.password,
            will=settings.will,
            properties=_properties(settings, credentials),
        )
    )
    largest: int | None = getattr(settings.profile, "largest_connect", None)
    if largest is not None and len(packet) > largest:
        raise ConfigurationError(
            f"profile: CONNECT has {len(packet)} bytes, the broker accepts {largest}; ask for a token with fewer "
            "claims, or shorten the will"
        )
    return packet


def _properties(settings: Settings, credentials: Credentials) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "session_expiry_interval": settings.session_expiry,
        "maximum_packet_size": settings.max_packet_size,
    }
    if settings.receive_maximum is not None:
        properties["receive_maximum"] = settings.receive_maximum
    if credentials.auth_method is not None:
        properties["authentication_method"] = credentials.auth_method
        if credentials.auth_data is not None:
            properties["authentication_data"] = credentials.auth_data
    return properties
