"""Credentials for a broker, and the protocol of the profiles that make them of a token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value

MAX_LENGTH = 65_535  # MQTT 5 section 1.5: a string or binary field has a two-byte length
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+( [\x21-\x7e]+)*")  # RFC 9110 section 5.5, without obs-text


class Credentials(Value):
    """What a client presents to the broker, and the token that it was made of.

    Attributes:
        username: the user name in CONNECT; None sends none.
        password: the password in CONNECT; None sends none. It needs a user name, which may be empty: MQTT 3.1.1 does
            not allow a password without one (section 3.1.2.9).
        token: the token.
        auth_method: the Authentication Method of MQTT 5 (section 4.12).
        auth_data: its Authentication Data, which re-authentication sends too.
        headers: HTTP headers of the WebSocket upgrade.

    Raises:
        ConfigurationError: MQTT or HTTP does not allow a value, or a password has no user name.
    """

    username: str | None
    password: bytes | None
    token: Token
    auth_method: str | None = None
    auth_data: bytes | None = None
    headers: Mapping[str, str] = MappingProxyType({})

    _hidden = ("username", "password", "auth_data", "headers")  # some brokers expect the token in the user name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._fields()[:-1], dict(self.headers))

    def __post_init__(self) -> None:
        if self.password is not None and self.username is None:
            raise ConfigurationError('profile: a password needs a user name; give "" if the broker expects none')
        check_length("the user name", _utf8("the user name", self.username))
        check_length("the password", self.password)
        check_length("the Authentication Method", _utf8("the Authentication Method", self.auth_method))
        check_length("the Authentication Data", self.auth_data)
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigurationError(
                    f"profile: the token contains characters that the HTTP header {name!r} does not allow (RFC 9110)"
                )


def check_length(name: str, data: bytes | None, limit: int = MAX_LENGTH, holder: str = "MQTT") -> None:
    """Check that a field is not longer than MQTT, or a broker, accepts.

    Raises:
        ConfigurationError: it is longer.
    """
    if data is not None and len(data) > limit:
        raise ConfigurationError(
            f"profile: {name} has {len(data)} bytes, {holder} accepts at most {limit}; use a token with fewer claims"
        )


def _utf8(name: str, text: str | None) -> bytes | None:
    try:
        data = None if text is None else text.encode()
    except UnicodeEncodeError:
        data = b"\0"
    if data is not None and b"\0" in data:  # MQTT 5 section 1.5.4
        raise ConfigurationError(f"profile: {name} contains a character that MQTT does not allow")
    return data


class Profile(Protocol):
    """Makes the credentials of a token that one kind of broker expects.

    A profile may have three more attributes. ``alpn`` is a tuple of the protocols that the TLS context of the client
    offers (RFC 7301), if the user gave no context. ``largest_connect`` is the greatest size of a CONNECT, in bytes,
    that the broker accepts. ``check(protocol, client_id, brokers)`` is called once, when the client is created, with 4
    or 5, the client identifier, and the brokers' URLs, each with its port; it raises ConfigurationError if this broker
    would reject them.
    """

    def place(self, token: Token, client_id: str) -> Credentials:
        """Make the credentials of a token.

        Raises:
            ConfigurationError: it is not possible with this token.
        """
        ...


def check_profile(profile: Profile, protocol: int, client_id: str, brokers: Sequence[str]) -> tuple[str, ...]:
    """Let a profile check the arguments of a client; returns the ALPN protocols that it needs.

    Raises:
        ConfigurationError: the broker would reject them.
    """
    check = getattr(profile, "check", None)
    if check is not None:
        check(protocol, client_id, brokers)
    return tuple(getattr(profile, "alpn", ()))


def check_strings(profile: object, *names: str) -> None:
    """Check that attributes are strings or None.

    Raises:
        ConfigurationError: one is not.
    """
    for name in names:
        value = getattr(profile, name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} must be a string, got {type(value).__name__}")
