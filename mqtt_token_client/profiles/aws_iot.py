"""AWS IoT Core with a custom authorizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote, urlencode, urlsplit

from ..errors import ConfigurationError
from ..token import Token
from .credentials import Credentials, check_length, check_strings

_AUTHORIZER = re.compile(r"[\w=,@-]{1,128}", re.ASCII)
_LONGEST_TOKEN = 6_144  # bytes


@dataclass(frozen=True, slots=True)
class AwsIot:
    """The token goes to a Lambda function, as password or in a query string behind the user name.

    https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth.html: port 443 with the ALPN protocol ``mqtt``.
    The limits are those of TestInvokeAuthorizer: the authorizer's name has 128 characters at most, a token in the query
    string 6,144 bytes.

    Args:
        authorizer: the authorizer's name.
        token_key: its token key name: the token is in the query string under this name. None: it is the password.
        signature: makes the base64 signature that the authorizer checks, if its signing is not disabled, of the
            token's value; it needs a ``token_key``. It is called on a worker thread.
        username: the user name before the query string.

    Raises:
        ConfigurationError: an argument is wrong, or does not go with another.
    """

    authorizer: str
    token_key: str | None = None
    signature: Callable[[str], str] | None = None
    username: str | None = None

    alpn: ClassVar[tuple[str, ...]] = ("mqtt",)

    def __post_init__(self) -> None:
        if not isinstance(self.authorizer, str) or not _AUTHORIZER.fullmatch(self.authorizer):
            raise ConfigurationError(f"authorizer: the name of a custom authorizer, not {self.authorizer!r}")
        check_strings(self, "token_key", "username")
        if "?" in (self.username or ""):
            raise ConfigurationError("username: what follows a ? is the query string, which is made here")
        if self.token_key == "":
            raise ConfigurationError("token_key: the token key name of the authorizer, or None")
        if self.signature is not None and (self.token_key is None or not callable(self.signature)):
            raise ConfigurationError("signature: a function of the token's value, which needs a token_key")

    def check(self, protocol: int, client_id: str, brokers: Sequence[str]) -> None:  # noqa: ARG002 - every profile's
        for broker in brokers:
            parts = urlsplit(broker)
            if (parts.scheme, parts.port) != ("mqtts", 443):
                raise ConfigurationError(
                    f"broker: AWS IoT asks a custom authorizer on port 443; give mqtts://{parts.hostname}:443"
                )

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - every profile's
        query, password = {"x-amz-customauthorizer-name": self.authorizer}, None
        if self.token_key is None:
            password = token.value.encode()
        else:
            check_length("the token", token.value.encode(), _LONGEST_TOKEN, "AWS IoT")
            if self.signature is not None:
                query["x-amz-customauthorizer-signature"] = self.signature(token.value)
            query[self.token_key] = token.value
        return Credentials(f"{self.username or ''}?{urlencode(query, safe='', quote_via=quote)}", password, token)
