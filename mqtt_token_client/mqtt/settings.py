"""How one client connects, and the CONNECT that says so."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any, Protocol

from ..backoff import Backoff
from ..profiles import Credentials
from ..token import Token
from .dial import Address
from .engine import Engine
from .messages import Will


class CredentialsSource(Protocol):
    """Where the credentials for CONNECT come from."""

    def credentials(self, refused: Token | None) -> Credentials:
        """Credentials made of a valid token other than ``refused``. It may block: never on the network thread."""
        ...

    def retry_in(self) -> float:
        """After a TokenError: seconds until it makes sense to ask again."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What stays the same for all connections of a client."""

    brokers: tuple[Address, ...]
    client_id: str
    protocol: int
    keepalive: int
    session_expiry: int
    clean_start: bool
    will: Will | None
    context: ssl.SSLContext | None
    proxy: str | None
    backoff: Backoff

    @property
    def takeover_fires_will(self) -> bool:
        """Whether a broker may publish the will when a second connection takes the session over [MQTT-3.1.4-3]."""
        if self.will is None:
            return False
        return not (self.protocol == 5 and self.will.delay and self.session_expiry)

    def engine(self, *, first: bool) -> Engine:
        """The engine of a new connection; ``first`` while the broker has accepted none."""
        return Engine(self.client_id, self.protocol, clean=self.session_expiry == 0 or (self.clean_start and first))

    def connect(self, engine: Engine, credentials: Credentials) -> bytes:
        """The CONNECT packet with these credentials."""
        will = None
        if self.will is not None:
            about: dict[str, Any] = dict(self.will.properties or {})
            if self.will.delay:
                about["will_delay_interval"] = self.will.delay
            will = (self.will.topic, self.will.payload, self.will.qos, self.will.retain, about)
        properties: dict[str, Any] = {"session_expiry_interval": self.session_expiry}
        if credentials.auth_method is not None:
            properties["authentication_method"] = credentials.auth_method
            if credentials.auth_data is not None:
                properties["authentication_data"] = credentials.auth_data
        return engine.connect(
            credentials.username, credentials.password, keepalive=self.keepalive, properties=properties, will=will
        )
