"""Everything that ``on_event`` gets, as small frozen values to match by type.

    def on_event(event):
        match event:
            case Rotated(kind=kind, gap=gap): print(f"on a new token by {kind}, {gap * 1000:.1f} ms")
            case RenewalFailed(error=error): alarm(error)

Events are reports: nothing in the library reads them. No event holds a secret, nor control characters: text is cut to
200 characters, except the topics and filters of this client itself.
"""

from __future__ import annotations

import logging
import math
from typing import Any, ClassVar, Literal, Self

from .errors import MqttTokenError
from .logs import printable
from .value import Value

RotationKind = Literal["handover", "reconnect", "re-authentication"]


class Event(Value):
    """The base of every event.

    Attributes:
        log_level: at which the client logs it. Python shows warnings to those who have not set up logging.
    """

    log_level: ClassVar[int] = logging.INFO
    _own: ClassVar[tuple[str, ...]] = ()  # fields whose text is the application's

    def __post_init__(self) -> None:
        names: tuple[str, ...] = self.__match_args__
        for name in names:
            value = getattr(self, name)
            if isinstance(value, str) and name not in self._own:
                object.__setattr__(self, name, printable(value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self


def without_retry(event: Event) -> Event:
    """Return the same event with an infinite ``retry_in``: there is no next attempt."""
    names: tuple[str, ...] = event.__match_args__
    return type(event)(**{name: math.inf if name == "retry_in" else getattr(event, name) for name in names})


# The token


class TokenRenewed(Event):
    """There is a new token; it is valid for ``expires_in`` seconds. ``jti`` is its identifier, if it has one."""

    expires_in: float
    jti: str | None = None


class RenewalFailed(Event):
    """No new token could be obtained. The old one is valid for ``expires_in`` more seconds (0: there is none); the
    next request is in ``retry_in`` seconds. If ``error.permanent``, a person has to fix the cause.
    """

    log_level: ClassVar[int] = logging.WARNING
    error: MqttTokenError
    retry_in: float
    expires_in: float


class LoginRequired(Event):
    """The authorization server no longer accepts the refresh token, and no other process has stored a newer one: a
    person has to approve again. The token source asks for that, by its ``prompt``.
    """

    log_level: ClassVar[int] = logging.WARNING
    error: MqttTokenError


class ScopeReduced(Event):
    """The authorization server granted fewer scopes than the source requested (RFC 6749 section 5.1): ``missing`` and
    ``granted``, both space-separated. Reported once for each such difference.
    """

    log_level: ClassVar[int] = logging.WARNING
    missing: str
    granted: str


class StoreFailed(Event):
    """The token store could not load or save. The token is used all the same. It is saved again with a back-off and
    when the keeper or the client is closed; if that fails too, it is lost when the process ends.
    """

    log_level: ClassVar[int] = logging.WARNING
    error: MqttTokenError


class TokenRefused(Event):
    """The broker rejected the token, for the ``times``-th time in a row; the next attempt is in ``retry_in`` seconds.
    ``reason`` is the MQTT 5 reason code. ``hint`` says what the broker got and what to check there: from the second
    time on, and from the first if the token had just been issued, as the broker's clock may be behind.
    ``reason_string`` is what the broker said, cut; empty if it said nothing. A connection that was up stays up, unless
    the broker ended it.
    """

    log_level: ClassVar[int] = logging.WARNING
    reason: int
    reason_name: str
    times: int
    retry_in: float
    hint: str = ""
    reason_string: str = ""


# The connection


class Connected(Event):
    """The broker accepted the connection. ``session_present``: it had kept the session."""

    broker: str
    session_present: bool


class Disconnected(Event):
    """The connection ended, and neither a rotation nor ``disconnect()`` ended it; the next attempt is in ``retry_in``
    seconds. ``reason`` is the MQTT 5 reason code, or None if the broker gave none; the close code of a WebSocket that
    blames the token counts as 0x87.
    """

    log_level: ClassVar[int] = logging.WARNING
    cause: str
    reason: int | None
    retry_in: float


class ConnectFailed(Event):
    """An attempt to connect failed; the next one is in ``retry_in`` seconds. If ``error.permanent``, a person has to
    fix the cause. If ``connect()`` waits and raises such an error, there is no next attempt, and ``retry_in`` is
    infinite, as in :class:`RenewalFailed` and :class:`TokenRefused`.
    """

    log_level: ClassVar[int] = logging.WARNING
    error: MqttTokenError
    retry_in: float


class Rotated(Event):
    """The connection is on a new token, or on renewed TLS files. ``gap``: for how many seconds no packet could be sent
    one way or the other.
    """

    kind: RotationKind
    gap: float


class RotationFailed(Event):
    """The connection could not be moved onto the new token and stays on the old one; the next attempt is in
    ``retry_in`` seconds.
    """

    log_level: ClassVar[int] = logging.WARNING
    error: MqttTokenError
    retry_in: float


class TlsFilesFailed(Event):
    """Renewed TLS files cannot be used, or the broker did not accept the new client certificate, or the one that is
    there expires soon or has expired; ``error`` says why.
    Those from before are used until they change again; a certificate that was not accepted is tried again in an hour.
    But if it is the broker that the new files do not trust, only the connection that is up goes on.
    """

    log_level: ClassVar[int] = logging.WARNING
    error: MqttTokenError


# The session and its messages


class SessionLost(Event):
    """The broker had not kept the session: the client subscribes again and sends ``resent`` unacknowledged messages
    again. What the broker held for this client is gone.
    """

    resent: int


class SubscriptionRefused(Event):
    """The broker rejected a topic filter (SUBACK), or announced in CONNACK that it supports no such subscription. It is
    asked for again on the next connection and with the next token, unless the reason is permanent (0x8F, 0x95, 0x9E,
    0xA1, 0xA2), or ``hint`` says that the broker ended connections because of it. ``reason_string`` is what the broker
    said, cut; empty if it said nothing.
    """

    log_level: ClassVar[int] = logging.WARNING
    _own: ClassVar[tuple[str, ...]] = ("topic_filter",)
    topic_filter: str
    reason: int
    hint: str = ""
    reason_string: str = ""


class UnsubscriptionRefused(Event):
    """The broker did not remove a topic filter (UNSUBACK) and still sends its messages. It is asked again on the next
    connection and with the next token, unless the reason is permanent (0x8F). ``reason_string`` is what the broker
    said, cut; empty if it said nothing.
    """

    log_level: ClassVar[int] = logging.WARNING
    _own: ClassVar[tuple[str, ...]] = ("topic_filter",)
    topic_filter: str
    reason: int
    reason_string: str = ""


class DeliveryRefused(Event):
    """The broker rejected a message (PUBACK or PUBREC), announced in CONNACK that it accepts no such message, or ended
    the connection each time it was sent, as ``hint`` says then, with the likely cause. Its ``Delivery`` has failed.
    ``reason_string`` is what the broker said, cut; empty if it said nothing.
    """

    log_level: ClassVar[int] = logging.WARNING
    _own: ClassVar[tuple[str, ...]] = ("topic",)
    topic: str
    reason: int
    hint: str = ""
    reason_string: str = ""


class MessagesAbandoned(Event):
    """The client was closed before ``count`` accepted messages were acknowledged; each ``Delivery`` has failed."""

    log_level: ClassVar[int] = logging.WARNING
    count: int


class MessageExpired(Event):
    """A message was not sent, as its ``message_expiry_interval`` passed while it waited; its Delivery failed."""

    log_level: ClassVar[int] = logging.WARNING
    _own: ClassVar[tuple[str, ...]] = ("topic",)
    topic: str


class MessageRejected(Event):
    """A packet of ``size`` bytes with a message cannot be accepted. The message was dropped, and the broker does not
    send it again. ``reason`` is a reason code of MQTT 5: 0x95 if it is larger than ``max_packet_size``, 0x97 if it has
    too many properties. Otherwise it is malformed, as ``violation`` says, and has ended a connection before.
    """

    log_level: ClassVar[int] = logging.WARNING
    topic: str
    reason: int
    size: int
    violation: str = ""


class MessagesDropped(Event):
    """``count`` messages for ``topic_filter`` were dropped by :class:`AsyncTokenClient`: of QoS 0, because more of them
    waited than the subscription's ``queue`` holds; of any QoS, because the subscription ended while they waited.
    """

    log_level: ClassVar[int] = logging.WARNING
    topic_filter: str
    count: int


class MessageUnhandled(Event):
    """A message was received that neither a handler nor ``on_message`` is there for, and was dropped. Reported once for
    each topic. Perhaps ``connect()`` was called before ``subscribe()``, or an earlier program left the subscription.
    """

    log_level: ClassVar[int] = logging.WARNING
    topic: str


class HandlerFailed(Event):
    """A handler of messages raised ``error``; ``where`` names the function. The network thread goes on."""

    where: str
    error: Exception

    def __reduce__(self) -> tuple[Any, ...]:
        import pickle

        try:
            pickle.loads(pickle.dumps(self.error))  # noqa: S301 - what was just made
        except Exception as unfit:  # noqa: BLE001 - an exception of the application, which may be made in any way
            what = f"{type(self.error).__name__}, which cannot be pickled: {type(unfit).__name__}"
            return type(self), (self.where, RuntimeError(what))
        return type(self), (self.where, self.error)
