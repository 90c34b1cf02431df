"""Brokers that take a token as the user name."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError
from ..token import Token
from .credentials import Credentials


@dataclass(frozen=True, slots=True)
class Username:
    """The token is the user name (Ably, flespi, mosquitto-go-auth).

    https://ably.com/docs/protocols/mqtt, https://github.com/iegomez/mosquitto-go-auth (JWT). Brokers write user names
    into their logs: treat those as secret.

    Args:
        password: what goes with it; mosquitto-go-auth's document has any text here.

    Raises:
        ConfigurationError: it is no string.
    """

    password: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.password, str):
            raise ConfigurationError(f"password: a string, not {type(self.password).__name__}")

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - every profile's
        return Credentials(token.value, self.password.encode(), token)
