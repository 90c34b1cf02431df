"""Every exception of this library, grouped by who is at fault.

``permanent`` tells what retrying can mend: ``False`` for trouble that passes, ``True`` for what only a person mends.
No message, argument or attribute of an exception holds a secret.
"""

from __future__ import annotations


class MqttTokenError(Exception):
    """The base of every exception that this library raises."""

    permanent = False


# Ours: how the library is used


class ConfigurationError(MqttTokenError, ValueError):
    """An argument is wrong, or does not fit what the servers say. The message names it and what would be right."""

    permanent = True


class OutboxFull(MqttTokenError):  # noqa: N818 - reads as what happened, like queue.Full
    """``publish()`` took nothing: ``max_queued`` messages wait already."""


class ClientClosed(MqttTokenError):  # noqa: N818
    """The client has been disconnected, or was never connected."""

    permanent = True


# The authorization server's, or of the way to it


class TokenError(MqttTokenError):
    """No token could be obtained.

    Attributes:
        retry_after: seconds that the server asked to wait (RFC 9110 section 10.2.3), or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthorizationServerUnavailable(TokenError):  # noqa: N818
    """No answer, or one that says to come back later: no network, a time-out, HTTP 5xx, 408 or 429.

    Attributes:
        error: the server's error code, such as ``slow_down``, or None if it gave none.
        status: the HTTP status, or None if there was no whole answer.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        error: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.error = error
        self.status = status


class AuthorizationServerUntrusted(TokenError):  # noqa: N818
    """The authorization server's certificate is not trusted, or is for another host."""

    permanent = True


class InvalidTokenResponse(TokenError):  # noqa: N818
    """An answer that is no token response (RFC 6749 section 5.1): not JSON, fields missing or of a wrong type."""


class TokenUnchanged(TokenError):  # noqa: N818
    """The source returned the very token that is refused or has ended."""


class TokenRequestRefused(TokenError):  # noqa: N818
    """The authorization server refused the request (RFC 6749 section 5.2).

    Attributes:
        error: the server's error code, such as ``invalid_client``.
        description: its ``error_description``, or an empty string.
        status: the HTTP status.
    """

    permanent = True

    def __init__(self, message: str, *, error: str, description: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.error = error
        self.description = description
        self.status = status

    @property
    def needs_login(self) -> bool:
        """Whether a person has to approve, or to approve again."""
        return self.error in _LOGIN_ERRORS


# RFC 6749 sections 4.1.2.1 and 5.2, RFC 8628 section 3.5, OpenID Connect Core 1.0 section 3.1.2.6, and Microsoft's.
_LOGIN_ERRORS = frozenset(
    (
        "invalid_grant",
        "login_required",
        "interaction_required",
        "consent_required",
        "access_denied",
        "expired_token",
        "authorization_declined",
    )
)


class IssuerMismatch(TokenError):  # noqa: N818
    """The metadata found under an issuer names another issuer (RFC 8414 section 3.3)."""

    permanent = True


# The token store's


class StoreError(MqttTokenError):
    """The token store could not load, save, delete or lock. What it holds may be lost; the token in hand is not."""


class StoreLocked(TokenError):  # noqa: N818
    """Another process has been asking for a new token for too long, and the store lets only one ask at a time."""


# The broker's, or of the way to it


class BrokerError(MqttTokenError):
    """No connection to the broker."""


class BrokerUnreachable(BrokerError):  # noqa: N818
    """No TCP connection, no TLS handshake, or no answer in time."""


class CertificateRejected(BrokerError):  # noqa: N818
    """The broker's certificate is not trusted, or is for another host."""

    permanent = True


class ProtocolError(BrokerError):
    """The broker sent what MQTT does not allow."""


class BrokerRefused(BrokerError):  # noqa: N818
    """The broker refused the connection for a reason that is not the token (CONNACK).

    Attributes:
        reason: the MQTT 5 reason code; 3.1.1 return codes are translated (4 is 0x86, 5 is 0x87).
    """

    def __init__(self, message: str, *, reason: int, permanent: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.permanent = permanent


class TokenRefusedByBroker(BrokerRefused):
    """The broker refused two new tokens in a row: a matter of issuer, audience, keys or rights, not of one token."""


class DeliveryFailed(MqttTokenError):  # noqa: N818
    """The broker refused a message, or the client was closed before the message was acknowledged.

    Attributes:
        reason: the MQTT 5 reason code of the refusal, or None if the client was closed.
    """

    def __init__(self, message: str, *, reason: int | None = None, permanent: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.permanent = permanent
