"""Why a TLS handshake failed, at a broker or an authorization server: the likeliest cause, and what to change."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

# OpenSSL's X509_V_ERR_...: CERT_NOT_YET_VALID and CERT_HAS_EXPIRED. They pass when the device's clock is set, or when
# somebody renews the certificate.
_NOT_YET_VALID, _EXPIRED = 9, 10
# HOSTNAME_MISMATCH, EMAIL_MISMATCH, IP_ADDRESS_MISMATCH
_OTHER_NAME = (62, 63, 64)
# UNABLE_TO_GET_ISSUER_CERT, DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
# UNABLE_TO_VERIFY_LEAF_SIGNATURE, CERT_UNTRUSTED
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21, 27)

_RELEASED = 1_790_000_000  # September 2026: no clock that is right says less

# What OpenSSL reports if the other side does not speak TLS, and its alerts about a client certificate (RFC 8446
# section 6).
_NOT_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
_ALERTS = {
    "CERTIFICATE_REQUIRED": "the server requires a client certificate",
    "HANDSHAKE_FAILURE": "the server requires a client certificate, or shares no cipher with this device",
    "BAD_CERTIFICATE": "the server rejected the client certificate",
    "UNSUPPORTED_CERTIFICATE": "the server rejected the client certificate",
    "CERTIFICATE_UNKNOWN": "the server rejected the client certificate",
    "ACCESS_DENIED": "the server rejected the client certificate",
    "CERTIFICATE_REVOKED": "the client certificate has been revoked",
    "CERTIFICATE_EXPIRED": "the client certificate has expired",
    "UNKNOWN_CA": "the server does not trust the authority of the client certificate",
}


def may_pass(error: ssl.SSLCertVerificationError) -> bool:
    """Whether a certificate may be accepted later: it has expired or is not yet valid, or the clock is wrong."""
    return error.verify_code in (_NOT_YET_VALID, _EXPIRED)


def certificate_problem(
    error: ssl.SSLCertVerificationError, trust: str, authorities: Iterable[Mapping[str, Any]] = ()
) -> str:
    """Return why a server's certificate was not accepted, and what to change.

    Args:
        error: that the handshake raised.
        trust: the argument that says which authorities are trusted, with an example.
        authorities: those that are trusted, as ``ssl.SSLContext.get_ca_certs()`` returns them, if they are known.
    """
    return f"{error.verify_message.rstrip('.')}; {_what_to_change(error.verify_code, trust, list(authorities))}"


def _what_to_change(code: int, trust: str, authorities: list[Mapping[str, Any]]) -> str:
    now = time.time()
    clock = f"by this device's clock, which says {_utc(now)}"
    if code == _NOT_YET_VALID:
        return f"{clock}{' and is wrong' if now < _RELEASED else ''}: set the clock; the client tries again until it is"
    if code == _EXPIRED:
        ends = max((ssl.cert_time_to_seconds(authority["notAfter"]) for authority in authorities), default=now)
        if ends < now:
            return f"its authority expired on {_utc(ends)}, {clock}: {trust}; or set the clock, if it is wrong"
        return f"{clock}: renew the server's certificate, or set the clock, if it is wrong"
    if code in _OTHER_NAME:
        return (
            "give the URL with a name that the certificate has in its subjectAltName, or have one issued for this name"
        )
    if code in _UNKNOWN_AUTHORITY:
        return f"give the file of the authority that issued it: {trust}; or have the server send its whole chain"
    return f"check the server's certificate and its authority: {trust}"


def handshake_problem(error: OSError, certificate: str) -> str:
    """Return why there is no TLS connection, for another reason than the server's certificate.

    Args:
        error: that the handshake raised.
        certificate: the argument for a client certificate, with an example.
    """
    reason = getattr(error, "reason", None) or ""
    ended = isinstance(error, ConnectionResetError | ssl.SSLZeroReturnError)  # the second one until Python 3.11.2
    if ended or any(reason.startswith(name) for name in _NOT_TLS):
        return "the TLS handshake got no valid answer; perhaps this port does not speak TLS"
    if isinstance(error, ssl.SSLEOFError):  # of writing: TLS 1.3 has the server look at a certificate afterwards
        return f"the server closed the connection; perhaps it requires a client certificate: {certificate}"
    return alert_problem(error, certificate) or error.strerror or str(error) or type(error).__name__


def alert_problem(error: OSError, certificate: str) -> str:
    """Return what an alert of the server says about the client's certificate; empty if it is no such alert. With
    TLS 1.3 it comes after the handshake (RFC 8446 section 4.4.2.4).
    """
    reason = getattr(error, "reason", None) or ""
    for alert, problem in _ALERTS.items():
        if reason.endswith(f"ALERT_{alert}"):
            return f"{problem}: {certificate}"
    if reason.endswith("ALERT_PROTOCOL_VERSION"):
        return "the server supports no version of TLS that this client does; have it support TLS 1.2 or 1.3"
    return ""


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
