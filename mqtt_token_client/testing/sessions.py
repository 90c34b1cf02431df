"""The broker's clients: who is connected, what each session is sent, and what happens when a connection ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from ..clock import monotonic
from . import packets
from .connection import Connection
from .packets import Auth, Connect, Publish, Will
from .session import Session, matches

_CONTINUE, _RE_AUTHENTICATE = 0x18, 0x19
_UNSUPPORTED_PROTOCOL, _NOT_AUTHORIZED, _TAKEN_OVER, _SHUTTING_DOWN = 0x84, 0x87, 0x8E, 0x8B
_BAD_METHOD = 0x8C
_GRACE = 0.1  # seconds for a client to acknowledge on its first connection what would be sent again otherwise
_FOREVER = 0xFFFF_FFFF  # as a Session Expiry Interval


class Sessions:
    """Runs on the broker's event loop.

    Args:
        expiry_of: when a token expires, in seconds since the epoch; None if it is not valid.
        record: gets each message that a client publishes, and the client's identifier.

    Attributes:
        connections: all that are open, accepted or not.
        rejections: reason codes of MQTT 5, with which the next CONNECTs are answered.
        forbidden: filters of topics that nobody may publish or subscribe to.
    """

    def __init__(self, expiry_of: Callable[[str], float | None], record: Callable[[Publish, str], None]) -> None:
        self.connections: set[Connection] = set()
        self.rejections: deque[int] = deque()
        self.forbidden: list[str] = []
        self._expiry_of = expiry_of
        self.record = record
        self._sessions: dict[str, Session] = {}
        self._current: dict[str, Connection] = {}
        self._retained: dict[str, Publish] = {}
        self._wills: dict[str, asyncio.TimerHandle] = {}  # that are delayed
        self._ends: dict[str, asyncio.TimerHandle] = {}  # of sessions whose client is away
        self._expiries: dict[str, int] = {}  # seconds for which a session is kept

    @property
    def client_ids(self) -> set[str]:
        """The clients that are connected."""
        return set(self._current)

    @property
    def kept(self) -> set[str]:
        """The clients that have a session."""
        return set(self._sessions)

    # Connecting

    def connect(self, connection: Connection, connect: Connect) -> None:
        """A connection has sent CONNECT."""
        if connect.protocol not in (4, 5):
            connection.refuse(_UNSUPPORTED_PROTOCOL)
            return
        if self.rejections:
            connection.refuse(self.rejections.popleft())
            return
        token = _text(connect.properties.get("authentication_data", connect.password))
        expiry = self._expiry_of(token)
        if expiry is None:
            connection.refuse(_NOT_AUTHORIZED)
            return
        connection.token, connection.expiry = token, expiry
        client_id = connect.client_id or f"auto-{uuid4().hex}"
        first = self._current.get(client_id)
        if first is None:
            self._accept(connection, client_id)
            return
        assert first.session is not None
        first.session.pause()  # what is sent from now on would not be acknowledged there
        until = asyncio.get_running_loop().time() + _GRACE
        self._take_over(first, connection, client_id, first.reads, until)

    def _take_over(self, first: Connection, second: Connection, client_id: str, reads: int, until: float) -> None:
        """End the first connection when all that has arrived on it is answered [MQTT-3.1.4-3]."""
        loop = asyncio.get_running_loop()
        session = first.session
        assert session is not None
        if self._current.get(client_id) is first and loop.time() < until:
            if first.reads != reads:
                loop.call_soon(self._take_over, first, second, client_id, first.reads, until)
                return
            if session.unacknowledged:
                loop.call_later(0.001, self._take_over, first, second, client_id, reads, until)
                return
        if (current := self._current.get(client_id)) is not None:
            current.close(_TAKEN_OVER)
            self._leave(current, taken_over=True)
        self._accept(second, client_id)

    def _accept(self, connection: Connection, client_id: str) -> None:
        connect = connection.connect
        assert connect is not None
        if timer := self._ends.pop(client_id, None):
            timer.cancel()
        session = self._sessions.get(client_id)
        known = session is not None and not connect.clean
        if session is None or not known:
            session = self._sessions[client_id] = Session(client_id)
        if timer := self._wills.pop(client_id, None):
            timer.cancel()
        self._current[client_id] = connection
        kept = 0 if connect.clean else _FOREVER  # MQTT 3.1.1
        self._expiries[client_id] = (
            kept if connect.protocol == 4 else connect.properties.get("session_expiry_interval", 0)
        )
        connection.accept(session, session_present=known)
        if connection not in self.connections:  # it was lost while it waited for the end of the first one
            connection.connection_lost(None)

    def reauthenticate(self, connection: Connection, packet: Auth) -> None:
        """A connection has sent AUTH with a new token (MQTT 5 section 4.12.1)."""
        method = packet.properties.get("authentication_method")
        if method is None or method != connection.method or packet.reason != _RE_AUTHENTICATE:
            connection.close(_BAD_METHOD)
            return
        token = _text(packet.properties.get("authentication_data"))
        expiry = self._expiry_of(token)
        if expiry is None:
            connection.close(_NOT_AUTHORIZED)
            return
        connection.token_accepted(token, expiry)
        connection.send(packets.auth(0, method))

    # Messages

    def is_forbidden(self, topic: str) -> bool:
        return any(matches(one, topic) for one in self.forbidden)

    def publish(self, message: Publish, client_id: str | None = None) -> None:
        """Send a message to all who have subscribed to it, and keep it if it is retained."""
        message = message._replace(arrived_at=monotonic())
        if message.retain:
            if message.payload:
                self._retained[message.topic] = message
            else:
                self._retained.pop(message.topic, None)
        for session in list(self._sessions.values()):
            session.deliver(message, client_id)

    def send_retained(self, session: Session, topic_filter: str, handling: int, *, is_new: bool) -> None:
        """Send what is retained for a filter, as the Retain Handling of the subscription says (section 3.8.3.1)."""
        if handling == 0 or (handling == 1 and is_new):
            for topic, message in self._retained.items():
                if matches(topic_filter, topic):
                    session.deliver(message, retained=True)

    # The end of a connection

    def disconnected(self, connection: Connection, expiry: int | None) -> None:
        """DISCONNECT has come, which may change how long the session is kept."""
        if expiry is not None and connection.session is not None:
            self._expiries[connection.session.client_id] = expiry

    def ended(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection.session is not None and self._current.get(connection.session.client_id) is connection:
            self._leave(connection)

    def _leave(self, connection: Connection, *, taken_over: bool = False) -> None:
        session, connect = connection.session, connection.connect
        assert session is not None
        assert connect is not None
        client_id, loop = session.client_id, asyncio.get_running_loop()
        del self._current[client_id]
        session.pause()
        expiry = self._expiries[client_id]
        if connect.will is not None and connection.fires_will:
            delay = min(connect.will.properties.get("will_delay_interval", 0), expiry)
            will = _message(connect.will)
            if delay:
                self._wills[client_id] = loop.call_later(delay, self.publish, will)
            else:
                self.publish(will)
        if not expiry:
            self._forget(client_id)
        elif not taken_over:
            session.leave()
            if expiry != _FOREVER:
                self._ends[client_id] = loop.call_later(expiry, self._forget, client_id)

    def _forget(self, client_id: str) -> None:
        self._sessions.pop(client_id, None)

    def check_tokens(self) -> None:
        """Close the connections whose tokens are not valid any more."""
        for connection in list(self._current.values()):
            if connection.expiry and not self._still_valid(connection):
                connection.close(_NOT_AUTHORIZED)

    def _still_valid(self, connection: Connection) -> bool:
        return connection.expiry > time.time() and self._expiry_of(connection.token) is not None

    def close(self) -> None:
        """End all connections, as a broker that is stopped, without publishing a will."""
        for timer in (*self._wills.values(), *self._ends.values()):
            timer.cancel()
        for connection in list(self.connections):
            connection.fires_will = False
            connection.close(_SHUTTING_DOWN)


def _text(token: bytes | None) -> str:
    return (token or b"").decode(errors="replace")


def _message(will: Will) -> Publish:
    properties: dict[str, Any] = {k: v for k, v in will.properties.items() if k != "will_delay_interval"}
    return Publish(will.topic, will.payload, will.qos, will.retain, properties)
