"""What all attempts to get onto a token have in common.

An attempt begins as an :class:`~.opening.Opening`: a worker obtains a token and opens a transport to the broker. What
follows depends on whether a connection is up. If none is, it is a Connect. If one is, it is a rotation, in one of three
ways: a Handover, a Reconnect or a Reauthenticate. Each of these is a small state machine in a file of its own. A
Handover and a Reconnect have a Connect each, which does the part that they share.

There is one attempt at a time. Whatever becomes of it, it reports that once to its listener, which then ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from ...clock import monotonic
from ...events import RotationKind
from ...profiles import Credentials
from ...token import Token
from ..codec.packets import Auth, Connack, Packet
from ..runtime.base import Runtime, Timer
from ..transport import Loss

if TYPE_CHECKING:
    from .connect import Connect
    from .opening import Opened


class Rejection(NamedTuple):
    """How the broker rejected a connection."""

    token: Token  # that was presented
    reason: int  # the reason code of MQTT 5
    server: str | None = None  # another one, which the broker names (MQTT 5 section 4.11)
    text: str = ""  # the Reason String, printable


class ConnectListener(Protocol):
    """Gets the result of a :class:`~.connect.Connect`: one of these calls, once."""

    def accepted(self, connect: Connect, connack: Connack, packets: list[Packet]) -> None:
        """The broker accepted the connection; these packets came right after CONNACK."""

    def rejected(self, rejection: Rejection) -> None:
        """The broker rejected the connection."""

    def failed(self, error: Exception) -> None:
        """There is no connection, for another reason."""


class AttemptListener(ConnectListener, Protocol):
    """Gets the result of an attempt of any kind, and of what it does with the current connection."""

    def opened(self, opened: Opened) -> None:
        """A transport to the broker is open, and CONNECT is ready to be sent over it."""

    def obtained(self, credentials: Credentials) -> None:
        """The credentials for AUTH are ready."""

    def reauthenticated(self, token: Token) -> None:
        """The broker accepted a new token on the current connection."""

    def reauthentication_failed(self, token: Token) -> None:
        """The broker did not answer AUTH with this token in time; the current connection is still up."""

    def connection_ended(self, loss: Loss) -> None:
        """The current connection has ended."""


class Attempt:
    """The base of all attempts. An instance of this class itself stands for no attempt.

    Attributes:
        kind: of rotation; None if the attempt is not a rotation, or may not become one.
        leavable: whether the session is still on the current connection alone, so that DISCONNECT may be sent there.
        committed: whether the attempt goes on by itself if the current connection ends.
        held_since: since when nothing new has been sent on the current connection; None while it is.
        loss: how the current connection ended during the attempt, if it did: it is lost only if the attempt fails.
        wanted: the newest token when a worker began to obtain one.
    """

    kind: ClassVar[RotationKind | None] = None
    held_since: float | None = None
    loss: Loss | None = None
    wanted: Token | None = None

    @property
    def leavable(self) -> bool:
        return True

    @property
    def committed(self) -> bool:
        return False

    @property
    def gap(self) -> float:
        """For how many seconds nothing new has been sent."""
        return 0.0 if self.held_since is None else monotonic() - self.held_since

    def hold(self) -> None:
        """Send nothing new from now on."""
        if self.held_since is None:
            self.held_since = monotonic()

    def progressed(self) -> None:
        """The current connection may have sent what was waiting."""

    def connection_lost(self, loss: Loss) -> None:  # noqa: ARG002
        """The current connection ended. Called if the attempt is committed."""
        raise AssertionError("this attempt does not outlive the connection")

    def authentication_answered(self, answer: Auth | Connack) -> bool:  # noqa: ARG002
        """Handle an answer to AUTH on the current connection; False if none is awaited."""
        return False

    def conclude(self) -> None:
        """Wait no longer for anything that is not needed, if the broker has accepted the new connection."""

    def close(self, *, disconnect: bool = False) -> None:
        """Close what the attempt has opened: with DISCONNECT, which makes the broker drop the will, if the broker may
        have accepted it unnoticed.
        """

    def end(self) -> None:
        """Stop. Nothing is reported after that."""


class Deadline:
    """At most one timer: setting it cancels the one before."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._timer: Timer | None = None

    def set(self, seconds: float, callback: Callable[[], None]) -> None:
        self.cancel()
        self._timer = self._runtime.call_later(seconds, callback)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
