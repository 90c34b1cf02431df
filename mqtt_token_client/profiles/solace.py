"""Solace, which expects the token as the password, after the name of an OAuth profile."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials, check_strings


class Solace(Value):
    """The token is the password, after the name of the broker's OAuth profile: ``OAUTH~profile~token``.

    https://docs.solace.com/Security/Configuring-OAuth-Authorization.htm

    Args:
        profile: the OAuth profile's name in the message VPN.
        username: the user name; by default the client id. It matters only if ``mqttUsernameValidateEnabled`` is set.

    Raises:
        ConfigurationError: the profile's name is empty or contains a tilde, or the user name is not a string.
    """

    profile: str
    username: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.profile, str) or not self.profile or "~" in self.profile:
            raise ConfigurationError(f"profile must be the name of an OAuth profile, without ~, got {self.profile!r}")
        check_strings(self, "username")

    def place(self, token: Token, client_id: str) -> Credentials:
        username = client_id if self.username is None else self.username
        return Credentials(username, f"OAUTH~{self.profile}~{token.value}".encode(), token)
