"""Reauthenticate: AUTH carries the new token over the current connection, which just goes on (MQTT 5 section 4.12.1).

This way is for a connection that began with an Authentication Method:

    ASKED  AUTH with the token was sent, and sent again if the broker asked for that; its answer is awaited
    ENDED  the broker answered, or did not in time

If the broker does not answer, the manager hands over instead.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import ClassVar

from ...events import RotationKind
from ...profiles import Credentials
from ..codec.packets import CONTINUE_AUTHENTICATION, RE_AUTHENTICATE, Auth, Connack
from ..codec.reason_codes import reason_name
from ..runtime.base import Runtime
from ..session.delivery import Outgoing
from ..transport import Loss
from ..transport.connection import NetworkConnection
from .attempt import Attempt, AttemptListener, Deadline
from .connect import AUTH_STEPS, send_auth

_AUTH_TIME = 10.0  # seconds for the broker to answer AUTH


class State(Enum):
    ASKED = auto()
    ENDED = auto()


class Reauthenticate(Attempt):
    """A rotation on one connection.

    Args:
        runtime: drives it.
        current: the connection that is up.
        credentials: what AUTH carries.
        listener: gets the result.
    """

    kind: ClassVar[RotationKind] = "re-authentication"

    def __init__(
        self,
        runtime: Runtime,
        current: NetworkConnection[Outgoing],
        credentials: Credentials,
        listener: AttemptListener,
    ) -> None:
        self.credentials = credentials
        self._current = current
        self._listener = listener
        self._state = State.ASKED
        self._deadline = Deadline(runtime)
        self._steps = 0

    def start(self) -> None:
        self._deadline.set(_AUTH_TIME, self._fail)
        send_auth(self._current, RE_AUTHENTICATE, self.credentials)

    def authentication_answered(self, answer: Auth | Connack) -> bool:
        """AUTH goes on or succeeds. CONNACK has no place here in MQTT 5, which has DISCONNECT to reject a token, but
        Mosquitto sends it for that.
        """
        assert self._state is not State.ENDED
        if isinstance(answer, Auth) and answer.reason == CONTINUE_AUTHENTICATION:
            self._continue()
        elif isinstance(answer, Auth) and not answer.reason:
            self.end()
            self._listener.reauthenticated(self.credentials.token)
        elif isinstance(answer, Connack) and answer.reason >= 0x80:
            cause = f"the broker rejected the new token: {reason_name(answer.reason)}"
            self._listener.connection_ended(Loss(cause, answer.reason, by_broker=True))
        else:
            return False
        return True

    def _continue(self) -> None:
        self._steps += 1
        if self._steps > AUTH_STEPS:
            self._fail()
        else:
            send_auth(self._current, CONTINUE_AUTHENTICATION, self.credentials)

    def _fail(self) -> None:
        self.end()
        self._listener.reauthentication_failed(self.credentials.token)

    def end(self) -> None:
        self._state = State.ENDED
        self._deadline.cancel()
