"""A broker in this process: MQTT 5 and 3.1.1, for clients whose password is a JWT."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import jwt

from ..mqtt.codec.properties import pack_properties
from .connection import Connection
from .packets import Publish
from .session import matches
from .sessions import Sessions

if TYPE_CHECKING:
    from joserfc.jwk import KeySetSerialization

_NOT_AUTHORIZED = 0x87
_Result = TypeVar("_Result")


class TokenIssuer(Protocol):
    """What the broker needs of an authorization server."""

    @property
    def issuer(self) -> str: ...
    @property
    def audience(self) -> str: ...
    @property
    def jwks(self) -> KeySetSerialization: ...


class PublishedMessage(NamedTuple):
    """A message that a client has published."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any]
    client_id: str


class Broker:
    """An MQTT broker on loopback that accepts a JWT (RS256) as the password, or as Authentication Data with any
    Authentication Method (MQTT 5), by which a client can present a new token later.

    A context manager: it serves from ``__enter__`` to ``__exit__``, on a thread of its own. An invalid or expired token
    is rejected with Not authorized; when a token expires, the connection that presented it is closed. A client that
    connects a second time takes over its session. Wills, retained messages, Session Expiry, Message Expiry, Receive
    Maximum, Maximum Packet Size and Subscription Identifiers work as MQTT says; shared subscriptions and topic aliases
    are not supported. Nothing is kept when the broker stops, and if it is entered again, it starts anew on the same
    port; until then, :meth:`messages` still has what it had.

    Args:
        authorization_server: issues the accepted tokens: anything with ``issuer``, ``audience`` and ``jwks``.
        port: the port to listen on; 0 selects a free one.

    Attributes:
        port: the port, known while the broker runs.
        url: the broker's URL, known while the broker runs.

    Raises:
        OSError: on ``__enter__``: the port is taken.
    """

    def __init__(self, authorization_server: TokenIssuer, *, port: int = 0) -> None:
        self._issuer = authorization_server
        self.port = port
        self._messages: list[PublishedMessage] = []
        self._new_message = threading.Condition()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._keys = jwt.PyJWKSet.from_dict(dict(self._issuer.jwks))
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._sessions = Sessions(self._expiry_of, self._published)
        self._messages = []
        serving: Future[None] = Future()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._run(listener, serving),), name="broker", daemon=True
        )
        self._thread.start()
        serving.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=10)

    # For tests, on any thread

    @property
    def client_ids(self) -> set[str]:
        """The clients that are connected."""
        return self._on_loop(lambda: self._sessions.client_ids)

    def messages(self, topic_filter: str = "#", count: int = 0, timeout: float = 5.0) -> list[PublishedMessage]:
        """The messages that clients have published so far, wills left out, the oldest first.

        Args:
            topic_filter: which of them.
            count: wait until there are so many.
            timeout: seconds to wait for them.

        Raises:
            TimeoutError: there are fewer after that time.
        """

        def matching() -> list[PublishedMessage]:
            return [message for message in self._messages if matches(topic_filter, message.topic)]

        with self._new_message:
            if self._new_message.wait_for(lambda: len(matching()) >= count, timeout):
                return matching()
            raise TimeoutError(f"{len(matching())} of {count} messages on {topic_filter} in {timeout} s")

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        qos: int = 0,
        *,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a message to all clients that have subscribed to its topic.

        Raises:
            ConfigurationError: MQTT 5 does not allow such a property in a message.
        """
        pack_properties(properties)  # raises the error here rather than when the message is sent
        data = payload.encode() if isinstance(payload, str) else payload
        message = Publish(topic, data, qos, retain, dict(properties or {}))
        self._on_loop(lambda: self._sessions.publish(message))

    def drop(self, client_id: str | None = None) -> None:
        """Break the connection of one client, or of all, without a word, as a bad network does."""
        self._for_each(client_id, Connection.drop)

    def disconnect(self, reason: int = _NOT_AUTHORIZED, client_id: str | None = None) -> None:
        """Close the connection of one client, or of all, with a reason code of MQTT 5."""
        self._for_each(client_id, lambda connection: connection.close(reason))

    def reject(self, reason: int = _NOT_AUTHORIZED, times: int = 1) -> None:
        """Answer the next CONNECTs with a reason code of MQTT 5, which a client of MQTT 3.1.1 gets translated.

        Args:
            reason: such as 0x87 Not authorized, 0x88 Server unavailable.
            times: how many CONNECTs; 0 accepts the next one.
        """

        def change() -> None:
            self._sessions.rejections.clear()
            self._sessions.rejections.extend([reason] * times)

        self._on_loop(change)

    def forbid(self, topic_filter: str) -> None:
        """Reject messages and subscriptions to these topics from now on. In MQTT 3.1.1, which has no answer for that, a
        message is acknowledged and dropped.
        """
        self._on_loop(lambda: self._sessions.forbidden.append(topic_filter))

    def check_tokens(self) -> None:
        """Close the connections whose tokens have been revoked since they were presented."""
        self._on_loop(self._sessions.check_tokens)

    def _for_each(self, client_id: str | None, do: Callable[[Connection], None]) -> None:
        def call() -> None:
            for connection in list(self._sessions.connections):
                session = connection.session
                if client_id is None or (session is not None and session.client_id == client_id):
                    do(connection)

        self._on_loop(call)

    def _on_loop(self, function: Callable[[], _Result]) -> _Result:
        """Call a function on the broker's thread, and wait for what it returns."""
        result: Future[_Result] = Future()

        def call() -> None:
            try:
                result.set_result(function())
            except Exception as error:  # noqa: BLE001 - raised on the thread that waits
                result.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return result.result(timeout=10)

    # On the event loop

    async def _run(self, listener: socket.socket, serving: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(lambda: Connection(self._sessions), sock=listener)
        serving.set_result(None)
        await self._stopping.wait()
        self._loop.remove_reader(listener)
        for _ in range(3):
            await asyncio.sleep(0)  # sockets that were just accepted become connections, which are closed next
        server.close()
        self._sessions.close()
        deadline = self._loop.time() + 1.0
        while self._sessions.connections and self._loop.time() < deadline:
            await asyncio.sleep(0.001)
        for connection in list(self._sessions.connections):  # their clients do not read
            connection.drop()
        await asyncio.sleep(0)

    def _published(self, message: Publish, client_id: str) -> None:
        with self._new_message:
            self._messages.append(PublishedMessage(*message[:5], client_id))
            self._new_message.notify_all()

    def _expiry_of(self, token: str) -> float | None:
        """When a token expires, in seconds since the epoch; None if it is not valid."""
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(
                token,
                key,
                ["RS256"],
                audience=self._issuer.audience,
                issuer=self._issuer.issuer,
                options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, KeyError, ValueError):
            return None
        expiry = float(claims["exp"])  # PyJWT would round it down to a second, which may be a sixth of its lifetime
        is_revoked = getattr(self._issuer, "is_revoked", lambda _jti: False)
        return expiry if expiry > time.time() and not is_revoked(claims.get("jti")) else None
