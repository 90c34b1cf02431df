"""Client authentication at the authorization server (RFC 6749 section 2.3)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote_plus

from ...clock import ServerClock
from ...errors import ConfigurationError, TokenError
from ...value import Value, hidden

if TYPE_CHECKING:
    from pathlib import Path


class TokenRequest:
    """A request to the authorization server that is about to be sent, for its client authentication to complete.

    Attributes:
        client_id: the client that sends it.
        url: where it is sent; a client certificate may need another (``mtls_endpoint_aliases``, RFC 8705 section 5).
        metadata: the server's metadata (RFC 8414); without discovery only its endpoints.
        clock: the server's time of day, for the times in an assertion.
        form: the fields of the body.
        headers: HTTP headers to add to the usual ones.
        certificate: paths of a client certificate and its key, for TLS.
        timed: whether it contains a time by ``clock``, so that the server may reject it because of that.
        secrets: secrets that must not appear in a message if the server echoes them; the values in ``form`` need not
            be added.
    """

    def __init__(
        self,
        client_id: str,
        url: str,
        metadata: Mapping[str, Any],
        clock: ServerClock,
        form: list[tuple[str, str]],
    ) -> None:
        self.client_id = client_id
        self.url = url
        self.metadata = metadata
        self.clock = clock
        self.form = form
        self.headers: dict[str, str] = {}
        self.certificate: tuple[str, str] | None = None
        self.timed = False
        self.secrets: list[str] = []

    def __repr__(self) -> str:
        return f"TokenRequest(client_id={self.client_id!r}, url={self.url!r})"


class ClientAuthentication(Protocol):
    """Authenticates a client. Called for each attempt again, on any thread."""

    def authenticate(self, request: TokenRequest) -> None:
        """Complete the request: its form, its headers, its certificate.

        Raises:
            TokenError: it is not possible now; ``permanent`` says whether trying again may help.
        """
        ...


def read_secret(client_secret: object) -> str:
    """Return a client secret: the argument itself, or the content of the file if it is a ``pathlib.Path``.

    Raises:
        TokenError: the file cannot be read now, or contains no secret.
        ConfigurationError: the argument is something else.
    """
    client_secret = hidden(client_secret)
    if not isinstance(client_secret, os.PathLike):
        # A common mistake is a line end, of a file that was read whole.
        if not isinstance(client_secret, str) or not client_secret or not client_secret.isprintable():
            raise ConfigurationError("client_secret must be a string of printable characters, without a line end")
        return client_secret
    from ...private_files import read_small  # few secrets are in a file

    path = os.fspath(client_secret)
    try:
        secret: str = hidden(read_small(path).decode().rstrip("\r\n"))
    except OSError as error:
        raise TokenError(f"client_secret: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        secret = ""
    if not secret or not secret.isprintable():
        raise TokenError(f"client_secret: {path} must contain one line of printable characters")
    return secret


def check_secret(client_secret: object) -> str:
    """Return a client secret, for the constructor of a client authentication.

    Raises:
        ConfigurationError: there is none, or every user can read its file.
    """
    client_secret = hidden(client_secret)
    try:
        secret = read_secret(client_secret)
    except TokenError as error:
        raise ConfigurationError(str(error)) from None
    if isinstance(client_secret, os.PathLike):
        from ...private_files import check_private  # few secrets are in a file

        check_private("client_secret", client_secret)
    return secret


class _ClientSecret(Value):
    client_secret: str | Path

    _hidden = ("client_secret",)

    def __post_init__(self) -> None:
        check_secret(self.client_secret)


class ClientSecretBasic(_ClientSecret):
    """The client secret in the Authorization header, form-encoded (RFC 6749 section 2.3.1).

    Args:
        client_secret: the secret that the server shares with the client; or the path of a file that contains it, as a
            ``pathlib.Path``, which is read for each request, so that it may be replaced while the device runs.

    Raises:
        ConfigurationError: it is empty, or not a string of printable characters; or its file cannot be read, or every
            user can read it.
    """

    def authenticate(self, request: TokenRequest) -> None:
        secret = read_secret(self.client_secret)
        credentials = hidden(b64encode(f"{quote_plus(request.client_id)}:{quote_plus(secret)}".encode()).decode())
        request.headers["Authorization"] = hidden(f"Basic {credentials}")
        request.secrets += [secret, credentials]


class ClientSecretPost(_ClientSecret):
    """The client secret as a field of the body (RFC 6749 section 2.3.1), for servers that do not accept Basic.

    Args:
        client_secret: the secret that the server shares with the client; or the path of a file that contains it, as a
            ``pathlib.Path``, which is read for each request, so that it may be replaced while the device runs.

    Raises:
        ConfigurationError: it is empty, or not a string of printable characters; or its file cannot be read, or every
            user can read it.
    """

    def authenticate(self, request: TokenRequest) -> None:
        request.form += [("client_id", request.client_id), ("client_secret", read_secret(self.client_secret))]


class ClientSecret(_ClientSecret):
    """The client secret in the way that the server supports: Basic, unless it supports the body and not Basic
    (``token_endpoint_auth_methods_supported``, RFC 8414 section 2).

    Args:
        client_secret: the secret that the server shares with the client; or the path of a file that contains it, as a
            ``pathlib.Path``, which is read for each request, so that it may be replaced while the device runs.

    Raises:
        ConfigurationError: it is empty, or not a string of printable characters; or its file cannot be read, or every
            user can read it.
    """

    def authenticate(self, request: TokenRequest) -> None:
        methods = request.metadata.get("token_endpoint_auth_methods_supported")
        post = isinstance(methods, list) and "client_secret_post" in methods and "client_secret_basic" not in methods
        (ClientSecretPost if post else ClientSecretBasic)(read_secret(self.client_secret)).authenticate(request)


class PublicClient(Value):
    """No client authentication: the client sends its identifier only (``none`` in RFC 7591 section 2), as is usual in
    the device flow.
    """

    def authenticate(self, request: TokenRequest) -> None:
        request.form.append(("client_id", request.client_id))
