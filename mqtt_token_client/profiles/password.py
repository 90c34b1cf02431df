"""Brokers that take a token as password or as user name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..token import Token
from .credentials import Credentials, check_length, check_strings

_LARGEST_CONNECT = 65_536  # bytes, by default
_BESIDE = 1_024  # bytes of a CONNECT for its header, its properties and a will that is not large
_DEVICE_PATH = re.compile(r"projects/[^/]+/locations/[^/]+/registries/[^/]+/devices/[^/]+")
_LONGEST_LIFE = 86_400  # seconds


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
            raise ConfigurationError("username: give it or username_claim, not both")
        check_strings(self, "username", "username_claim")

    def place(self, token: Token, client_id: str) -> Credentials:
        return Credentials(self._username_for(token, client_id), token.value.encode(), token)

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


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """The token is the password, and the user name chooses the virtual host (RabbitMQ, Amazon MQ for it, LavinMQ).

    https://www.rabbitmq.com/docs/mqtt: ``vhost:user``, split at the last colon, and a CONNECT of at most 65,536 bytes
    (``mqtt.max_packet_size_unauthenticated``), beyond which the connection is closed without an answer.

    Args:
        vhost: the virtual host; None leaves the choice to the broker's configuration (``mqtt.vhost``).
        username: the user name, which counts for nothing but the log; by default the client id.

    Raises:
        ConfigurationError: one is no string, or the user name has a colon.
    """

    vhost: str | None = None
    username: str | None = None

    def __post_init__(self) -> None:
        check_strings(self, "vhost", "username")
        if ":" in (self.username or ""):
            raise ConfigurationError(
                "username: RabbitMQ takes what stands before a colon for the virtual host; give vhost"
            )

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - every profile's
        if self.username is None and ":" in client_id:
            raise ConfigurationError(
                "profile: RabbitMQ would take what stands before the colon in the client id, which is the user name, "
                "for a virtual host; give username"
            )

    def place(self, token: Token, client_id: str) -> Credentials:
        username = client_id if self.username is None else self.username
        if self.vhost is not None:
            username = f"{self.vhost}:{username}"
        password = token.value.encode()
        room = _LARGEST_CONNECT - _BESIDE - len(username.encode()) - len(client_id.encode())
        check_length("the token", password, room, "RabbitMQ's CONNECT")
        return Credentials(username, password, token)


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


@dataclass(frozen=True, slots=True)
class Solace:
    """The token is the password, behind the name of the broker's OAuth profile: ``OAUTH~profile~token``.

    https://docs.solace.com/Security/Configuring-OAuth-Authorization.htm

    Args:
        profile: the OAuth profile's name in the message VPN.
        username: the user name; by default the client id. It counts only where ``mqttUsernameValidateEnabled`` is set.

    Raises:
        ConfigurationError: the profile has no name or one with a tilde, or the user name is no string.
    """

    profile: str
    username: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.profile, str) or not self.profile or "~" in self.profile:
            raise ConfigurationError(f"profile: the name of an OAuth profile, without ~, not {self.profile!r}")
        check_strings(self, "username")

    def place(self, token: Token, client_id: str) -> Credentials:
        username = client_id if self.username is None else self.username
        return Credentials(username, f"OAUTH~{self.profile}~{token.value}".encode(), token)


@dataclass(frozen=True, slots=True)
class ClearBlade:
    """The token, which the device signs itself (:class:`SignedJWT`), is the password (ClearBlade IoT Core).

    https://clearblade.atlassian.net/wiki/spaces/IC/pages/2202206402: ``aud`` is the project, and 24 hours is the
    longest life. The user name is ignored.
    """

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - every profile's
        if not _DEVICE_PATH.fullmatch(client_id):
            raise ConfigurationError(
                "client_id: ClearBlade wants projects/PROJECT/locations/REGION/registries/REGISTRY/devices/DEVICE, "
                f"not {client_id[:80]!r}"
            )

    def place(self, token: Token, client_id: str) -> Credentials:
        if not token.lifetime <= _LONGEST_LIFE:
            raise ConfigurationError("profile: ClearBlade takes a JWT whose iat and exp are 24 hours apart at most")
        project = client_id.split("/")[1]
        if token.claims.get("aud") != project:
            raise ConfigurationError(f"profile: the token's claim aud has to be the project, {project!r}")
        return Credentials("unused", token.value.encode(), token)
