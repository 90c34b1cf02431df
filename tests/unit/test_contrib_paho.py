"""attach(): an existing paho-mqtt client on tokens. A scripted broker does what a real one cannot be made to do."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from devtools.servers.processes import wait_until
from mqtt_token_client import (
    AuthorizationServerUnavailable,
    BearerHeader,
    ConfigurationError,
    Password,
    Token,
    TokenKeeper,
)
from mqtt_token_client.contrib.paho import attach
from mqtt_token_client.profiles import Credentials
from tests.unit.packets import CONNECT, DISCONNECT
from tests.unit.scripted_broker import ScriptedBroker

Start = Callable[..., Client]


class Source:
    """Tokens with numbers; the first ones fail if the test wants that."""

    key = "numbered"

    def __init__(self, *, lifetime: float = 60, failures: int = 0) -> None:
        self.lifetime = lifetime
        self.failures = failures
        self.fetched = 0

    def fetch(self, previous: Token | None) -> Token:
        if self.failures:
            self.failures -= 1
            raise AuthorizationServerUnavailable("the server is away")
        self.fetched += 1
        return Token(f"token-{self.fetched}", expires_in=self.lifetime)


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    broker = ScriptedBroker()
    yield broker
    broker.close()


@pytest.fixture
def start(broker: ScriptedBroker) -> Iterator[Start]:
    """``start(source, client, profile)``: a client that is attached and runs."""
    ends: list[Callable[[], object]] = []

    def start(source: Source, client: Client | None = None, profile: Any = "password") -> Client:
        client = client or Client(CallbackAPIVersion.VERSION2, client_id="pump-17")
        keeper = TokenKeeper(source)
        attach(client, keeper, profile)
        client.reconnect_delay_set(min_delay=0)
        client.connect_async("127.0.0.1", broker.port)
        loop = threading.Thread(target=client.loop_forever, args=(0.05,))
        loop.start()
        ends.extend((client.disconnect, loop.join, keeper.close))
        return client

    yield start
    for end in ends:
        end()


def test_the_token_is_the_password(broker: ScriptedBroker, start: Start) -> None:
    start(Source())
    connect = broker.accept().expect(CONNECT)
    assert (connect.username, connect.password) == ("", b"token-1")


def test_a_profile_chooses_the_user_name(broker: ScriptedBroker, start: Start) -> None:
    start(Source(), profile=Password(username="pump"))
    assert broker.accept().expect(CONNECT).username == "pump"


@pytest.mark.parametrize(
    ("version", "protocol", "reason"),
    [
        (CallbackAPIVersion.VERSION1, 4, 5),
        (CallbackAPIVersion.VERSION1, 5, 0x87),
        (CallbackAPIVersion.VERSION2, 4, 4),
        (CallbackAPIVersion.VERSION2, 5, 0x86),
    ],
)
@pytest.mark.filterwarnings("ignore:Callback API version 1:DeprecationWarning")
def test_a_rejected_token_is_not_presented_again(
    broker: ScriptedBroker, start: Start, version: CallbackAPIVersion, protocol: int, reason: int
) -> None:
    reasons: list[Any] = []
    client = Client(version, client_id="pump-17", protocol=MQTTProtocolVersion(protocol))
    client.on_connect = lambda *arguments: reasons.append(arguments[3])
    start(Source(), client)
    peer = broker.accept()
    assert peer.expect(CONNECT).password == b"token-1"
    peer.connack(reason)
    peer.close()
    assert broker.accept().expect(CONNECT).password == b"token-2"
    assert len(reasons) == 1  # the program's own callback


def test_a_lost_connection_is_made_again_with_the_same_token(broker: ScriptedBroker, start: Start) -> None:
    start(Source())
    peer = broker.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.close()
    assert broker.accept().expect(CONNECT).password == b"token-1"


def test_a_connection_moves_onto_the_next_token_by_disconnect(broker: ScriptedBroker, start: Start) -> None:
    start(Source(lifetime=1.5))
    peer = broker.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.expect(DISCONNECT)
    peer.expect_end()
    peer.close()
    assert broker.accept().expect(CONNECT).password == b"token-2"


def test_a_moment_without_a_descriptor_puts_the_rotation_off(
    broker: ScriptedBroker, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    duplicate, failed = os.dup, threading.Event()

    def none_left_at_first(descriptor: int) -> int:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return duplicate(descriptor)

    monkeypatch.setattr(os, "dup", none_left_at_first)
    start(Source(lifetime=3))
    peer = broker.accept()
    peer.expect(CONNECT)
    peer.connack()
    assert failed.wait(10)
    peer.expect(DISCONNECT)
    peer.expect_end()
    peer.close()
    assert broker.accept().expect(CONNECT).password != b"token-1"


def test_a_renewal_that_finds_no_thread_is_tried_again(
    broker: ScriptedBroker, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, failed = threading.Thread.start, threading.Event()

    def none_left_at_first(thread: threading.Thread) -> None:
        if thread.name == "token-renewal" and not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left_at_first)
    start(Source(lifetime=3))
    peer = broker.accept()
    peer.expect(CONNECT)
    peer.connack()
    assert failed.wait(10)
    peer.expect(DISCONNECT)
    peer.expect_end()
    peer.close()
    assert broker.accept().expect(CONNECT).password != b"token-1"


def test_a_broker_that_is_away_at_a_rotation_is_connected_to_later(broker: ScriptedBroker, start: Start) -> None:
    start(Source(lifetime=1.5))
    peer = broker.accept()
    peer.expect(CONNECT)
    peer.connack()
    broker.close_listener()
    peer.expect(DISCONNECT)
    peer.close()
    broker.listen_again()
    assert broker.accept().expect(CONNECT).password != b"token-1"


def test_without_a_token_connect_fails_as_without_a_network() -> None:
    keeper = TokenKeeper(Source(failures=1))
    client = Client(CallbackAPIVersion.VERSION2)
    attach(client, keeper)
    with pytest.raises(ConnectionError, match="no token for the broker: the server is away"):
        client.connect("127.0.0.1", 9)
    keeper.close()


@pytest.mark.parametrize(
    "error", [ConfigurationError("the token has no claim 'sub'"), ValueError("a text with the token"), None]
)
def test_a_profile_that_fails_once_does_not_end_the_loop(
    broker: ScriptedBroker, start: Start, error: Exception | None
) -> None:
    class Fails:
        placed = 0

        def place(self, token: Token, client_id: str) -> Credentials:
            self.placed += 1
            if self.placed != 2:
                return Credentials("pump-17", token.value.encode(), token)
            if error is not None:
                raise error
            return Credentials("pump-17", "a string", token)  # type: ignore[arg-type]  # what a user's may return

    profile = Fails()
    client = start(Source(), profile=profile)
    first = broker.accept()
    first.expect(CONNECT)
    first.connack()
    wait_until(client.is_connected, "the connection")
    first.close()
    second = broker.accept()
    second.expect(CONNECT)
    assert profile.placed == 3
    second.connack()
    wait_until(client.is_connected, "the connection")


def test_callbacks_that_are_set_after_attach_are_called(broker: ScriptedBroker, start: Start) -> None:
    connected, before = threading.Event(), threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id="pump-17")
    client.on_pre_connect = lambda *_: before.set()
    keeper = TokenKeeper(Source())
    attach(client, keeper)
    client.on_connect = lambda *_: connected.set()
    client.connect_async("127.0.0.1", broker.port)
    client.loop_start()
    peer = broker.accept()
    peer.expect(CONNECT)
    peer.connack()
    assert connected.wait(10)
    assert before.is_set()
    client.disconnect()
    client.loop_stop()
    keeper.close()


def test_a_profile_that_paho_cannot_serve_is_refused(broker: ScriptedBroker) -> None:
    keeper = TokenKeeper(Source())
    client = Client(CallbackAPIVersion.VERSION2)
    attach(client, keeper, BearerHeader())
    with pytest.raises(ConfigurationError, match="a user name and a password only"):
        client.connect("127.0.0.1", broker.port)
    keeper.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((object(), TokenKeeper(Source())), "client must be a paho.mqtt.client.Client, got object"),
        ((Client(CallbackAPIVersion.VERSION2), Source()), "keeper must be a TokenKeeper, got Source"),
        (
            (Client(CallbackAPIVersion.VERSION2), TokenKeeper(Source()), "secret"),
            "profile must be one of password, ",
        ),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        attach(*arguments)
