"""What an error says about TLS, where no handshake on this machine can bring it about."""

from __future__ import annotations

import ssl

import pytest

from mqtt_token_client.tls_errors import alert_problem, certificate_problem, handshake_problem


def rejected(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "as OpenSSL says it"
    return error


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] as OpenSSL says it")
    error.reason = reason
    return error


def test_a_clock_from_before_the_release_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 60.0)
    assert certificate_problem(rejected(9), "tls=") == (
        "as OpenSSL says it; by this device's clock, which says 1970-01-01 00:01 UTC and is wrong: set the clock; "
        "the client tries again until it is"
    )


def test_a_verification_that_fails_for_another_reason_names_the_argument() -> None:
    assert certificate_problem(rejected(23), "tls=...").endswith(
        "check the server's certificate and its authority: tls=..."
    )


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "the server requires a client certificate: certificate="),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "the client certificate has expired: certificate="),
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", "the client certificate has been revoked: certificate="),
        ("TLSV1_ALERT_UNKNOWN_CA", "the server does not trust the authority of the client certificate: certificate="),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "the server rejected the client certificate: certificate="),
        (
            "TLSV1_ALERT_PROTOCOL_VERSION",
            "the server supports no version of TLS that this client does; have it support",
        ),
        ("TLSV1_ALERT_INTERNAL_ERROR", "[SSL] as OpenSSL says it"),
    ],
)
def test_an_alert_says_what_the_server_wants(reason: str, says: str) -> None:
    assert handshake_problem(alert(reason), "certificate=").startswith(says)


def test_an_end_of_a_connection_that_was_open_is_not_an_alert() -> None:
    assert alert_problem(alert("UNEXPECTED_EOF_WHILE_READING"), "certificate=") == ""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF)"),  # Python 3.11.2
        alert("UNEXPECTED_EOF_WHILE_READING"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_end_within_the_handshake_may_mean_that_the_port_speaks_no_tls(error: OSError) -> None:
    assert handshake_problem(error, "certificate=").endswith("perhaps this port does not speak TLS")
