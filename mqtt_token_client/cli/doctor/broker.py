"""The broker: the connection, CONNECT, and a message there and back."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any

from ...client import TokenClient
from ...config import Config
from ...description import describe
from ...errors import BrokerRefused, BrokerUnreachable, MqttTokenError
from ...events import ConnectFailed, Disconnected, Event, SubscriptionRefused, TokenRefused
from ...logs import printable
from ...mqtt.codec.message import Message
from ...mqtt.transport.open import open_transport
from ...tokens.keeper import TokenKeeper
from ...tokens.rejection import rejection_hint
from .findings import FAILED, NOTE, OK, Finding, failed

_LARGE_TOKEN = 4096  # bytes, more than most tokens have
_SERVER_UNAVAILABLE = 0x88
_PEACE = 2.0  # seconds after which no other client has taken the connection over


class _Watch:
    """The client's events, and how many messages for the device have arrived, which are not acknowledged."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.seen: list[Event] = []
        self.waiting = 0

    def on_message(self, message: Message) -> None:
        self.waiting += message.qos > 0

    def wait(self, kinds: tuple[type[Event], ...], timeout: float) -> Event | None:
        """Return the next event of a kind, None if there is none in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self.events.get(timeout=left)
            except Empty:
                return None
            self.seen.append(event)
            if isinstance(event, kinds):
                return event
        return None


def examine_broker(config: Config, keeper: TokenKeeper, topic: str | None, timeout: float) -> Iterator[Finding]:
    watch = _Watch()
    # Messages for the device are not acknowledged, and so stay. Those from it wait in its journal, which is not opened.
    arguments: dict[str, Any] = {name: value for name, value in config.client.items() if name != "journal"}
    arguments |= {"on_event": watch.events.put, "manual_ack": True, "on_message": watch.on_message}
    try:
        client = TokenClient(tokens=keeper, **arguments)
    except (MqttTokenError, TypeError) as error:
        yield Finding("configuration", FAILED, printable(str(error)))
        return
    if not (yield from _connection(client, keeper)):
        return
    try:
        if (yield from _login(client, watch, timeout)):
            yield from _messages(client, watch, topic or f"{config.client['client_id']}/doctor", timeout)
    finally:
        client.disconnect(timeout=2)


def _connection(client: TokenClient, keeper: TokenKeeper) -> Generator[Finding, None, bool]:
    """Open a connection to each broker, and close it; returns whether one could be opened."""
    settings = client._settings  # noqa: SLF001 - of this library
    try:
        headers = settings.profile.place(keeper.get(), settings.client_id).headers
    except MqttTokenError as error:
        yield failed("token", error)
        return False
    works = False
    for address in settings.brokers:
        began = time.monotonic()
        try:
            context = None if settings.tls is None or not address.tls else settings.tls.look()
            sock = open_transport(address, context, settings.proxy, headers)
        except MqttTokenError as error:
            blocked = isinstance(error, BrokerUnreachable) and "timed out" in str(error)
            yield failed("connection", error, f"see whether a firewall blocks port {address.port}" if blocked else "")
            continue
        with closing(sock):  # a WebSocket is no context manager
            yield Finding("connection", OK, f"{address} in {(time.monotonic() - began) * 1000:.0f} ms{_about(sock)}")
        works = True
    return works


def _about(sock: socket.socket) -> str:
    inner = getattr(sock, "_sock", sock)
    if not isinstance(inner, ssl.SSLSocket):
        return ", not encrypted"
    certificate: Any = inner.getpeercert() or {}
    expires = certificate.get("notAfter")
    return f", {inner.version()}" + (f", certificate until {expires}" if expires else "")


def _login(client: TokenClient, watch: _Watch, timeout: float) -> Generator[Finding, None, bool]:
    """Send CONNECT; returns whether the broker accepted it, and left it alone."""
    try:
        connected = client.connect(timeout=timeout)
    except MqttTokenError as error:
        yield failed("login", error, _remedy(client, error))
        return False
    if not connected:
        failure = watch.wait((ConnectFailed, TokenRefused), 0.1)
        cause = getattr(failure, "error", None)
        if isinstance(cause, MqttTokenError):
            yield failed("login", cause, _remedy(client, cause))
        else:
            text = f"no answer within {timeout:g} s" if failure is None else describe(failure)
            if isinstance(failure, TokenRefused):
                text = f"the broker rejected the token: {failure.reason_name}; {_what_it_got(client)}"
            yield Finding("login", FAILED, text)
        return False
    ended = watch.wait((Disconnected,), _PEACE)
    if isinstance(ended, Disconnected):
        taken = ended.reason == 0x8E
        fix = "another client uses this client id: stop the device's service, or give each its own client_id"
        text = printable(f"accepted, and ended at once: {ended.cause}")
        yield Finding("login", FAILED, text, fix if taken or ended.reason is None else "see the broker's log")
        return False
    yield Finding("login", OK, "the broker accepted the token")
    return True


def _remedy(client: TokenClient, error: MqttTokenError) -> str:
    """What to do where the error alone does not say it."""
    token = client._core.provider.token  # noqa: SLF001 - of this library
    if isinstance(error, BrokerRefused) and error.reason == _SERVER_UNAVAILABLE:
        return "try again later; RabbitMQ answers so, too, if the token's scope lacks a permission (see its log)"
    if isinstance(error, BrokerUnreachable) and token is not None and len(token.value) > _LARGE_TOKEN:
        return (
            f"if this port speaks MQTT, the token may be too large: it has {len(token.value)} bytes, and brokers limit "
            "CONNECT; ask for a token with fewer claims"
        )
    return ""


def _what_it_got(client: TokenClient) -> str:
    """The user name and the token that the broker rejected, and last that its clock may be behind."""
    core = client._core  # noqa: SLF001 - of this library
    token = core.provider.token
    if token is None:
        return ""
    settings = client._settings  # noqa: SLF001 - of this library
    user_name = settings.profile.place(token, settings.client_id).username
    clock, young, got = rejection_hint(token, user_name, settings.client_id).rpartition("; otherwise ")
    return f"{got}; or {clock}" if young else got


def _messages(client: TokenClient, watch: _Watch, topic: str, timeout: float) -> Iterator[Finding]:
    """Subscribe and publish to a topic, and wait for the message."""
    arrived, mark = threading.Event(), os.urandom(8).hex()

    def received(message: Message) -> None:
        if message.payload == mark.encode():
            message.acknowledge()
            arrived.set()
        else:
            watch.on_message(message)

    client.subscribe(topic, received, qos=1)
    delivery = client.publish(topic, mark, qos=1)
    try:
        delivery.wait(timeout)
    except (TimeoutError, MqttTokenError) as error:
        if watch.wait((Disconnected,), 0.1) is not None:  # all that a broker of MQTT 3.1.1 can do; some do with MQTT 5
            text = f"the broker ends the connection when this client subscribes or publishes to {topic}"
            fix = f"allow this client to use {topic}, in the token's scope or at the broker, or choose another --topic"
            yield Finding("publish", FAILED, text, fix)
            return
        if isinstance(error, TimeoutError):
            yield Finding("publish", FAILED, f"{error}", "see the broker's log")
            return
        yield failed("publish", error, f"allow this client to publish to {topic}" if error.permanent else "")
        timeout = 0.5
    else:
        yield Finding("publish", OK, f"to {topic} with QoS 1")
    yield _came_back(watch, topic, arrived.wait(timeout))
    client.unsubscribe(topic)


def _came_back(watch: _Watch, topic: str, arrived: bool) -> Finding:
    """Say whether the message came back, and if not, why."""
    if arrived:
        return Finding("subscribe", OK, f"to {topic}, and the message came back")
    while not watch.events.empty():
        watch.seen.append(watch.events.get())
    refusal = next((event for event in watch.seen if isinstance(event, SubscriptionRefused)), None)
    if watch.waiting and refusal is None:
        first = "1 message waits" if watch.waiting == 1 else f"{watch.waiting} messages wait"
        text = f"{first} for the device, and the broker probably sends no more before they are acknowledged, so that"
        return Finding("subscribe", NOTE, f"{text} nothing came back on {topic}")
    text = f"the broker rejected the subscription to {topic}" if refusal else f"nothing came back on {topic}"
    return Finding("subscribe", FAILED, text, f"allow this client to subscribe to {topic}, or choose another --topic")
