"""Brokers that expect the token as the user name."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials


class Username(Value):
    """The token is the user name (Ably, flespi, mosquitto-go-auth).

    https://ably.com/docs/protocols/mqtt, https://github.com/iegomez/mosquitto-go-auth (JWT). Brokers log user names, so
    treat their logs as secret.

    Args:
        password: the password; mosquitto-go-auth accepts any text.

    Raises:
        ConfigurationError: the password is not a string.
    """

    password: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.password, str):
            raise ConfigurationError(f"password must be a string, got {type(self.password).__name__}")

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - as in Profile
        return Credentials(token.value, self.password.encode(), token)
