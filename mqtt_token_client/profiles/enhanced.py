"""Brokers that expect the token in the enhanced authentication of MQTT 5 (section 4.12)."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials, check_strings


class EventGrid(Value):
    """The token is the Authentication Data (Azure Event Grid, MQTT broker of a namespace).

    https://learn.microsoft.com/azure/event-grid/mqtt-client-microsoft-entra-token-and-rbac and mqtt-client-custom-jwt.
    A new token is presented on the same connection.

    Args:
        method: ``OAUTH2-JWT`` for a token of Microsoft Entra, ``CUSTOM-JWT`` for one of your own issuer.
        username: the client's authentication name, if the namespace has no alternative source for it
            (https://learn.microsoft.com/azure/event-grid/mqtt-support); None sends none.

    Raises:
        ConfigurationError: the method is unknown, or the user name is not a string.
    """

    method: str = "OAUTH2-JWT"
    username: str | None = None

    def __post_init__(self) -> None:
        if self.method not in ("OAUTH2-JWT", "CUSTOM-JWT"):
            raise ConfigurationError(f'method must be "OAUTH2-JWT" or "CUSTOM-JWT", got {self.method!r}')
        check_strings(self, "username")

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - as in Profile
        _check_protocol(protocol, "Event Grid")

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - as in Profile
        return Credentials(self.username, None, token, self.method, token.value.encode())


class IoTOperations(Value):
    """The token of a Kubernetes service account is the Authentication Data (Azure IoT Operations, method K8S-SAT).

    https://learn.microsoft.com/azure/iot-operations/manage-mqtt-broker/howto-configure-authentication. A new token
    is presented on the same connection. :class:`TokenFile` reads it from the pod's projected volume.
    """

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - as in Profile
        _check_protocol(protocol, "Azure IoT Operations")

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - as in Profile
        return Credentials(None, None, token, "K8S-SAT", token.value.encode())


def _check_protocol(protocol: int, broker: str) -> None:
    if protocol != 5:
        raise ConfigurationError(f"protocol must be 5, as {broker} accepts a token in MQTT 5 only")
