"""Handover: the broker accepts a second connection with the new token before the current one goes.

    SETTLING    PINGREQ was sent on the current connection, where everything goes on. Once it is answered, the broker
                has read all that was sent before it
    HOLDING     a second PINGREQ was sent, and nothing new after it: the broker reads what the current connection
                still carries
    CONNECTING  CONNECT was sent on the new connection, CONNACK is awaited
    DRAINING    the broker accepted the token and moved the session over. What it sent on the current connection before
                that is read to the end
    ENDED       nothing more is reported

A connection that has been quiet begins with CONNECTING. Messages of QoS 0 that were sent between the two PINGREQs are
sent again on the new connection if the second PINGREQ was not answered by then. If the broker rejects the token, the
current connection just goes on. If the current connection ends before CONNECTING, the manager goes on with the Connect
alone.
"""

from __future__ import annotations

import functools
from enum import Enum, auto
from typing import ClassVar

from ...clock import monotonic
from ...events import RotationKind
from ...logs import get_logger
from ..codec.packets import Connack, Packet
from ..runtime.base import Runtime
from ..session.delivery import Outgoing
from ..session.session import Session
from ..transport import Loss
from ..transport.connection import NetworkConnection
from .attempt import Attempt, AttemptListener, Deadline, Rejection
from .connect import Connect
from .traits import BrokerTraits

log = get_logger("mqtt_token_client.mqtt")

# Seconds, all of them.
_QUIET_TIME = 1.0  # a connection that sent nothing for so long has nothing on its way
_SETTLE_TIME = 5.0  # for the broker to answer the first PINGREQ
# For the broker to read the rest of what the current connection carries. If it is near, its answer is awaited, busy or
# not. If it is far, it is not: both connections are equally long, so a head start is enough.
_HEAD_START, _HEAD_START_NEAR, _NEAR = 0.005, 0.1, 0.015
_DRAIN_TIME = 0.5  # for the end of the current connection to arrive once the new one is accepted
_DRAIN_TIME_IN_VAIN = 0.05  # the same, for a broker that left the old connection open the last time


class State(Enum):
    SETTLING = auto()
    HOLDING = auto()
    CONNECTING = auto()
    DRAINING = auto()
    ENDED = auto()


class Handover(Attempt):
    """A rotation in which two connections are up for a moment.

    Args:
        runtime: drives it.
        session: keeps messages of QoS 0 that the broker may not have read.
        traits: of the broker; what is learnt is added.
        current: the connection that is up.
        connect: the new connection, ready for CONNECT.
        listener: gets the result.
    """

    kind: ClassVar[RotationKind] = "handover"

    def __init__(
        self,
        runtime: Runtime,
        session: Session,
        traits: BrokerTraits,
        current: NetworkConnection[Outgoing],
        connect: Connect,
        listener: AttemptListener,
    ) -> None:
        self.connect = connect
        connect.listener = self
        self.loss: Loss | None = None
        self._session = session
        self._traits = traits
        self._current = current
        self._listener = listener
        self._state = State.SETTLING
        self._deadline = Deadline(runtime)
        self._answer: tuple[Connack, list[Packet]] = Connack(False, 0, {}), []  # once it is DRAINING

    @property
    def leavable(self) -> bool:
        return False

    @property
    def committed(self) -> bool:
        return self._state in (State.CONNECTING, State.DRAINING)

    def start(self) -> None:
        """Let the broker read what the current connection carries before it may read CONNECT on the new one: it does
        not say which messages of QoS 0 it has not read by then.
        """
        if not self._current.unsent and monotonic() - self._current.keepalive.last_out >= _QUIET_TIME:
            self._send_connect()
            return
        self._deadline.set(_SETTLE_TIME, self._hold_back)
        self._session.keep_written()
        self._current.keepalive.ping(functools.partial(self._settled, monotonic()))

    def _settled(self, pinged_at: float) -> None:
        """The broker has read what was sent before the first PINGREQ."""
        if self._state is State.SETTLING:
            self._traits.round_trip = min(self._traits.round_trip, monotonic() - pinged_at)
            self._hold_back()

    def _hold_back(self) -> None:
        """Send nothing new for a moment: a broker that is busy with the current connection may be late to end it, and
        serve both (RabbitMQ), which changes the order of messages.
        """
        assert self._state is State.SETTLING
        self._state = State.HOLDING
        self.hold()
        near = self._traits.round_trip < _NEAR
        self._deadline.set(_HEAD_START_NEAR if near else _HEAD_START, self._send_connect)
        self._current.keepalive.ping(self._all_read)

    def _all_read(self) -> None:
        """The broker has read everything that was sent on the current connection."""
        if self._state is State.ENDED:
            return
        self._session.confirmed()
        if self._state is State.HOLDING:
            self._send_connect()

    def _send_connect(self) -> None:
        assert not self.committed
        self._state = State.CONNECTING
        self.hold()
        self._deadline.cancel()
        self.connect.send()

    # Called by the current connection

    def connection_lost(self, loss: Loss) -> None:
        assert self.committed
        self.loss = loss
        if self._state is State.DRAINING:
            self.conclude()

    # Called by the Connect

    def accepted(self, connect: Connect, connack: Connack, packets: list[Packet]) -> None:
        assert self._state is State.CONNECTING
        self._state = State.DRAINING
        self._answer = connack, packets
        if self.loss is not None:
            self.conclude()
            return
        # What the broker sent on the current connection comes before what it sends on the new one.
        connect.connection.pause_reading()
        in_vain = self._traits.leaves_old_connection_open
        self._deadline.set(_DRAIN_TIME_IN_VAIN if in_vain else _DRAIN_TIME, self.conclude)
        self._current.read()

    def rejected(self, rejection: Rejection) -> None:
        self._listener.rejected(rejection)

    def failed(self, error: Exception) -> None:
        self._listener.failed(error)

    # Called by the manager

    def conclude(self) -> None:
        if self._state is State.DRAINING:
            try:
                self._listener.accepted(self.connect, *self._answer)
            except Exception:
                log.exception("an error of this library, please report it; the connection is made again")
                self.loss = self.loss or Loss("an internal error")  # the current connection is not used any more
                self.connect.connection.fail("an internal error")

    def close(self, *, disconnect: bool = False) -> None:
        self.connect.close(disconnect=disconnect)

    def end(self) -> None:
        self._state = State.ENDED
        self.connect.end()
        self._deadline.cancel()
        self._session.confirmed()
