"""Client authentication by a TLS client certificate (RFC 8705)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ...errors import ConfigurationError, InvalidTokenResponse, TokenError
from ...logs import get_logger
from ...private_files import check_private
from ...tls_files import check_path, load_client_certificate
from .client_auth import TokenRequest
from .http import url_problem

_log = get_logger("mqtt_token_client.sources")


class MutualTLS:
    """A client certificate (``tls_client_auth``, or ``self_signed_tls_client_auth`` if it is registered at the server).

    If the server's metadata has another URL for requests with a certificate (``mtls_endpoint_aliases``, RFC 8705
    section 5), they are sent there.

    Args:
        certificate: path of a PEM file with the certificate and its intermediate certificates. It is read for each
            request: a certificate that is renewed while the device runs is used from then on. While the files cannot be
            used, because one is half written or does not belong to the other, the last good ones are used on Linux; a
            warning says so.
        key: path of the PEM file with its private key, without a passphrase.

    Raises:
        ConfigurationError: a file cannot be read now, the key does not belong to the certificate, or every user can
            read the key.
    """

    def __init__(self, certificate: str | Path, key: str | Path) -> None:
        check_path("certificate", certificate)
        check_path("key", key)
        check_private("key", key)
        self._certificate = str(certificate)
        self._key = str(key)
        self._kept: _Copy | None = None  # of the last good files
        self._reported: str | None = None
        if problem := self._problem():
            raise ConfigurationError(problem)
        self._keep()

    def authenticate(self, request: TokenRequest) -> None:
        """Add the certificate to the request, and the URL where the server accepts one.

        Raises:
            TokenError: the files cannot be read now, or do not match, as while they are being renewed; and there is no
                copy of the last good ones.
            InvalidTokenResponse: the server's URL for this is not an https URL.
            ConfigurationError: the server has no URL for this, and its usual one is not https.
        """
        problem = self._problem()
        if problem is None:
            self._keep()
            files = self._certificate, self._key
        elif self._kept is not None:
            files = self._kept.path, self._kept.path
        else:
            raise TokenError(problem)
        if problem is not None and problem != self._reported:
            _log.warning("%s; the last good ones are used", problem)
        self._reported = problem
        request.url = _alias(request)
        request.certificate = files
        request.form.append(("client_id", request.client_id))  # RFC 8705 section 2: the certificate may not contain it

    def _problem(self) -> str | None:
        """Say what is wrong with the files; None if nothing is."""
        return load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self._certificate, self._key)

    def _keep(self) -> None:
        """Copy the files, as they can be used."""
        try:
            copy = _Copy(self._certificate, self._key)
        except (OSError, AttributeError):  # AttributeError: this is not Linux
            return
        if load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), copy.path, copy.path) is None:
            self._kept = copy


class _Copy:
    """A copy of files in a file in memory: requests takes nothing but paths, and a key is not to be on a second disk.

    Raises:
        OSError: a file cannot be read, or there is no memory or file descriptor left.
    """

    def __init__(self, *paths: str) -> None:
        self._file = os.memfd_create("client-certificate")
        for path in paths:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib takes a while to load
                while os.sendfile(self._file, file.fileno(), None, 65_536):
                    """The key does not become an object that a traceback could show."""
            os.write(self._file, b"\n")

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self._file}"

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # a number of this process means nothing in another


def _alias(request: TokenRequest) -> str:
    """Return the URL for a request with a certificate."""
    aliases = request.metadata.get("mtls_endpoint_aliases")
    for name, url in request.metadata.items():
        if url == request.url and isinstance(aliases, Mapping) and name in aliases:
            alias = aliases[name]
            problem = url_problem(alias, allow_insecure=False)
            if problem is None and not _is_https(alias):  # not even on this machine
                problem = "must be an https URL"
            if problem:
                raise InvalidTokenResponse(f"mtls_endpoint_aliases.{name} in the server's metadata {problem}")
            return str(alias)
    if not _is_https(request.url):
        raise ConfigurationError("client_auth: a certificate needs an https URL, and this server's is http")
    return request.url


def _is_https(url: str) -> bool:
    return urlsplit(url).scheme == "https"
