"""TlsFiles: certificates and a key that an agent may renew while the device runs."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from .errors import ConfigurationError
from .value import Value

if TYPE_CHECKING:
    from .certificate_validity import Validity

_LONGEST_PEM = 65_536  # bytes in which the first certificate is looked for
_NO_PASSPHRASE = ""  # without one given, OpenSSL would ask for it on the terminal


class TlsFiles(Value):
    """TLS to the broker by PEM files, which are read again when they have changed.

    Renewed files are used from the next connection on, and a connection that is up is moved onto them by itself, within
    half a minute. Files that cannot be used, such as one that is half written, change nothing; the event
    :class:`TlsFilesFailed` reports them.

    Args:
        ca_bundle: path of the certificates to trust; by default the system's.
        certificate: path of a client certificate with its intermediate certificates; by default there is none.
        key: path of its private key, without a passphrase; by default it is in the file of the certificate.

    Raises:
        ConfigurationError: a file cannot be read now, the key does not belong to the certificate, or every user can
            read the key.
    """

    ca_bundle: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ConfigurationError("key needs a certificate")
        for name in ("ca_bundle", "certificate", "key"):
            if getattr(self, name) is not None:
                check_path(name, getattr(self, name))
        if self.certificate is not None:
            from .private_files import check_private  # few clients have a certificate

            check_private("certificate" if self.key is None else "key", self.key or self.certificate)
        self._load_client_certificate(
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if self.ca_bundle is None else self._trusting()
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that were given."""
        return tuple(os.fspath(path) for path in (self.ca_bundle, self.certificate, self.key) if path is not None)

    def context(self) -> ssl.SSLContext:
        """Return a new context with what the files contain now.

        Raises:
            ConfigurationError: a file cannot be read, or the key does not belong to the certificate.
        """
        context = self._trusting()
        self._load_client_certificate(context)
        return context

    def validity(self) -> Validity | None:
        """Return from when and until when the client certificate is valid; None if there is none."""
        from .certificate_validity import validity
        from .private_files import open_regular

        if self.certificate is None:
            return None
        try:
            with open_regular(self.certificate) as file:
                return validity(file.read(_LONGEST_PEM).decode("ascii", "replace"))
        except OSError:
            return None

    def _trusting(self) -> ssl.SSLContext:
        """Return a context that trusts the certificates of ``ca_bundle``, or else the system's."""
        if self.ca_bundle is None:
            return ssl.create_default_context()
        path = os.fspath(self.ca_bundle)
        try:
            return ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            raise ConfigurationError(f"ca_bundle: {path!r} must contain certificates in PEM") from None
        except OSError as error:
            raise ConfigurationError(f"ca_bundle: {path!r}: {error.strerror}") from None

    def _load_client_certificate(self, context: ssl.SSLContext) -> None:
        if self.certificate is not None:
            problem = load_client_certificate(context, self.certificate, self.key or self.certificate)
            if problem:
                raise ConfigurationError(problem)


def check_path(name: str, path: object) -> None:
    """Check the path of a PEM file.

    Raises:
        ConfigurationError: it is something else, or there is no such file.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"{name} must be the path of a PEM file, got {type(path).__name__}")
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file() raises for some names
        # The path is not shown: it may be the key itself.
        raise ConfigurationError(f"{name} must be the path of a PEM file; there is no such file")


def load_client_certificate(
    context: ssl.SSLContext, certificate: str | os.PathLike[str], key: str | os.PathLike[str]
) -> str | None:
    """Add a client certificate to a context. Returns what is wrong with the files; None if nothing is."""
    where = f"certificate, key: {os.fspath(certificate)!r} and {os.fspath(key)!r}"
    try:
        context.load_cert_chain(certificate, key, _NO_PASSPHRASE)
    except ssl.SSLError:
        return f"{where} must be a certificate and its private key, in PEM and without a passphrase"
    except OSError as error:
        return f"{where}: {error.strerror}"
    return None
