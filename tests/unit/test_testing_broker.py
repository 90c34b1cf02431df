"""The embedded broker: who is let in, and for how long."""

from __future__ import annotations

import contextlib
import gc
import queue
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace

import jwt
import paho.mqtt.client as mqtt
import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.testing import AuthorizationServer, Broker, sessions
from tests.unit.embedded import (
    PUBACK,
    PUBLISH,
    Connect,
    Connection,
    connack_of,
    looping,
    paho_client,
    token_of,
)


def test_paho_gets_in_with_a_good_token_and_its_messages_arrive(server: AuthorizationServer, broker: Broker) -> None:
    arrived: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
    client = paho_client(broker, token_of(server))
    client.on_message = lambda _c, _u, message: arrived.put(message)
    with looping(client):
        client.subscribe("a/#", qos=2)
        for qos in (0, 1, 2):
            client.publish("a/b", f"qos {qos}", qos=qos)
        messages = [arrived.get(timeout=5) for _ in range(3)]
    assert {(message.topic, message.payload, message.retain) for message in messages} == {
        ("a/b", b"qos 0", False),
        ("a/b", b"qos 1", False),
        ("a/b", b"qos 2", False),
    }


def expired(server: AuthorizationServer) -> str:
    lifetime, server.lifetime = server.lifetime, 0.001
    token = token_of(server)
    server.lifetime = lifetime
    time.sleep(0.01)
    return token


def of_another_server(_: AuthorizationServer) -> str:
    with AuthorizationServer() as other:
        return token_of(other)


def for_another_audience(server: AuthorizationServer) -> str:
    audience, server.audience = server.audience, "somebody else"
    token = token_of(server)
    server.audience = audience
    return token


def with_another_signature(server: AuthorizationServer) -> str:
    return token_of(server).rpartition(".")[0] + "." + token_of(server).rpartition(".")[2]


@pytest.mark.parametrize(
    "make",
    [expired, of_another_server, for_another_audience, with_another_signature, lambda _: "no token at all"],
)
def test_a_token_that_is_not_good_gets_connack_5(
    server: AuthorizationServer, broker: Broker, make: Callable[[AuthorizationServer], str]
) -> None:
    assert connack_of(broker, make(server)) == 0x87  # how paho shows 5
    assert connack_of(broker, token_of(server)) == 0


def test_a_token_of_another_issuer_is_refused_even_if_its_key_is_the_same(server: AuthorizationServer) -> None:
    issuer = SimpleNamespace(issuer="https://another.example", audience=server.audience, jwks=server.jwks)
    with Broker(issuer) as broker:
        assert connack_of(broker, token_of(server)) == 0x87


def test_a_client_of_mqtt_5_gets_in(server: AuthorizationServer, broker: Broker) -> None:
    assert connack_of(broker, token_of(server), mqtt.MQTTv5) == 0


def test_anything_but_mqtt_is_closed_and_harms_nobody(server: AuthorizationServer, broker: Broker) -> None:
    for nonsense in (
        b"GET / HTTP/1.1\r\n" + b"Host: localhost\r\n" * 5,
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x00",
        b"\x10\x06\x00\x04MQTT",
        b"\x10\x07\x00\x04MQTT\x04",
    ):
        with socket.create_connection(("127.0.0.1", broker.port), timeout=5) as stranger:
            stranger.sendall(nonsense)
            with contextlib.suppress(ConnectionResetError):
                stranger.recv(100)
                assert stranger.recv(100) == b""
    assert connack_of(broker, token_of(server)) == 0


def test_a_connection_ends_with_the_token_that_opened_it(server: AuthorizationServer, broker: Broker) -> None:
    server.lifetime = 0.3
    token = token_of(server)
    server.lifetime = 60
    exp = jwt.decode(token, options={"verify_signature": False})["exp"]
    with Connection(broker, token) as connection:
        connection.accepted()
        assert connection.ended()
    assert 0 <= time.time() - exp < 2


def test_the_end_of_the_first_token_does_not_end_the_second_connection(
    server: AuthorizationServer, broker: Broker
) -> None:
    server.lifetime = 0.3
    short = token_of(server)
    server.lifetime = 60
    with Connection(broker, short) as first, Connection(broker, token_of(server)) as second:
        assert first.ended()
        second.accepted()
        time.sleep(0.4)
        second.ping()


@pytest.mark.parametrize("clean", [False, True])
def test_the_will_is_published_when_the_client_is_lost_and_not_after_disconnect(connect: Connect, clean: bool) -> None:
    watcher = connect("watcher")
    watcher.accepted()
    watcher.subscribe("will/#")
    for client_id, farewell in (("polite", b"\xe0\x00"), ("lost", b"")):
        with connect(client_id, clean=clean, will=(f"will/{client_id}", b"gone")) as connection:
            connection.accepted()
            connection.send(farewell)
            if farewell:
                assert connection.ended()
    will = watcher.expect(PUBLISH)
    assert b"will/lost" in will.body
    assert will.payload == b"gone"


def test_a_take_over_publishes_the_will_of_the_first_connection(connect: Connect) -> None:
    watcher = connect("watcher")
    watcher.accepted()
    watcher.subscribe("will")
    connect(will=("will", b"first")).accepted()
    connect(will=("will", b"second")).accepted()
    assert watcher.expect(PUBLISH).payload == b"first"


def test_a_connection_that_is_lost_while_it_takes_over_ends_as_any_other(
    broker: Broker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_GRACE", 60)  # the broker waits until the first connection acknowledges
    watcher, first = connect("watcher"), connect()
    watcher.accepted()
    watcher.subscribe("will")
    first.accepted()
    first.subscribe("t")
    first.publish(1, b"to myself")
    first.expect(PUBACK)
    identifier = first.expect(PUBLISH).identifier
    with connect(clean=True, will=("will", b"lost")):
        wait_until(lambda: len(broker._sessions.connections) == 3, "the second connection")
        wait_until(lambda: all(one.connect for one in list(broker._sessions.connections)), "its CONNECT")
    wait_until(lambda: len(broker._sessions.connections) == 2, "its end")
    first.acknowledge(identifier)
    assert first.ended()
    assert watcher.expect(PUBLISH).payload == b"lost"
    assert broker.client_ids == broker._sessions.kept == {"watcher"}


def test_a_client_that_is_silent_for_one_and_a_half_keepalives_is_let_go(connect: Connect) -> None:
    start = time.monotonic()
    connection = connect(keepalive=1)
    connection.accepted()
    assert connection.ended()
    assert time.monotonic() - start > 1.4


@pytest.mark.parametrize("topic", ["t/#", "+/t", "$SYS/t"])
def test_a_topic_that_nobody_may_publish_to_ends_the_connection_and_the_client_may_come_back(
    connect: Connect, topic: str
) -> None:
    connection = connect()
    connection.accepted()
    connection.publish(1, b"forbidden", topic)
    assert connection.ended()
    connection = connect()
    connection.accepted()
    connection.ping()


def test_a_client_that_connects_as_the_broker_stops_is_closed_too(server: AuthorizationServer) -> None:
    broker = Broker(server)
    broker.__enter__()
    with socket.socket() as client:

        def connect() -> None:
            client.connect(("127.0.0.1", broker.port))
            broker._loop.call_soon(broker._stopping.set)  # in the turn of the loop that accepts the connection

        broker._on_loop(connect)
        broker._thread.join(10)
        assert client.recv(1) == b""
    gc.collect()  # an unclosed transport is a ResourceWarning


def test_a_broker_that_starts_again_keeps_nothing(server: AuthorizationServer) -> None:
    broker = Broker(server)
    with broker:
        port = broker.port
        broker.publish("kept", "of the first time", retain=True)
        with Connection(broker, token_of(server)) as connection:
            assert not connection.accepted()
            connection.subscribe("mine")
            connection.publish(1, b"1")
            broker.messages(count=1)
        broker.forbid("t")
        broker.reject(times=2)
    assert [message.payload for message in broker.messages()] == [b"1"], "to be looked at after its end"
    with broker, Connection(broker, token_of(server)) as connection:
        assert broker.port == port
        assert broker.messages() == []
        assert not connection.accepted(), "the session is a new one"
        connection.subscribe("kept")
        connection.publish(1, b"2")
        connection.expect(PUBACK)  # nothing was retained, and the topic is not forbidden
