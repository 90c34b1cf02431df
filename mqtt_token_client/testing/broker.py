"""A broker inside this process: MQTT 3.1.1 for clients that bring a JWT as their password."""

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

_CONNECT_WITHIN = 10.0  # seconds that a connection may take to say CONNECT
_UNSUPPORTED_BY_MQTT_5 = bytes([CONNACK << 4, 3, 0, 0x84, 0])  # as a client that speaks MQTT 5 reads it


class TokenIssuer(Protocol):
    """What a broker has to know of an authorization server."""

    @property
    def issuer(self) -> str: ...
    @property
    def audience(self) -> str: ...
    @property
    def jwks(self) -> KeySetSerialization: ...


class Broker:
    """An MQTT 3.1.1 broker on loopback that lets a client in with a JWT (RS256) as its password.

    A context manager: it serves from ``__enter__`` to ``__exit__``, in a thread of its own. A bad or expired token is
    answered with CONNACK 5; when a token ends, the connection that it opened ends. A client that connects a second
    time takes its session over, and the first connection's Will is published [MQTT-3.1.2-8]; a token that is refused
    leaves the first connection as it is. Everything is forgotten when the broker ends.

    Unlike MQTT it delivers a message with the subscription's QoS even if it was published with a lower one.

    Args:
        authorization_server: whose tokens are good: anything with ``issuer``, ``audience`` and ``jwks``.
        port: the port to listen on; 0 picks a free one.

    Attributes:
        port: the port, known while the broker runs.
        url: the broker's URL, likewise.

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
        except Exception as error:  # noqa: BLE001 - it belongs to the thread that waits
            serving.set_exception(error)
            return
        serving.set_result(None)
        await self._stopping.wait()
        self._loop.remove_reader(listener)
        for _ in range(3):
            await asyncio.sleep(0)  # what asyncio has just accepted becomes a connection, which is closed below
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.gather(*(session.end() for session in self._sessions.values()))
        await self._amqtt.shutdown()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See one connection through, from its first packet to its end."""
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                packet = await read_packet(reader)
            if packet[0] >> 4 != CONNECT:
                return
            level = packet[packet.find(b"MQTT") + 4 :][:1]  # MQTT 3.1.1 section 3.1.2.2
            if level != b"\x04":
                writer.write(_UNSUPPORTED_BY_MQTT_5 if level == b"\x05" else _refusal(UNACCEPTABLE_PROTOCOL_VERSION))
                return
            connect = await ConnectPacket.from_stream(BufferReader(packet))
            ends = self._end_of_token(connect.password or "")
            if ends is None:
                writer.write(_refusal(NOT_AUTHORIZED))
                return
            timer = self._loop.call_later(ends - time.time(), stop_reading, reader, writer)
            try:
                await self._serve_client(packet, connect, reader, writer)
            finally:
                timer.cancel()
        except (EOFError, OSError, AMQTTError, MQTTError, NoDataError):
            pass  # the client is gone, or speaks something else than MQTT

    async def _serve_client(
        self, packet: bytes, connect: ConnectPacket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a client whose token is good: open its session, or go on with it."""
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
        """End a client's session, if there is one, and leave nothing of it [MQTT-3.1.2-6]."""
        if client_id in self._sessions:
            await self._sessions.pop(client_id).end()
            # amqtt itself would keep it for up to a second, and go on with it if the client came back by then.
            self._amqtt.sessions.pop(client_id, None)
            for subscribers in self._amqtt.subscriptions.values():
                subscribers[:] = [(session, qos) for session, qos in subscribers if session.client_id != client_id]

    def _end_of_token(self, token: str) -> float | None:
        """When a token ends, in seconds since the epoch, or None for one that is not good."""
        wanted = jwt.BaseClaimsRegistry(
            iss={"essential": True, "value": self._issuer.issuer},
            aud={"essential": True, "value": self._issuer.audience},
        )
        try:
            claims = jwt.decode(token, self._keys, ["RS256"]).claims
            wanted.validate(claims)
        except (JoseError, ValueError):
            return None
        ends = claims.get("exp")
        return ends if isinstance(ends, int | float) and ends > time.time() else None


def _refusal(code: int) -> bytes:
    return bytes([CONNACK << 4, 2, 0, code])


class _Admit(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Lets everybody in: the token has been checked before amqtt hears of a client."""

    async def authenticate(self, **_: Any) -> bool:
        return True

    @dataclass
    class Config:
        """None."""


_ADMIT = f"{__name__}.{_Admit.__name__}"
