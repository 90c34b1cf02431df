"""Brokers behind a gateway that expects the token in the HTTP request of the WebSocket."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value, hidden
from .credentials import Credentials


class BearerHeader(Value):
    """The token is in a header of the WebSocket upgrade: ``Authorization: Bearer …`` (RFC 6750 section 2.1).

    CONNECT has neither user name nor password. Gateways accept about 8 kB of headers.

    Args:
        header: the header's name.

    Raises:
        ConfigurationError: the header's name is empty or not a string.
    """

    header: str = "Authorization"

    def __post_init__(self) -> None:
        if not isinstance(self.header, str) or not self.header:
            raise ConfigurationError(f"header must be the name of an HTTP header, got {self.header!r}")

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - as in Profile
        for broker in brokers:
            if not broker.startswith(("wss://", "ws://")):
                raise ConfigurationError(
                    f"broker must be a wss:// URL, as only a WebSocket has HTTP headers, got {broker}"
                )

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - as in Profile
        return Credentials(None, None, token, headers={self.header: hidden(f"Bearer {token.value}")})
