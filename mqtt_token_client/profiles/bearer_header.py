"""Brokers behind a gateway that takes a token in the HTTP request of the WebSocket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..token import Token
from .credentials import Credentials


@dataclass(frozen=True, slots=True)
class BearerHeader:
    """The token is in a header of the WebSocket upgrade: ``Authorization: Bearer …`` (RFC 6750 section 2.1).

    CONNECT carries neither user name nor password. Gateways take some 8 kB of headers; none says so in MQTT.

    Args:
        header: the header's name.

    Raises:
        ConfigurationError: it is no string, or empty.
    """

    header: str = "Authorization"

    def __post_init__(self) -> None:
        if not isinstance(self.header, str) or not self.header:
            raise ConfigurationError(f"header: the name of an HTTP header, not {self.header!r}")

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - every profile's
        for broker in brokers:
            if not broker.startswith(("wss://", "ws://")):
                raise ConfigurationError(f"broker: only a WebSocket has HTTP headers; give wss://, not {broker}")

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - every profile's
        return Credentials(None, None, token, headers={self.header: f"Bearer {token.value}"})
