"""Reconnect: the current connection is ended by DISCONNECT before CONNECT goes out on the new one.

This way is for a client whose will the broker may publish when a second connection takes the session over. The new
connection is open and past its TLS handshake before the current one ends:

    FLUSHING    nothing new is sent; what is waiting in the current connection goes out
    ENDING      DISCONNECT was sent on the current connection, and the broker is to close it
    CONNECTING  the current connection has ended, CONNECT was sent on the new one, CONNACK is awaited

If the current connection ends while FLUSHING, it is lost, and the manager goes on with the Connect alone.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import ClassVar

from ...events import RotationKind
from ..codec.packets import Connack, Packet
from ..runtime.base import Runtime
from ..session.delivery import Outgoing
from ..transport import Loss
from ..transport.connection import NetworkConnection
from .attempt import Attempt, AttemptListener, Deadline, Rejection
from .closing import END_TIME, OWN_CLOSE_TIME
from .connect import Connect

_FLUSH_TIME = 5.0  # seconds for the current connection to send what is waiting


class State(Enum):
    FLUSHING = auto()
    ENDING = auto()
    CONNECTING = auto()


class Reconnect(Attempt):
    """A rotation with one connection after the other.

    Args:
        runtime: drives it.
        current: the connection that is up.
        connect: the new connection, ready for CONNECT.
        listener: gets the result.
    """

    kind: ClassVar[RotationKind] = "reconnect"

    def __init__(
        self, runtime: Runtime, current: NetworkConnection[Outgoing], connect: Connect, listener: AttemptListener
    ) -> None:
        self.connect = connect
        connect.listener = self
        self.loss: Loss | None = None
        self._current = current
        self._listener = listener
        self._state = State.FLUSHING
        self._deadline = Deadline(runtime)

    @property
    def leavable(self) -> bool:
        return False

    @property
    def committed(self) -> bool:
        return self._state is not State.FLUSHING

    def start(self) -> None:
        self.hold()
        self._deadline.set(_FLUSH_TIME, self._end_current)
        self.progressed()

    # Called by the current connection

    def progressed(self) -> None:
        if self._state is State.FLUSHING:
            self._current.flush()
            if not self._current.unsent:
                self._end_current()

    def _end_current(self) -> None:
        assert self._state is State.FLUSHING
        self._state = State.ENDING
        self._deadline.set(OWN_CLOSE_TIME, self._end_writing)
        self._current.end()

    def _end_writing(self) -> None:
        self._deadline.set(END_TIME, self._left_open)
        self._current.end_writing()

    def _left_open(self) -> None:
        self._listener.connection_ended(Loss("the broker left the connection open"))

    def connection_lost(self, loss: Loss) -> None:  # noqa: ARG002 - this end was planned
        assert self._state is State.ENDING
        self.loss = Loss("it was ended for a rotation that failed")
        self._state = State.CONNECTING
        self._deadline.cancel()
        self.connect.send()

    # Called by the Connect

    def accepted(self, connect: Connect, connack: Connack, packets: list[Packet]) -> None:
        assert self._state is State.CONNECTING
        self._listener.accepted(connect, connack, packets)

    def rejected(self, rejection: Rejection) -> None:
        if self._state is not State.ENDING:  # otherwise it is noticed again when CONNECT is due
            self._listener.rejected(rejection)

    def failed(self, error: Exception) -> None:
        if self._state is not State.ENDING:
            self._listener.failed(error)

    # Called by the manager

    def close(self, *, disconnect: bool = False) -> None:
        self.connect.close(disconnect=disconnect)

    def end(self) -> None:
        self.connect.end()
        self._deadline.cancel()
