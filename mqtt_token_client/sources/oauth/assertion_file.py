"""ClientAssertionFile: client authentication by a JWT that the platform issues and keeps in a file."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import ConfigurationError, TokenError
from ...private_files import open_regular
from .client_auth import TokenRequest

_MAX_SIZE = 1 << 16  # bytes


class ClientAssertionFile:
    """A client assertion that another program renews (RFC 7523 section 2.2): a service-account token of Kubernetes, or
    the federated token of Azure's workload identity (``AZURE_FEDERATED_TOKEN_FILE``).

    Args:
        path: of the file. It is read for each request, so an assertion that is renewed while the device runs is used
            from then on.

    Raises:
        ConfigurationError: there is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ConfigurationError(f"path must be the path of a file, got {type(path).__name__}")
        if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file() raises for some names
            # The path is not shown: it may be the assertion itself.
            raise ConfigurationError("path must be the path of a file; there is no such file")
        self._path = os.fspath(path)

    def authenticate(self, request: TokenRequest) -> None:
        """Add the assertion to the form.

        Raises:
            TokenError: the file cannot be read now, or contains something else.
        """
        request.form += [
            ("client_id", request.client_id),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", self._read()),
        ]

    def _read(self) -> str:
        try:
            with open_regular(self._path) as file:
                content = file.read(_MAX_SIZE + 1)
        except OSError as error:
            raise TokenError(f"client_auth: {self._path}: {error.strerror}") from None
        assertion = content.decode(errors="replace").strip()
        readable = len(content) <= _MAX_SIZE and assertion.isascii() and assertion.isprintable()
        if not readable or assertion.count(".") != 2:
            raise TokenError(f"client_auth: {self._path} must contain a JWT")
        return assertion

    def __repr__(self) -> str:
        return f"ClientAssertionFile({self._path!r})"
