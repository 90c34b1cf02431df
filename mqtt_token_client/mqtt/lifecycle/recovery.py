"""Recovery: what follows from a failed attempt and from a lost connection.

It reports what happened, decides when the next attempt begins and at which broker, and has it begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ... import events
from ...clock import monotonic
from ...errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnreachable,
    ConfigurationError,
    MqttTokenError,
    TokenError,
    TokenRefusedByBroker,
    TokenUnchanged,
)
from ...logs import get_logger, printable
from ...token import Token
from ..codec.packets import CONNACK, DISCONNECT
from ..codec.reason_codes import NOT_AUTHORIZED, TAKEN_OVER, Action, action_for, advice, reason_name
from ..runtime.base import Runtime, Timer
from ..session.reports import Blame
from ..transport import Loss
from ..transport.address import Brokers
from .attempt import Rejection
from .retry import RetryState, expires_soon
from .settings import CredentialsSource
from .traits import ReauthenticationSupport

if TYPE_CHECKING:
    from .broker_tls import BrokerTls
    from .current import CurrentConnection
    from .observer import Observer

log = get_logger("mqtt_token_client.mqtt")

_ANOTHER_CLIENT = (
    "it has accepted and soon ended several connections in a row, as when another client uses the same client_id"
)

_LATE = 120.0  # seconds in which a broker may still handle a CONNECT that this client has given up
_LATE_CONNECT = "; perhaps by an earlier CONNECT of this client, handled late"


class Recovery:
    """Plans the next attempt.

    Args:
        runtime: has the timer.
        retry: counts failures.
        brokers: the next one is chosen here.
        tls: may have caused the failure.
        source: of tokens; it knows when to ask for one again.
        observer: gets the reports.
        begin: begins the next attempt.

    Attributes:
        lacks_token: whether the next attempt waits for a token to be obtained.
    """

    def __init__(
        self,
        runtime: Runtime,
        retry: RetryState,
        brokers: Brokers,
        tls: BrokerTls,
        source: CredentialsSource,
        observer: Observer,
        begin: Callable[[], None],
    ) -> None:
        self.lacks_token = False
        self._runtime = runtime
        self._retry = retry
        self._brokers = brokers
        self._tls = tls
        self._source = source
        self._observer = observer
        self._begin = begin
        self._timer: Timer | None = None
        self._gave_up_at = -math.inf

    @property
    def waiting(self) -> bool:
        """Whether an attempt is planned."""
        return self._timer is not None

    def cancel(self) -> None:
        """Plan no attempt."""
        self.lacks_token = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, delay: float) -> None:
        self.cancel()
        self._timer = self._runtime.call_later(delay, self._begin)

    # An attempt came to nothing

    def gave_up(self) -> None:
        """CONNECT was sent and not answered. The broker may handle it later, and end a newer connection for it."""
        self._gave_up_at = monotonic()

    def rejected(self, rejection: Rejection, *, up: bool, loss: Loss | None) -> None:
        """The broker rejected a connection.

        Args:
            rejection: how.
            up: whether a connection is up.
            loss: how the attempt has ended the connection that was up, if it did.
        """
        token, reason, server, said = rejection
        action = action_for(CONNACK, reason)
        if action is not Action.NEW_TOKEN:
            text = f"{self._brokers.current} rejected the connection: {describe(CONNACK, reason, server, said)}"
            self.failed(BrokerRefused(text, reason=reason, permanent=action is Action.GIVE_UP), up=up, loss=loss)
            return
        self._tls.failed(BrokerRefused(f"the broker rejected the connection: {reason_name(reason)}", reason=reason))
        elsewhere = not up and self._brokers.failed(permanent=self._retry.rejected_for_long)
        delay = self._retry.after_rejection(token, elsewhere=elsewhere) + self._brokers.wait
        if loss is not None:
            self.down(loss, delay)
        times = self._retry.rejections
        hint = self._source.rejection_hint(token) if times > 1 or self._retry.rejected != token else ""
        if not up and self._brokers.hopeless:
            self._observer.fatal(_rejected_again(reason, times, hint, said))
        self._observer.report(events.TokenRefused(reason, reason_name(reason), times, delay, hint, said))
        self._plan(delay)

    def failed(self, error: Exception, *, up: bool, loss: Loss | None) -> None:
        """An attempt failed; the arguments are those of :meth:`rejected`."""
        if not isinstance(error, MqttTokenError):
            log.error("an attempt to connect failed unexpectedly", exc_info=error)
            error = ConfigurationError(f"connecting failed with {type(error).__name__}; see the log")
        if isinstance(error, BrokerError):
            self._tls.failed(error)
        if isinstance(error, TokenUnchanged):
            self._retry.rejected = None  # there is no other token; the broker may accept it by then
        if isinstance(error, BrokerUnreachable) and error.retry_after is not None:
            self._brokers.put_off(error.retry_after)
        elsewhere, hopeless = False, error.permanent
        if not up and not isinstance(error, TokenError):  # which no broker is to blame for
            elsewhere = self._brokers.failed(permanent=error.permanent)
            hopeless = self._brokers.hopeless
        if isinstance(error, TokenError):
            delay = self._source.retry_in()
        elif error.permanent and elsewhere:
            delay = 0.0
        else:
            delay = self._retry.after_failure(permanent=hopeless)
        delay += self._brokers.wait  # added, as all clients would come back at the time that the broker names
        if loss is not None:
            self.down(loss, delay)
        if up:
            self._observer.report(events.RotationFailed(error, delay))
        else:
            if hopeless:
                self._observer.fatal(error)
            self._observer.report(events.ConnectFailed(error, delay))
        self._plan(delay)
        self.lacks_token = isinstance(error, TokenError)

    # A connection that was up

    def _may_be_late(self, loss: Loss) -> bool:
        """Whether this client itself may have taken the session over, and not another one with its identifier."""
        return loss.reason == TAKEN_OVER and monotonic() < self._gave_up_at + _LATE

    def down(self, loss: Loss, delay: float) -> None:
        """Report that the connection was lost, and that the next attempt begins after ``delay`` seconds."""
        cause = loss.cause
        if self._may_be_late(loss):
            cause = cause.removesuffix(f"; {advice(TAKEN_OVER)}") + _LATE_CONNECT
        self._observer.down(cause, loss.reason, delay)

    def lost(
        self, loss: Loss, current: CurrentConnection, reauthentication: ReauthenticationSupport, blame: Blame
    ) -> None:
        """The connection ended while no attempt was under way.

        Args:
            loss: how.
            current: the connection.
            reauthentication: whether that works.
            blame: whether a packet was the cause, rather than the token.
        """
        if blame is Blame.FOUND:
            self._retry.cause_found()
        blamed = blame is Blame.NOTHING and (
            _blames_token(loss) or (loss.reason is None and expires_soon(current.token))
        )
        without_cause = blame is Blame.NOTHING and not blamed and loss.by_broker and loss.reason is None
        if self._retry.ended_at_once(without_cause=without_cause and current.is_young):
            loss = loss._replace(cause=f"{loss.cause}; {_ANOTHER_CLIENT}")
        self._lost(loss, current.token if blamed else None, reauthentication, presented=False)

    def lost_at_reauthentication(self, loss: Loss, token: Token, reauthentication: ReauthenticationSupport) -> None:
        """The connection ended before the broker answered AUTH with this token."""
        blamed = _blames_token(loss)
        if not blamed:
            reauthentication.ended(loss.reason)
        self._lost(loss, token if blamed else None, reauthentication, presented=True)

    def _lost(
        self, loss: Loss, rejected: Token | None, reauthentication: ReauthenticationSupport, *, presented: bool
    ) -> None:
        self._retry.reset_if_stable()
        if reauthentication.expired_anyway():
            delay = 0.0
        elif loss.reason == TAKEN_OVER and not self._may_be_late(loss):
            delay = self._retry.after_take_over()
        elif rejected is not None:
            delay = self._retry.after_rejection(rejected, presented=presented)
        else:
            delay = self._retry.after_failure()
        if self._brokers.wait:  # it rejected a rotation: another one may have time
            self._brokers.failed(permanent=False)
        delay += self._brokers.wait
        self.down(loss, delay)
        self._plan(delay)

    def denied(self, token: Token, *, idle: bool) -> None:
        """The broker keeps the connection of an expired token, and denies what is asked over it. An attempt is planned
        if none is under way (``idle``).
        """
        if not self._retry.is_first_denial(token):
            return
        delay = self._retry.after_rejection(token, presented=False) + self._brokers.wait
        name = reason_name(NOT_AUTHORIZED)
        self._observer.report(events.TokenRefused(NOT_AUTHORIZED, name, self._retry.rejections, delay))
        if idle:
            self._plan(delay)


def _blames_token(loss: Loss) -> bool:
    return loss.reason is not None and action_for(DISCONNECT, loss.reason) is Action.NEW_TOKEN


def _rejected_again(reason: int, times: int, hint: str, said: str) -> TokenRefusedByBroker:
    cause = f"the broker rejected the token {times} times in a row: {_named(reason, said)}"
    return TokenRefusedByBroker(f"{cause}; {hint}", reason=reason, permanent=True)


def describe(packet: int, reason: int, server: str | None, said: str) -> str:
    """Say what the reason code of a CONNACK or DISCONNECT means, what the broker ``said`` (Reason String), and what a
    person can do about it.
    """
    name = _named(reason, said)
    if server is not None:
        return f"{name}; it names {printable(server)!r} instead: give that as broker"
    if action_for(packet, reason) is Action.GIVE_UP:
        return f"{name}; {advice(reason)}"
    return name


def _named(reason: int, said: str) -> str:
    return f"{reason_name(reason)}: {said}" if said else reason_name(reason)
