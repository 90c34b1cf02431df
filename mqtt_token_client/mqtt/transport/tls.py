"""TLS to the broker: which contexts verify it, the handshake, and the end of what is sent."""

from __future__ import annotations

import contextlib
import socket
import ssl

from ...clock import monotonic
from ...errors import BrokerUnreachable, CertificateRejected, ConfigurationError

_TRUST = "tls=TlsFiles(ca_bundle='plant-ca.pem'), or ca_bundle in a TOML file"
_CLIENT_CERTIFICATE = "tls=TlsFiles(certificate='device.crt', key='device.key'), or certificate and key in a TOML file"


class SessionRejectedError(Exception):
    """The handshake failed, perhaps because of the TLS session that was to be resumed."""


def check_context(context: ssl.SSLContext, *, allow_insecure: bool = False) -> ssl.SSLContext:
    """A TLS context that verifies the broker by the names in its certificate's subjectAltName, with TLS 1.2 or newer.

    The context itself is changed where it allows more: older versions, or the name in the certificate's Common Name,
    which verifiers must not look at (RFC 9525 section 6.3).

    Raises:
        ConfigurationError: it does not verify, and ``allow_insecure`` is not given.
    """
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError(
            "tls must be TlsFiles, such as TlsFiles(ca_bundle='plant-ca.pem'), or an ssl.SSLContext, "
            f"got {type(context).__name__}"
        )
    if not allow_insecure:
        if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
            raise ConfigurationError("tls must be a context that verifies the broker; or set allow_insecure=True")
        if context.minimum_version < ssl.TLSVersion.TLSv1_2:
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        with contextlib.suppress(AttributeError):  # an OpenSSL that cannot; it looks there only without a DNS name
            context.hostname_checks_common_name = False
    return context


def handshake(
    sock: socket.socket,
    context: ssl.SSLContext,
    host: str,
    deadline: float,
    broker: str,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    """The TLS connection over a connected socket. It blocks, until ``deadline`` at most.

    Args:
        host: whose name the certificate must have.
        deadline: a reading of :func:`~mqtt_token_client.clock.monotonic`.
        broker: the broker's URL, for errors.
        session: one to be resumed.

    Raises:
        BrokerUnreachable: there is no connection; it may work later.
        CertificateRejected: the certificate is not trusted or names another host.
        SessionRejectedError: there is no connection, and it may be because of ``session``.
    """
    sock.settimeout(max(0.001, deadline - monotonic()))
    try:
        return context.wrap_socket(sock, server_hostname=host, session=session)
    except ssl.SSLCertVerificationError as error:
        from ... import tls_errors  # seldom needed

        kind = BrokerUnreachable if tls_errors.may_pass(error) else CertificateRejected
        problem = tls_errors.certificate_problem(error, _TRUST, context.get_ca_certs())
        raise kind(f"{broker}: its certificate was not accepted: {problem}") from None
    except OSError as error:
        if session is not None:  # the broker may end the connection for it in any way, or be silent
            raise SessionRejectedError from None
        from ... import tls_errors

        problem = tls_errors.handshake_problem(error, _CLIENT_CERTIFICATE)
        raise BrokerUnreachable(f"{broker}: no TLS connection: {problem}") from None


def broken_by(error: OSError) -> str:
    """Return what broke a connection that was open."""
    problem = ""
    if isinstance(error, ssl.SSLError):
        from ...tls_errors import alert_problem

        problem = alert_problem(error, _CLIENT_CERTIFICATE)
    return problem or error.strerror or type(error).__name__


def new_session(sock: socket.socket) -> ssl.SSLSession | None:
    """The TLS session of a connected socket, for later connections to resume; None without TLS, or if this one has
    resumed an earlier session, which can be resumed again. With TLS 1.3 it comes with the first answers. CPython 3.11
    leaks some kilobytes at each call.
    """
    if getattr(sock, "session_reused", False):
        return None
    return getattr(sock, "session", None)


def context_of(sock: socket.socket) -> ssl.SSLContext | None:
    """The context of a connected socket; None without TLS."""
    return getattr(sock, "context", None)


def end_writing(sock: socket.socket) -> None:
    """Tell the broker that nothing follows, so that it closes the connection, however it takes DISCONNECT. What it
    has sent can still be read: closing the socket with something unread would reset the connection, and a broker that
    has not read DISCONNECT by then would publish the will.
    """
    # With TLS this is FIN alone. SSLSocket has no method that sends close_notify without reading as well, and would
    # lose what it reads; DISCONNECT shows that nothing was cut off.
    shutdown = socket.socket.shutdown if isinstance(sock, socket.socket) else type(sock).shutdown
    shutdown(sock, socket.SHUT_WR)
