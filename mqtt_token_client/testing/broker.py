"""A broker in this process: MQTT 3.1.1, for clients whose password is a JWT."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from amqtt.adapters import BufferReader
from amqtt.broker import Broker as AmqttBroker
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connack import NOT_AUTHORIZED, UNACCEPTABLE_PROTOCOL_VERSION
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.packet import CONNACK, CONNECT
from amqtt.plugins.base import BaseAuthPlugin
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from .session import Session, read_packet, stop_reading

if TYPE_CHECKING:
    from joserfc.jwk import KeySetSerialization

logging.getLogger("amqtt").addHandler(logging.NullHandler())

_CONNECT_TIMEOUT = 10.0  # seconds
_UNSUPPORTED_BY_MQTT_5 = bytes([CONNACK << 4, 3, 0, 0x84, 0])  # as a client that speaks MQTT 5 reads it


class TokenIssuer(Protocol):
    """What the broker needs of an authorization server."""

    @property
    def issuer(self) -> str: ...
    @property
    def audience(self) -> str: ...
    @property
    def jwks(self) -> KeySetSerialization: ...


class Broker:
    """An MQTT 3.1.1 broker on loopback that accepts a JWT (RS256) as the password.

    A context manager: it serves from ``__enter__`` to ``__exit__``, on a thread of its own. An invalid or expired token
    is answered with CONNACK 5; when a token expires, the connection that presented it is closed. A client that connects
    a second time takes over its session, and the first connection's Will is published [MQTT-3.1.2-8]; if its token is
    rejected, the first connection stays. Nothing is kept when the broker stops.

    Unlike MQTT, it delivers a message with the subscription's QoS even if it was published with a lower one.

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

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._keys = KeySet.import_key_set(self._issuer.jwks)
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        serving: Future[None] = Future()
        serve = self._run(listener, serving)
        self._thread = threading.Thread(target=asyncio.run, args=(serve,), name="broker", daemon=True)
        self._thread.start()
        serving.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=10)

    async def _run(self, listener: socket.socket, serving: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._accepting = asyncio.Lock()
        self._sessions: dict[str, Session] = {}
        connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.create_task(self._serve(reader, writer))
            connections[connection] = writer
            connection.add_done_callback(lambda _: connections.pop(connection).close())

        try:
            self._amqtt = AmqttBroker({"listeners": {"default": {"type": "external"}}, "plugins": {_ADMIT: {}}})
            await self._amqtt.start()
            server = await asyncio.start_server(accept, sock=listener)
        except Exception as error:  # noqa: BLE001 - raised on the thread that waits
            serving.set_exception(error)
            return
        serving.set_result(None)
        await self._stopping.wait()
        self._loop.remove_reader(listener)
        for _ in range(3):
            await asyncio.sleep(0)  # sockets that asyncio has just accepted become connections, which are closed below
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.gather(*(session.end() for session in self._sessions.values()))
        await self._amqtt.shutdown()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, from its first packet to its end."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                packet = await read_packet(reader)
            if packet[0] >> 4 != CONNECT:
                return
            level = packet[packet.find(b"MQTT") + 4 :][:1]  # MQTT 3.1.1 section 3.1.2.2
            if level != b"\x04":
                writer.write(_UNSUPPORTED_BY_MQTT_5 if level == b"\x05" else _refusal(UNACCEPTABLE_PROTOCOL_VERSION))
                return
            connect = await ConnectPacket.from_stream(BufferReader(packet))
            expiry = self._expiry(connect.password or "")
            if expiry is None:
                writer.write(_refusal(NOT_AUTHORIZED))
                return
            timer = self._loop.call_later(expiry - time.time(), stop_reading, reader, writer)
            try:
                await self._serve_client(packet, connect, reader, writer)
            finally:
                timer.cancel()
        except (EOFError, OSError, AMQTTError, MQTTError, NoDataError):
            pass  # the client is gone, or does not speak MQTT

    async def _serve_client(
        self, packet: bytes, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a client whose token is valid: start its session, or resume it."""
        client_id = connect.client_id
        async with self._accepting:
            session = self._sessions.get(client_id)
            if session is not None and not (connect.clean_session_flag or session.clean or session.over):
                await session.move(connect, reader, writer)
            else:
                await self._forget(client_id)
                session = self._sessions[client_id] = Session(self._amqtt, packet, connect, reader, writer)
        await session.wait_closed()
        if session.clean:
            async with self._accepting:
                if self._sessions.get(client_id) is session:
                    await self._forget(client_id)

    async def _forget(self, client_id: str) -> None:
        """Discard a client's session, if there is one [MQTT-3.1.2-6]."""
        if client_id in self._sessions:
            await self._sessions.pop(client_id).end()
            # amqtt itself would keep it for up to a second, and resume it if the client came back by then.
            self._amqtt.sessions.pop(client_id, None)
            for subscribers in self._amqtt.subscriptions.values():
                subscribers[:] = [(session, qos) for session, qos in subscribers if session.client_id != client_id]

    def _expiry(self, token: str) -> float | None:
        """Return when a token expires, in seconds since the epoch; None if it is not valid."""
        required = jwt.BaseClaimsRegistry(
            iss={"essential": True, "value": self._issuer.issuer},
            aud={"essential": True, "value": self._issuer.audience},
        )
        try:
            claims = jwt.decode(token, self._keys, ["RS256"]).claims
            required.validate(claims)
        except (JoseError, ValueError):
            return None
        expiry = claims.get("exp")
        return expiry if isinstance(expiry, int | float) and expiry > time.time() else None


def _refusal(code: int) -> bytes:
    return bytes([CONNACK << 4, 2, 0, code])


class _Admit(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Accepts every client: the token is checked before amqtt gets the connection."""

    async def authenticate(self, **_: Any) -> bool:
        return True

    @dataclass
    class Config:
        """amqtt requires this class; there is nothing to configure."""


_ADMIT = f"{__name__}.{_Admit.__name__}"
