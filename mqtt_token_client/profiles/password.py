"""Brokers that expect the token as the password."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials, check_strings


class Password(Value):
    """The token is the MQTT password (EMQX, HiveMQ, RabbitMQ, VerneMQ, Mosquitto's plugins, LavinMQ, TBMQ).

    Args:
        username: the user name to send with it; by default the client id. MQTT 3.1.1 does not allow a password without
            a user name (section 3.1.2.9), and RabbitMQ rejects a CONNECT without one.
        username_claim: the claim of the token to send as the user name instead, such as ``sub``.

    Raises:
        ConfigurationError: both are given, or one is not a string.
    """

    username: str | None = None
    username_claim: str | None = None

    def __post_init__(self) -> None:
        if self.username is not None and self.username_claim is not None:
            raise ConfigurationError("username cannot be combined with username_claim")
        check_strings(self, "username", "username_claim")

    def place(self, token: Token, client_id: str) -> Credentials:
        return Credentials(self._username_for(token, client_id), token.value.encode(), token)

    def _username_for(self, token: Token, client_id: str) -> str:
        if self.username_claim is None:
            return client_id if self.username is None else self.username
        claim = token.claims.get(self.username_claim)
        if not isinstance(claim, str):
            raise ConfigurationError(
                f"profile: the token's claim {self.username_claim!r} must be a string; "
                "choose another username_claim, or a fixed username"
            )
        return claim
