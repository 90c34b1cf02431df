"""ClearBlade IoT Core, which expects a JWT that the device has signed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials

_DEVICE_PATH = re.compile(r"projects/[^/]+/locations/[^/]+/registries/[^/]+/devices/[^/]+")
_MAX_LIFETIME = 86_400  # seconds


class ClearBlade(Value):
    """The token, which the device signs itself (:class:`SignedJWT`), is the password (ClearBlade IoT Core).

    https://clearblade.atlassian.net/wiki/spaces/IC/pages/2202206402: ``aud`` is the project, and the
    lifetime is at most 24 hours. The user name is ignored.
    """

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - as in Profile
        if not _DEVICE_PATH.fullmatch(client_id):
            raise ConfigurationError(
                "client_id must be projects/PROJECT/locations/REGION/registries/REGISTRY/devices/DEVICE at ClearBlade, "
                f"got {client_id[:80]!r}"
            )

    def place(self, token: Token, client_id: str) -> Credentials:
        if not token.lifetime <= _MAX_LIFETIME:
            raise ConfigurationError("profile: ClearBlade accepts a JWT whose iat and exp are at most 24 hours apart")
        project = client_id.split("/")[1]
        if token.claims.get("aud") != project:
            raise ConfigurationError(f"profile: the token's claim aud must be the project, {project!r}")
        return Credentials("unused", token.value.encode(), token)
