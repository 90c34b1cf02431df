"""RabbitMQ and compatible brokers, where the user name selects the virtual host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials, check_strings


class RabbitMQ(Value):
    """The token is the password, and the user name selects the virtual host (RabbitMQ, Amazon MQ for it, LavinMQ).

    https://www.rabbitmq.com/docs/mqtt: ``vhost:user``, split at the last colon. The connection is closed without an
    answer if CONNECT has more than 65,536 bytes (``mqtt.max_packet_size_unauthenticated``).

    Args:
        vhost: the virtual host; None leaves the choice to the broker's configuration (``mqtt.vhost``).
        username: the user name, which is used for the log only; by default the client id.

    Raises:
        ConfigurationError: one is not a string, or the user name contains a colon.
    """

    vhost: str | None = None
    username: str | None = None

    largest_connect: ClassVar[int] = 65_536

    def __post_init__(self) -> None:
        check_strings(self, "vhost", "username")
        if ":" in (self.username or ""):
            raise ConfigurationError(
                "username must not contain a colon: RabbitMQ takes the part before it as the virtual host; give vhost"
            )

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - as in Profile
        if self.username is None and ":" in client_id:
            raise ConfigurationError(
                "profile: RabbitMQ would take the part before the colon in the client id, which is the user name by "
                "default, as a virtual host; give username"
            )

    def place(self, token: Token, client_id: str) -> Credentials:
        username = client_id if self.username is None else self.username
        if self.vhost is not None:
            username = f"{self.vhost}:{username}"
        return Credentials(username, token.value.encode(), token)
