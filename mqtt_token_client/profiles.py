"""How a broker wants a token in CONNECT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from .errors import ConfigurationError
from .token import Token

_LONGEST = 65_535  # MQTT 5 section 1.5: a string or binary field has a two-byte length


@dataclass(frozen=True, slots=True)
class Credentials:
    """What CONNECT carries to prove who the client is, and the token that it was made of."""

    username: str
    password: bytes = field(repr=False)
    token: Token


class Profile(Protocol):
    """Places a token in CONNECT."""

    def place(self, token: Token, client_id: str) -> Credentials:
        """The credentials made of a token.

        Raises:
            ConfigurationError: the token cannot be placed this way.
        """
        ...


@dataclass(frozen=True, slots=True)
class Password:
    """The token is the MQTT password (EMQX, HiveMQ, RabbitMQ, VerneMQ, Mosquitto's plugins, LavinMQ, TBMQ).

    Args:
        username: the user name to send with it. By default it is the client id: MQTT 3.1.1 allows no password
            without a user name (section 3.1.2.9), and RabbitMQ refuses a CONNECT without one.
        username_claim: the claim of the token to send as user name instead, such as ``sub``.

    Raises:
        ConfigurationError: both are given, or one is no string.
    """

    username: str | None = None
    username_claim: str | None = None

    def __post_init__(self) -> None:
        if self.username is not None and self.username_claim is not None:
            raise ConfigurationError("profile: give username or username_claim, not both")
        for name, value in (("username", self.username), ("username_claim", self.username_claim)):
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"profile: {name} is a string, not {type(value).__name__}")

    def place(self, token: Token, client_id: str) -> Credentials:
        password = token.value.encode()
        if len(password) > _LONGEST:
            raise ConfigurationError(
                f"profile: the token has {len(password)} bytes, an MQTT password holds {_LONGEST}; ask for fewer claims"
            )
        return Credentials(self._username_for(token, client_id), password, token)

    def _username_for(self, token: Token, client_id: str) -> str:
        if self.username_claim is None:
            return client_id if self.username is None else self.username
        claim = token.claims.get(self.username_claim)
        if not isinstance(claim, str):
            raise ConfigurationError(
                f"profile: the token has no claim {self.username_claim!r} that is a string; "
                "choose another username_claim, or a fixed username"
            )
        return claim


def open_profile(profile: str | Profile) -> Profile:
    """The profile of a name (``password``), or the profile itself.

    Raises:
        ConfigurationError: there is no profile of that name.
    """
    if isinstance(profile, str):
        if profile != "password":
            raise ConfigurationError(f"profile: {profile!r} is not known; use 'password' or a Profile")
        return Password()
    if not callable(getattr(profile, "place", None)):
        raise ConfigurationError("profile: 'password', or an object with place(token, client_id)")
    return profile
