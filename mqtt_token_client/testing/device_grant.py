"""The device authorization grant (RFC 8628): pending logins, and devices that poll for their outcome."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import AccessDeniedError, InvalidGrantError
from authlib.oauth2.rfc8628 import (
    AuthorizationPendingError,
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    ExpiredTokenError,
    SlowDownError,
)

from ..clock import monotonic

_SLOW_DOWN = 5.0  # seconds that slow_down adds to the interval (section 3.5)


@dataclass
class DeviceLogin:
    """A device that waits for a person's decision. For Authlib it is the credential of the device, and that person too
    (``authlib.oauth2.rfc8628.DeviceCredentialMixin``).

    Attributes:
        expiry: when its codes expire, as a reading of :func:`~mqtt_token_client.clock.monotonic`.
        approved: the person's decision; None while there is none.
        subject: the person.
    """

    client_id: str
    scope: str
    user_code: str
    expiry: float
    interval: float
    approved: bool | None = None
    subject: str = ""
    polled: float = -math.inf

    def get_client_id(self) -> str:
        return self.client_id

    def get_user_id(self) -> str:
        return self.subject

    @property
    def expired(self) -> bool:
        """Whether its codes have expired."""
        return monotonic() >= self.expiry


class DeviceLogins:
    """The logins that were started.

    Args:
        lifetime: seconds until the codes of a login expire.
        interval: seconds that a device must wait between polls.
    """

    def __init__(self, lifetime: float, interval: float) -> None:
        self.lifetime = lifetime
        self.interval = interval
        self._logins: dict[str, DeviceLogin] = {}  # by device code
        self._lock = threading.RLock()

    def begin(self, client_id: str, scope: str, device_code: str, user_code: str) -> None:
        """Start a login."""
        with self._lock:
            expiry = monotonic() + self.lifetime
            self._logins[device_code] = DeviceLogin(client_id, scope, user_code, expiry, self.interval)

    def of_device(self, device_code: str) -> DeviceLogin | None:
        """Return the login of a device code."""
        return self._logins.get(device_code)

    def waiting(self, user_code: str) -> DeviceLogin | None:
        """Return the login that waits for a decision, by its user code, however it is typed (section 6.1)."""
        with self._lock:
            for login in self._logins.values():
                if login.approved is None and not login.expired and _letters(login.user_code) == _letters(user_code):
                    return login
        return None

    def decide(self, user_code: str, *, approved: bool, subject: str) -> bool:
        """Record a person's decision; returns whether a login waited for it."""
        with self._lock:
            login = self.waiting(user_code)
            if login is None:
                return False
            login.subject = subject
            login.approved = approved
            return True

    def polled(self, login: DeviceLogin) -> bool:
        """Record a poll; returns whether it came too early, which makes the interval longer."""
        with self._lock:
            now = monotonic()
            early = now < login.polled + login.interval
            login.polled = now
            login.interval += _SLOW_DOWN if early else 0.0
            return early

    def redeem(self, device_code: str) -> bool:
        """Use up a device code for a token; returns False if it was used before."""
        return self._logins.pop(device_code, None) is not None


def _letters(code: str) -> str:
    return "".join(character for character in code.upper() if character.isalnum())


# The classes for Authlib. ``server.device_logins`` is a DeviceLogins, ``server.refresh_tokens`` a RefreshTokens.


class DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]  # Authlib has no types
    """The device authorization endpoint (section 3.1), for a public client."""

    CLIENT_AUTH_METHODS = ("none",)

    def __init__(self, server: Any, verification_uri: str) -> None:
        super().__init__(server)
        self.EXPIRES_IN = server.device_logins.lifetime
        self.INTERVAL = server.device_logins.interval
        self._verification_uri = verification_uri

    def get_verification_uri(self) -> str:
        return self._verification_uri

    def save_device_credential(self, client_id: str, scope: str | None, data: dict[str, Any]) -> None:
        self.server.device_logins.begin(client_id, scope or "", data["device_code"], data["user_code"])


class DeviceCode(DeviceCodeGrant):  # type: ignore[misc]  # Authlib has no types
    """The device's polls at the token endpoint (sections 3.4 and 3.5)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def query_device_credential(self, device_code: str) -> DeviceLogin:
        login: DeviceLogin | None = self.server.device_logins.of_device(device_code)
        if login is None:  # never issued, or used
            raise InvalidGrantError
        return login

    def validate_device_credential(self, login: DeviceLogin) -> DeviceLogin:
        if login.expired:
            raise ExpiredTokenError
        if login.approved is False:
            raise AccessDeniedError
        if login.approved:
            return login
        raise SlowDownError if self.server.device_logins.polled(login) else AuthorizationPendingError

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        # Authlib's own method writes the token to its debug log, and accepts a device code more than once.
        login: DeviceLogin = self.request.credential
        token = self.generate_token(user=login, scope=login.scope, include_refresh_token=False)
        if not self.server.device_logins.redeem(self.request.payload.data["device_code"]):
            raise InvalidGrantError
        refresh_token = self.server.refresh_tokens.issue(login.client_id, login.subject, login.scope)
        return 200, {**token, "refresh_token": refresh_token}, self.TOKEN_RESPONSE_HEADER
