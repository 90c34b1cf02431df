"""One connection of a client to the broker: from CONNECT to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..mqtt.codec.packets import CONNECT, PUBACK, PUBCOMP, PUBREC, PUBREL
from . import packets
from .packets import Acknowledgement, Auth, Connect, Disconnect, Packet, Pingreq, Publish, Subscribe, Unsubscribe
from .session import Session

if TYPE_CHECKING:
    from .sessions import Sessions

_CONNECT_TIMEOUT = 10.0  # seconds
_DISCONNECT_WITH_WILL = 0x04
_MALFORMED, _PROTOCOL_ERROR, _NOT_AUTHORIZED = 0x81, 0x82, 0x87
_NO_SUBSCRIPTION_EXISTED, _PACKET_IDENTIFIER_NOT_FOUND, _SHARED_NOT_SUPPORTED = 0x11, 0x92, 0x9E
_HIGHEST_PACKET_ID = 65_535
_LARGEST_PACKET = 268_435_460  # bytes


class Connection(asyncio.Protocol):
    """Reads packets and answers them. Runs on the broker's event loop.

    Attributes:
        connect: its CONNECT, once that has arrived.
        session: the client's, once the connection is accepted.
        fires_will: whether its end publishes the will: unless DISCONNECT has come.
        token: the one that was presented last.
        expiry: when it expires, in seconds since the epoch.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.connect: Connect | None = None
        self.session: Session | None = None
        self.fires_will = True
        self.token = ""
        self.expiry = 0.0
        self._sessions = sessions
        self._transport: asyncio.Transport
        self._data = bytearray()
        self._reads = 0  # how often data has arrived
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sessions.connections.add(self)
        self._after(_CONNECT_TIMEOUT, "connect", self.close)

    def connection_lost(self, _error: Exception | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._sessions.connections.discard(self)
        self._sessions.ended(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._reads += 1
        self._keep_alive()
        self._process()

    def _process(self) -> None:
        try:
            while not self._transport.is_closing() and (self.connect is None or self.session is not None):
                found = packets.split(self._data)
                if found is None:
                    return
                first, body = found
                if (self.connect is None) is not (first == CONNECT):
                    raise ValueError("CONNECT is the first packet, and comes once")  # noqa: TRY301
                self._do(packets.read(first, body, self._protocol))
        except (ValueError, IndexError):
            self.close(_MALFORMED)

    @property
    def _protocol(self) -> int:
        return 4 if self.connect is None else self.connect.protocol

    def _after(self, seconds: float, name: str, function: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, function)

    def _keep_alive(self) -> None:
        if self.connect is not None and self.connect.keepalive:
            self._after(1.5 * self.connect.keepalive, "keepalive", self.close)  # [MQTT-3.1.2-22]

    # For the sessions

    def send(self, data: bytes) -> None:
        """Send a packet, unless the connection is closing."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def accept(self, session: Session, *, session_present: bool) -> None:
        """Answer CONNECT and go on with the session."""
        assert self.connect is not None
        self.session = session
        self._timers.pop("connect").cancel()
        self.token_accepted(self.token, self.expiry)
        properties: dict[str, Any] = {"shared_subscription_available": 0}
        if not self.connect.client_id:
            properties["assigned_client_identifier"] = session.client_id
        if (method := self.method) is not None:
            properties["authentication_method"] = method
        self.send(packets.connack(self._protocol, 0, properties, session_present=session_present))
        limits = {"receive_maximum": _HIGHEST_PACKET_ID, "maximum_packet_size": _LARGEST_PACKET}
        announced = {name: self.connect.properties.get(name, limit) for name, limit in limits.items()}
        session.resume(self._protocol, self.send, **announced)
        self._process()

    def refuse(self, reason: int) -> None:
        """Answer CONNECT with a reason code of MQTT 5, and close."""
        assert self.connect is not None
        self.send(packets.connack(self.connect.protocol, reason, {}))
        self._transport.close()

    def token_accepted(self, token: str, expiry: float) -> None:
        """Close the connection when this token expires, and not before."""
        self.token, self.expiry = token, expiry
        self._after(max(0.0, expiry - time.time()), "token", lambda: self.close(_NOT_AUTHORIZED))

    @property
    def method(self) -> str | None:
        """The Authentication Method of CONNECT."""
        return None if self.connect is None else self.connect.properties.get("authentication_method")

    @property
    def reads(self) -> int:
        """How often data has arrived."""
        return self._reads

    def close(self, reason: int = 0) -> None:
        """Close the connection; in MQTT 5 with the reason, if there is one and the client was accepted."""
        if reason and self._protocol == 5 and self.session is not None:
            self.send(packets.disconnect(reason))
        self._transport.close()

    def drop(self) -> None:
        """Close the connection as a broken network does, without sending what waits."""
        self._transport.abort()

    # Packets

    def _do(self, packet: Packet) -> None:
        if isinstance(packet, Connect):
            self.connect = packet
            self._keep_alive()
            self._sessions.connect(self, packet)
            return
        session = self.session
        assert session is not None
        match packet:
            case Publish():
                self._publish(session, packet)
            case Acknowledgement():
                self._acknowledge(session, packet)
            case Subscribe():
                self._subscribe(session, packet)
            case Unsubscribe(packet_id, filters):
                known = [session.subscriptions.pop(one, None) is not None for one in filters]
                codes = [0 if one else _NO_SUBSCRIPTION_EXISTED for one in known]
                self.send(packets.unsuback(self._protocol, packet_id, codes))
            case Pingreq():
                self.send(packets.PINGRESP)
            case Auth():
                self._sessions.reauthenticate(self, packet)
            case Disconnect(reason, properties):
                self.fires_will = reason == _DISCONNECT_WITH_WILL
                self._sessions.disconnected(self, properties.get("session_expiry_interval"))
                self._transport.close()

    def _publish(self, session: Session, message: Publish) -> None:
        is_new = message.qos < 2 or message.packet_id not in session.received
        forbidden = self._sessions.is_forbidden(message.topic)
        if forbidden and message.qos and self._protocol == 5:
            self.send(packets.acknowledge(PUBACK if message.qos == 1 else PUBREC, message.packet_id, _NOT_AUTHORIZED))
            return
        if is_new and not forbidden:
            self._sessions.record(message, session.client_id)  # now: a test may look as soon as it is acknowledged
        if message.qos == 1:
            self.send(packets.acknowledge(PUBACK, message.packet_id))
        elif message.qos == 2:
            session.received.add(message.packet_id)
            self.send(packets.acknowledge(PUBREC, message.packet_id))
        if is_new and not forbidden:
            self._sessions.publish(message, session.client_id)

    def _acknowledge(self, session: Session, packet: Acknowledgement) -> None:
        if packet.kind == PUBREL:
            known = packet.packet_id in session.received
            session.received.discard(packet.packet_id)
            reason = 0 if known or self._protocol == 4 else _PACKET_IDENTIFIER_NOT_FOUND
            self.send(packets.acknowledge(PUBCOMP, packet.packet_id, reason))
        elif packet.kind == PUBREC and packet.reason < 0x80:
            session.half_acknowledged(packet.packet_id)
        else:
            session.acknowledged(packet.packet_id)

    def _subscribe(self, session: Session, packet: Subscribe) -> None:
        codes = []
        for topic_filter, options in packet.filters.items():
            if topic_filter.startswith("$share/"):
                codes.append(_SHARED_NOT_SUPPORTED if self._protocol == 5 else 0x80)
                continue
            if self._sessions.is_forbidden(topic_filter):
                codes.append(_NOT_AUTHORIZED if self._protocol == 5 else 0x80)
                continue
            is_new = topic_filter not in session.subscriptions
            session.subscriptions[topic_filter] = (options, packet.identifier)
            codes.append(options & 3)
            self._sessions.send_retained(session, topic_filter, options >> 4 & 3, is_new=is_new)
        self.send(packets.suback(self._protocol, packet.packet_id, codes))
