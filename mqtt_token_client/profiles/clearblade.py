"""ClearBlade IoT Core, which takes a JWT that the device has signed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..token import Token
from .credentials import Credentials

_DEVICE_PATH = re.compile(r"projects/[^/]+/locations/[^/]+/registries/[^/]+/devices/[^/]+")
_LONGEST_LIFE = 86_400  # seconds


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
