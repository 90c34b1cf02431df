"""The device authorization grant (RFC 8628): logins that wait for a person, and devices that ask for the outcome."""

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

_SLOWER = 5.0  # seconds that slow_down adds to the interval (section 3.5)


@dataclass
class DeviceLogin:
    """A device that waits for a person's word. To Authlib it is what was issued to the device, and that person too
    (``authlib.oauth2.rfc8628.DeviceCredentialMixin``).

    Attributes:
        ends: when its codes end, as a reading of :func:`~mqtt_token_client.clock.monotonic`.
        approved: the person's word; None while there is none.
        subject: the person.
    """

    client_id: str
    scope: str
    user_code: str
    ends: float
    interval: float
    approved: bool | None = None
    subject: str = ""
    polled: float = -math.inf

    def get_client_id(self) -> str:
        return self.client_id

    def get_user_id(self) -> str:
        return self.subject

    @property
    def over(self) -> bool:
        return monotonic() >= self.ends


class DeviceLogins:
    """The logins that have begun.

    Args:
        lifetime: seconds until the codes of a login end.
        interval: seconds that a device has to wait from one poll to the next.
    """

    def __init__(self, lifetime: float, interval: float) -> None:
        self.lifetime = lifetime
        self.interval = interval
        self._logins: dict[str, DeviceLogin] = {}  # by device code
        self._lock = threading.RLock()

    def begin(self, client_id: str, scope: str, device_code: str, user_code: str) -> None:
        with self._lock:
            ends = monotonic() + self.lifetime
            self._logins[device_code] = DeviceLogin(client_id, scope, user_code, ends, self.interval)

    def of_device(self, device_code: str) -> DeviceLogin | None:
        return self._logins.get(device_code)

    def waiting(self, user_code: str) -> DeviceLogin | None:
        """The login that waits for a person with that code, however it is typed (section 6.1)."""
        with self._lock:
            for login in self._logins.values():
                if login.approved is None and not login.over and _letters(login.user_code) == _letters(user_code):
                    return login
        return None

    def decide(self, user_code: str, *, approved: bool, subject: str) -> bool:
        """Give a person's word; returns whether a login waited for it."""
        with self._lock:
            login = self.waiting(user_code)
            if login is None:
                return False
            login.subject = subject
            login.approved = approved
            return True

    def polled(self, login: DeviceLogin) -> bool:
        """Note a poll; returns whether it came too early, for which the interval grows."""
        with self._lock:
            now = monotonic()
            early = now < login.polled + login.interval
            login.polled = now
            login.interval += _SLOWER if early else 0.0
            return early

    def redeem(self, device_code: str) -> bool:
        """End a login for a token; returns whether nobody has done so before."""
        return self._logins.pop(device_code, None) is not None


def _letters(code: str) -> str:
    return "".join(character for character in code.upper() if character.isalnum())


# What Authlib makes of them. ``server.device_logins`` is a DeviceLogins, ``server.refresh_tokens`` a RefreshTokens.


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
        if login.over:
            raise ExpiredTokenError
        if login.approved is False:
            raise AccessDeniedError
        if login.approved:
            return login
        raise SlowDownError if self.server.device_logins.polled(login) else AuthorizationPendingError

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        # Authlib's own writes the token into its debug log, and would do this for one device code again and again.
        login: DeviceLogin = self.request.credential
        token = self.generate_token(user=login, scope=login.scope, include_refresh_token=False)
        if not self.server.device_logins.redeem(self.request.payload.data["device_code"]):
            raise InvalidGrantError
        refresh_token = self.server.refresh_tokens.issue(login.client_id, login.subject, login.scope)
        return 200, {**token, "refresh_token": refresh_token}, self.TOKEN_RESPONSE_HEADER
