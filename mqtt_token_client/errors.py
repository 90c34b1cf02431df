"""All exceptions of this library, grouped by where the cause is.

``permanent`` is False for a temporary error, which retrying may fix, and True for one that a person has to fix.
No message, argument or attribute of an exception contains a secret, nor control characters that a server sent.
"""

from __future__ import annotations

from typing import Any

from .logs import LONGEST_MESSAGE, printable


class MqttTokenError(Exception):
    """The base of every exception that this library raises."""

    permanent = False

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message, LONGEST_MESSAGE))

    def __reduce__(self) -> tuple[Any, ...]:
        # BaseException would call the constructor with `args` only; some here have keyword arguments.
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[MqttTokenError], args: tuple[Any, ...]) -> MqttTokenError:
    return kind.__new__(kind, *args)


# In how the library is used


class ConfigurationError(MqttTokenError, ValueError):
    """An argument is wrong, or the servers do not support it. The message names it and says what to change."""

    permanent = True


class OutboxFull(MqttTokenError):  # noqa: N818 - reads as what happened, like queue.Full
    """``publish()`` did not accept the message: ``max_queued`` messages are waiting already."""


class ClientClosed(MqttTokenError):  # noqa: N818
    """The client has been disconnected, or was never connected."""

    permanent = True


# On the disk, where the journal is


class JournalError(MqttTokenError):
    """The journal could not be read or written. The client goes on in memory."""


class JournalLocked(JournalError):  # noqa: N818
    """Another process, or another client of this one, uses the journal."""


# At the authorization server, or on the way to it


class TokenError(MqttTokenError):
    """No token could be obtained.

    Attributes:
        retry_after: the seconds to wait that the server asked for (RFC 9110 section 10.2.3), or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthorizationServerUnavailable(TokenError):  # noqa: N818
    """No answer, or one that says to try again later: no network, a timeout, HTTP 5xx, 408 or 429.

    Attributes:
        error: the server's error code, such as ``slow_down``, or None.
        status: the HTTP status, or None if there was no complete answer.
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
        self.error = None if error is None else printable(error)
        self.status = status


class AuthorizationServerUntrusted(TokenError):  # noqa: N818
    """The authorization server's certificate is not trusted, or is for another host."""

    permanent = True


class InvalidTokenResponse(TokenError):  # noqa: N818
    """The answer is not a token response (RFC 6749 section 5.1): not JSON, or a field is missing or wrong."""


class TokenUnchanged(TokenError):  # noqa: N818
    """The source returned the same token again, which the broker rejected or which has expired."""


class TokenRequestRefused(TokenError):  # noqa: N818
    """The authorization server rejected the request (RFC 6749 section 5.2).

    Attributes:
        error: the server's error code, such as ``invalid_client``.
        description: its ``error_description``, or an empty string.
        status: the HTTP status.
    """

    permanent = True

    def __init__(self, message: str, *, error: str, description: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.error = printable(error)
        self.description = printable(description)
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
    """The metadata of an issuer contains another issuer (RFC 8414 section 3.3)."""

    permanent = True


# In the token store


class StoreError(MqttTokenError):
    """The token store could not load, save, delete or lock. A stored token may be lost; the current token is not."""


class StoreKeyMissing(StoreError):  # noqa: N818
    """A stored token was encrypted with a key that this process does not have. It is left as it is."""

    permanent = True


class StoreLocked(TokenError):  # noqa: N818
    """Another process has held the lock of the store for too long, so this one could not request a token.

    It is a :class:`TokenError`, as no token could be obtained; the store works.
    """


# At the broker, or on the way to it


class BrokerError(MqttTokenError):
    """No connection to the broker."""


class BrokerUnreachable(BrokerError):  # noqa: N818
    """No TCP connection, no TLS handshake, or no answer in time.

    Attributes:
        retry_after: the seconds to wait that the answer to the upgrade to a WebSocket asked for (RFC 9110 section
            10.2.3), or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CertificateRejected(BrokerError):  # noqa: N818
    """The broker's certificate is not trusted, or is for another host."""

    permanent = True


class ProtocolError(BrokerError):
    """The broker violated the MQTT protocol.

    Attributes:
        reason: the MQTT 5 reason code that the broker gets in DISCONNECT (MQTT 5 section 4.13.1): 0x81 (Malformed
            Packet), 0x82 (Protocol Error), 0x94 (Topic Alias invalid) or 0x95 (Packet too large).
    """

    def __init__(self, message: str, *, reason: int = 0x82) -> None:
        super().__init__(message)
        self.reason = reason


class BrokerRefused(BrokerError):  # noqa: N818
    """The broker rejected the connection (CONNACK), for another reason than the token unless it is the subclass.

    Attributes:
        reason: the MQTT 5 reason code; 3.1.1 return codes are translated (4 is 0x86, 5 is 0x87).
    """

    def __init__(self, message: str, *, reason: int, permanent: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.permanent = permanent


class TokenRefusedByBroker(BrokerRefused):
    """The broker has rejected the token for a minute. The message shows the user name that it got and the token's
    issuer, audience, subject and scope, to compare them with what the broker expects.
    """


class DeliveryFailed(MqttTokenError):  # noqa: N818
    """The broker rejected a message, or the client was closed before the message was acknowledged.

    Attributes:
        reason: the MQTT 5 reason code, or None if the client was closed.
    """

    def __init__(self, message: str, *, reason: int | None = None, permanent: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.permanent = permanent
