"""Everything that ``on_event`` can be told, as small frozen values to match by type.

    def on_event(event):
        match event:
            case Rotated(kind=kind, gap=gap): print(f"on a new token by {kind}, {gap * 1000:.1f} ms")
            case RenewalFailed(error=error): alarm(error)

No event holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import MqttTokenError

RotationKind = Literal["handover", "reconnect", "re-authentication"]


class Event:
    """The base of every event."""

    __slots__ = ()


# The token


@dataclass(frozen=True, slots=True)
class TokenRenewed(Event):
    """A new token is in hand; it lives ``expires_in`` seconds. ``jti`` is its identifier, where it has one."""

    expires_in: float
    jti: str | None = None


@dataclass(frozen=True, slots=True)
class RenewalFailed(Event):
    """No new token could be obtained. The old one lives ``expires_in`` more seconds (0: there is none); the next try
    is in ``retry_in`` seconds. Where ``error.permanent``, somebody has to mend the cause.
    """

    error: MqttTokenError
    retry_in: float
    expires_in: float


@dataclass(frozen=True, slots=True)
class LoginRequired(Event):
    """The authorization server no longer takes the refresh token, and no other process has stored a newer one: a
    person has to approve again. The token source is asking for it, by its ``prompt``.
    """

    error: MqttTokenError


@dataclass(frozen=True, slots=True)
class StoreFailed(Event):
    """The token store could not load or save; the token is used all the same, and lost when the process ends."""

    error: MqttTokenError


@dataclass(frozen=True, slots=True)
class TokenRefused(Event):
    """The broker did not take the token, for the ``times``-th time in a row; the next try is in ``retry_in`` seconds.
    A connection that was up stays up, unless the broker ended it.
    """

    reason: int
    reason_name: str
    times: int
    retry_in: float


# The connection


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """The broker accepted the connection. ``session_present``: it had kept the session."""

    broker: str
    session_present: bool


@dataclass(frozen=True, slots=True)
class Disconnected(Event):
    """The connection ended, though no rotation and no ``disconnect()`` ended it; the next try is in ``retry_in``
    seconds. ``reason`` is the MQTT 5 reason code, or None where the broker gave none; the close code of a WebSocket
    that blames the token counts as 0x87.
    """

    cause: str
    reason: int | None
    retry_in: float


@dataclass(frozen=True, slots=True)
class ConnectFailed(Event):
    """An attempt to connect failed; the next one is in ``retry_in`` seconds. Where ``error.permanent``, somebody has
    to mend the cause.
    """

    error: MqttTokenError
    retry_in: float


@dataclass(frozen=True, slots=True)
class Rotated(Event):
    """The connection is on a new token. ``gap``: seconds in which no packet could go one way or the other."""

    kind: RotationKind
    gap: float


@dataclass(frozen=True, slots=True)
class RotationFailed(Event):
    """The connection could not be moved onto the new token and serves on with the old one; the next try is in
    ``retry_in`` seconds.
    """

    error: MqttTokenError
    retry_in: float


# The session and what goes over it


@dataclass(frozen=True, slots=True)
class SessionLost(Event):
    """The broker had not kept the session: subscriptions are made again, ``resent`` unacknowledged messages sent
    again. What the broker held for this client is gone.
    """

    resent: int


@dataclass(frozen=True, slots=True)
class SubscriptionRefused(Event):
    """The broker refused a topic filter (SUBACK), or takes no such subscription, as its CONNACK told. Unless the filter
    will never do (0x8F, 0x95, 0x9E, 0xA1, 0xA2), it is asked for again on the next connection and with the next token.
    """

    topic_filter: str
    reason: int


@dataclass(frozen=True, slots=True)
class DeliveryRefused(Event):
    """The broker refused a message (PUBACK or PUBREC), or takes no such message, as its CONNACK told; its ``Delivery``
    has failed.
    """

    topic: str
    reason: int


@dataclass(frozen=True, slots=True)
class MessagesAbandoned(Event):
    """The client was closed with ``count`` accepted messages not acknowledged; each ``Delivery`` has failed."""

    count: int


@dataclass(frozen=True, slots=True)
class MessageExpired(Event):
    """A message was not sent, as its ``message_expiry_interval`` passed while it waited; its Delivery failed."""

    topic: str


@dataclass(frozen=True, slots=True)
class MessageRejected(Event):
    """A packet of ``size`` bytes with a message cannot be accepted. The message was dropped, and the broker does not
    send it again. ``reason`` is a reason code of MQTT 5: 0x95 if it is larger than ``max_packet_size``, 0x97 if it has
    too many properties. Otherwise it is malformed, as ``violation`` says, and has ended a connection before.
    """

    topic: str
    reason: int
    size: int
    violation: str = ""


@dataclass(frozen=True, slots=True)
class MessageUnhandled(Event):
    """A message came that no handler takes, nor ``on_message``: it was dropped. Told once for each topic; perhaps
    ``connect()`` was called before ``subscribe()``, or an earlier program has left the subscription.
    """

    topic: str


@dataclass(frozen=True, slots=True)
class HandlerFailed(Event):
    """A function of the application raised ``error``; ``where`` names which. The network thread goes on."""

    where: str
    error: Exception
