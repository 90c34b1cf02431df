"""What proves to a broker who a client is, and the protocol of what makes it of a token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import ConfigurationError
from ..token import Token

LONGEST = 65_535  # MQTT 5 section 1.5: a string or binary field has a two-byte length
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+( [\x21-\x7e]+)*")  # RFC 9110 section 5.5, without obs-text


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves to the broker who the client is, and the token that it was made of.

    Attributes:
        username: the user name in CONNECT; None sends none.
        password: the password in CONNECT; None sends none. It needs a user name, if an empty one: MQTT 3.1.1 allows
            none without (section 3.1.2.9), and paho sends none.
        auth_method: Authentication Method of MQTT 5 (section 4.12).
        auth_data: Authentication Data that goes with it; re-authentication sends it too.
        headers: HTTP headers of the WebSocket upgrade.

    Raises:
        ConfigurationError: MQTT or HTTP cannot carry them, or a password has no user name.
    """

    username: str | None = field(repr=False)  # some brokers take the token there
    password: bytes | None = field(repr=False)
    token: Token
    auth_method: str | None = None
    auth_data: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.password is not None and self.username is None:
            raise ConfigurationError('profile: a password needs a user name; give "" if the broker wants none')
        check_length("the user name", _utf8("the user name", self.username))
        check_length("the password", self.password)
        check_length("the Authentication Method", _utf8("the Authentication Method", self.auth_method))
        check_length("the Authentication Data", self.auth_data)
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigurationError(f"profile: the token cannot go into the HTTP header {name!r} (RFC 9110)")


def check_length(name: str, data: bytes | None, limit: int = LONGEST, holder: str = "MQTT") -> None:
    """Refuse what is longer than a broker, or MQTT, takes.

    Raises:
        ConfigurationError: it is.
    """
    if data is not None and len(data) > limit:
        raise ConfigurationError(
            f"profile: {name} has {len(data)} bytes, {holder} takes {limit} at most; ask for a token with fewer claims"
        )


def _utf8(name: str, text: str | None) -> bytes | None:
    try:
        data = None if text is None else text.encode()
    except UnicodeEncodeError:
        data = b"\0"
    if data is not None and b"\0" in data:  # MQTT 5 section 1.5.4
        raise ConfigurationError(f"profile: {name} has a character that MQTT does not allow")
    return data


class Profile(Protocol):
    """Places a token in CONNECT, as one kind of broker wants it.

    Three attributes more are used where a profile has them. ``alpn`` is a tuple of the protocols that the TLS context
    of the client offers (RFC 7301), if the user gave no context. ``largest_connect`` is how many bytes of a CONNECT the
    broker takes. ``check(protocol, client_id, brokers)`` is called once,
    when the client is made, with 4 or 5, the client identifier, and the brokers' URLs, each with its port; it raises
    ConfigurationError if this broker would refuse them.
    """

    def place(self, token: Token, client_id: str) -> Credentials:
        """The credentials made of a token.

        Raises:
            ConfigurationError: the token cannot be placed this way.
        """
        ...


def check_profile(profile: Profile, protocol: int, client_id: str, brokers: Sequence[str]) -> tuple[str, ...]:
    """Have a profile check what a client was made with; returns the ALPN protocols that it needs.

    Raises:
        ConfigurationError: the broker would refuse it.
    """
    check = getattr(profile, "check", None)
    if check is not None:
        check(protocol, client_id, brokers)
    return tuple(getattr(profile, "alpn", ()))


def check_strings(profile: object, *names: str) -> None:
    """Refuse attributes that are neither a string nor None.

    Raises:
        ConfigurationError: one is.
    """
    for name in names:
        value = getattr(profile, name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name}: a string, not {type(value).__name__}")
