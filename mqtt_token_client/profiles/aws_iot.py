"""AWS IoT Core with a custom authorizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import ClassVar
from urllib.parse import quote, urlencode, urlsplit

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials, check_length, check_strings

_AUTHORIZER = re.compile(r"[\w=,@-]{1,128}", re.ASCII)
_MAX_TOKEN = 6_144  # bytes


class AwsIot(Value):
    """The token is passed to a Lambda function, as the password or in a query string after the user name.

    https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth.html: port 443 with the ALPN protocol ``mqtt``.
    The limits are those of TestInvokeAuthorizer: 128 characters for the authorizer's name, 6,144 bytes for a token in
    the query string.

    Args:
        authorizer: the authorizer's name.
        token_key: its token key name, under which the token is in the query string. None: the token is the password.
        signature: a function of the token's value that returns the base64 signature which the authorizer verifies,
            unless its signing is disabled; it needs a ``token_key``. It is called on a worker thread.
        username: the user name before the query string.

    Raises:
        ConfigurationError: an argument is wrong, or cannot be combined with another.
    """

    authorizer: str
    token_key: str | None = None
    signature: Callable[[str], str] | None = None
    username: str | None = None

    alpn: ClassVar[tuple[str, ...]] = ("mqtt",)

    def __post_init__(self) -> None:
        if not isinstance(self.authorizer, str) or not _AUTHORIZER.fullmatch(self.authorizer):
            raise ConfigurationError(f"authorizer must be the name of a custom authorizer, got {self.authorizer!r}")
        check_strings(self, "token_key", "username")
        if "?" in (self.username or ""):
            raise ConfigurationError("username must not contain a ?, after which the query string is added")
        if self.token_key == "":
            raise ConfigurationError("token_key must be the token key name of the authorizer, or None")
        if self.signature is not None and (self.token_key is None or not callable(self.signature)):
            raise ConfigurationError("signature must be a function of the token's value, and needs a token_key")

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - as in Profile
        for broker in brokers:
            parts = urlsplit(broker)
            if (parts.scheme, parts.port) != ("mqtts", 443):
                raise ConfigurationError(
                    f"broker: AWS IoT has custom authorizers on port 443 only; give mqtts://{parts.hostname}:443"
                )

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - as in Profile
        query, password = {"x-amz-customauthorizer-name": self.authorizer}, None
        if self.token_key is None:
            password = token.value.encode()
        else:
            check_length("the token", token.value.encode(), _MAX_TOKEN, "AWS IoT")
            if self.signature is not None:
                query["x-amz-customauthorizer-signature"] = self.signature(token.value)
            query[self.token_key] = token.value
        return Credentials(f"{self.username or ''}?{urlencode(query, safe='', quote_via=quote)}", password, token)
