"""The embedded servers, over real sockets: requests and PyJWT judge the tokens, paho-mqtt the broker, and a client of
a few lines does what paho does not: connect a second time while it is connected.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import jwt
import paho.mqtt.client as mqtt
import pytest
import requests
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.servers.secret_check import remember_secret

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, PINGRESP = 2, 3, 4, 5, 6, 7, 9, 13


@pytest.fixture(scope="module")
def server() -> Iterator[AuthorizationServer]:
    with AuthorizationServer(lifetime=60) as server:
        remember_secret(server.client_secret)
        yield server


@pytest.fixture
def broker(server: AuthorizationServer) -> Iterator[Broker]:
    with Broker(server) as broker:
        yield broker


def ask(server: AuthorizationServer, secret: str | None = None, **parameters: str) -> requests.Response:
    return requests.post(
        f"{server.issuer}/token",
        data={"grant_type": "client_credentials", **parameters},
        auth=(server.client_id, secret or server.client_secret),
        timeout=5,
    )


def token_of(server: AuthorizationServer) -> str:
    token: str = ask(server).json()["access_token"]
    remember_secret(token)
    return token


# The authorization server


@pytest.mark.parametrize("path", ["openid-configuration", "oauth-authorization-server"])
def test_its_metadata_name_the_issuer_and_where_to_go(server: AuthorizationServer, path: str) -> None:
    metadata = requests.get(f"{server.issuer}/.well-known/{path}", timeout=5).json()
    assert metadata["issuer"] == server.issuer
    assert metadata["token_endpoint"] == f"{server.issuer}/token"
    assert requests.get(metadata["jwks_uri"], timeout=5).json() == server.jwks


def test_its_token_is_a_signed_jwt_with_the_claims_of_rfc_9068(server: AuthorizationServer) -> None:
    token = ask(server, scope="mqtt").json()["access_token"]
    header = jwt.get_unverified_header(token)
    key = jwt.PyJWKSet.from_dict(dict(server.jwks))[header["kid"]]
    claims = jwt.decode(token, key, ["RS256"], audience="mqtt", issuer=server.issuer)
    assert header["typ"] == "at+jwt"
    assert claims.keys() >= {"iss", "sub", "aud", "exp", "iat", "jti", "client_id"}
    assert (claims["sub"], claims["scope"]) == (server.client_id, "mqtt")


def test_no_two_tokens_are_the_same(server: AuthorizationServer) -> None:
    assert token_of(server) != token_of(server)


def test_the_client_may_prove_who_it_is_in_the_body(server: AuthorizationServer) -> None:
    body = {
        "grant_type": "client_credentials",
        "client_id": server.client_id,
        "client_secret": server.client_secret,
    }
    answer = requests.post(f"{server.issuer}/token", data=body, timeout=5)
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "Bearer"


def test_a_wrong_secret_is_invalid_client(server: AuthorizationServer) -> None:
    answer = ask(server, secret="wrong")
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize("lifetime", [0.25, 6, 6.0])
def test_expires_in_and_exp_say_the_same_and_whole_seconds_are_an_integer(lifetime: float) -> None:
    with AuthorizationServer(lifetime=lifetime) as server:
        before = time.time()
        answer = ask(server)
        after = time.time()
    claims = jwt.decode(answer.json()["access_token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == pytest.approx(lifetime)
    assert before <= claims["iat"] <= after
    assert f'"expires_in": {lifetime:g},' in answer.text.replace('":', '": ').replace("  ", " ")


def test_the_lifetime_may_be_changed_while_it_runs() -> None:
    with AuthorizationServer(lifetime=60) as server:
        server.lifetime = 2
        assert ask(server).json()["expires_in"] == 2


def test_it_fails_as_often_as_it_was_told_and_then_recovers() -> None:
    with AuthorizationServer() as server:
        server.fail_next(2, status=429, retry_after=7)
        answers = [ask(server) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [429, 429, 200]
        assert answers[0].headers["Retry-After"] == "7"
        assert "Retry-After" not in answers[2].headers
        server.fail_next(100)
        server.fail_next(0)
        assert ask(server).status_code == 200


@pytest.mark.parametrize("lifetime", [0, -1, float("nan")])
def test_a_lifetime_that_is_none_is_refused(lifetime: float) -> None:
    with pytest.raises(ConfigurationError, match="lifetime"):
        AuthorizationServer(lifetime=lifetime)


def test_both_listen_on_127_0_0_1_only(server: AuthorizationServer, broker: Broker) -> None:
    for port in (int(server.issuer.rpartition(":")[2]), broker.port):
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


# The broker: who is let in, and for how long


def paho_client(broker: Broker, token: str, protocol: MQTTProtocolVersion = mqtt.MQTTv311) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "paho", protocol=protocol)
    client.username_pw_set("", token)
    client.connect("127.0.0.1", broker.port)
    return client


@contextlib.contextmanager
def looping(client: mqtt.Client) -> Iterator[mqtt.Client]:
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def connack_of(broker: Broker, token: str, protocol: MQTTProtocolVersion = mqtt.MQTTv311) -> int:
    codes: queue.Queue[int] = queue.Queue()
    client = paho_client(broker, token, protocol=protocol)
    client.on_connect = lambda _c, _u, _f, reason, _p: codes.put(reason.value)
    while codes.empty():
        assert client.loop(timeout=5) is not None
    client.disconnect()
    client.loop(timeout=0.1)
    return codes.get()


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


def test_a_client_of_mqtt_5_is_told_that_it_is_not_spoken_here(server: AuthorizationServer, broker: Broker) -> None:
    assert connack_of(broker, token_of(server), mqtt.MQTTv5) == 0x84


def test_what_is_no_mqtt_is_closed_and_harms_nobody(server: AuthorizationServer, broker: Broker) -> None:
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


# The broker: sessions and connections, seen by a client that may have two at a time


@dataclass(frozen=True)
class Packet:
    kind: int
    flags: int
    body: bytes

    @property
    def identifier(self) -> int:
        start = 2 + int.from_bytes(self.body[:2], "big") if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[start : start + 2], "big")

    @property
    def payload(self) -> bytes:
        start = 2 + int.from_bytes(self.body[:2], "big")
        return self.body[start + 2 :] if self.flags & 6 else self.body[start:]

    @property
    def duplicate(self) -> bool:
        return bool(self.flags & 8)

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)


def text(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128 * 128
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 128, len(body) // 128])
    return bytes([first]) + length + body


class Connection:
    """One connection of a client, as bytes."""

    def __init__(
        self, broker: Broker, token: str, client_id: str = "device", *, clean: bool = False, keepalive: int = 60,
        will: tuple[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        self._socket = socket.create_connection(("127.0.0.1", broker.port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent first arrives first
        self._received = b""
        flags = 0xC0 | clean << 1 | (0x0C if will else 0)
        wills = b"" if will is None else text(will[0].encode()) + text(will[1])
        body = text(b"MQTT") + struct.pack("!BBH", 4, flags, keepalive) + text(client_id.encode()) + wills
        self.send(packet(0x10, body + text(b"") + text(token.encode())))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, timeout: float = 5) -> Packet | None:
        """The next packet, or None at the end of the connection; TimeoutError if nothing comes."""
        self._socket.settimeout(timeout)
        while True:
            if len(self._received) >= 2:
                length, start = self._received[1], 2
                if length & 0x80 and len(self._received) >= 3:
                    length, start = (length & 0x7F) + 128 * self._received[2], 3
                if len(self._received) >= start + length:
                    first, body = self._received[0], self._received[start : start + length]
                    self._received = self._received[start + length :]
                    return Packet(first >> 4, first & 15, body)
            try:
                data = self._socket.recv(65_536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._received += data

    def expect(self, kind: int) -> Packet:
        received = self.receive()
        assert received is not None, "the connection has ended"
        assert received.kind == kind, received
        return received

    def accepted(self) -> bool:
        """Whether the session was present; the connection has to be accepted."""
        connack = self.expect(CONNACK)
        assert connack.body[1] == 0, "refused"
        return bool(connack.body[0])

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self.send(packet(0x82, b"\0\1" + text(topic_filter.encode()) + bytes([qos])))
        self.expect(SUBACK)

    def publish(self, identifier: int, payload: bytes, topic: str = "t", first: int = 0x32) -> None:
        self.send(packet(first, text(topic.encode()) + struct.pack("!H", identifier) + payload))

    def acknowledge(self, identifier: int, first: int = 0x40) -> None:
        self.send(packet(first, struct.pack("!H", identifier)))

    def ping(self) -> None:
        """Returns when all that was sent before has been taken."""
        self.send(b"\xc0\x00")
        self.expect(PINGRESP)

    def ended(self) -> bool:
        while (received := self.receive()) is not None:
            assert received.kind != CONNACK
        return True


@pytest.fixture
def connect(server: AuthorizationServer, broker: Broker) -> Iterator[Callable[..., Connection]]:
    with contextlib.ExitStack() as connections:

        def connect(client_id: str = "device", **options: Any) -> Connection:
            return connections.enter_context(Connection(broker, token_of(server), client_id, **options))

        yield connect


def test_a_connection_ends_with_the_token_that_opened_it(server: AuthorizationServer, broker: Broker) -> None:
    server.lifetime = 0.5
    token = token_of(server)
    server.lifetime = 60
    exp = jwt.decode(token, options={"verify_signature": False})["exp"]
    with Connection(broker, token) as connection:
        connection.accepted()
        assert connection.ended()
    assert 0 <= time.time() - exp < 2


def test_a_second_connection_takes_the_session_over_and_ends_the_first(connect: Callable[..., Connection]) -> None:
    first = connect()
    assert not first.accepted()
    first.subscribe("t")
    second = connect()
    assert second.accepted()
    assert first.ended()
    second.publish(1, b"still subscribed")
    received = {second.receive(), second.receive()}
    assert {one.kind for one in received if one} == {PUBACK, PUBLISH}


def test_the_end_of_the_first_token_does_not_end_the_second_connection(
    server: AuthorizationServer, broker: Broker
) -> None:
    server.lifetime = 0.3
    short = token_of(server)
    server.lifetime = 60
    with Connection(broker, short) as first, Connection(broker, token_of(server)) as second:
        assert first.ended() if first.receive() else True
        second.accepted()
        time.sleep(0.4)
        second.ping()


def test_a_token_that_is_refused_leaves_the_first_connection_as_it_is(
    broker: Broker, connect: Callable[..., Connection]
) -> None:
    first = connect()
    first.accepted()
    first.subscribe("t")
    with Connection(broker, "no token") as second:
        assert second.expect(CONNACK).body == b"\x00\x05"
        assert second.ended()
    with Connection(broker, "no token", clean=True) as second:
        assert second.ended() if second.receive() else True
    first.publish(1, b"as before")
    received = {first.receive(), first.receive()}
    assert {one.kind for one in received if one} == {PUBACK, PUBLISH}


def test_nothing_is_lost_or_doubled_by_take_overs_under_load(connect: Callable[..., Connection]) -> None:
    """A client that holds new messages, goes on with everything else, and moves: 15 times, 100 messages a second."""
    connection, arrived, unacknowledged = connect(), Counter[int](), set[int]()
    doubled_without_dup, order = 0, []
    connection.accepted()
    connection.subscribe("t")

    def handle(one: Packet | None) -> None:
        nonlocal doubled_without_dup
        if one is not None and one.kind == PUBACK:
            unacknowledged.discard(one.identifier)
        elif one is not None:
            with contextlib.suppress(OSError):
                connection.acknowledge(one.identifier)
            number = int(one.payload)
            arrived[number] += 1
            doubled_without_dup += arrived[number] > 1 and not one.duplicate
            if not one.duplicate:
                order.append(number)

    for number in range(1, 301):
        connection.publish(number, str(number).encode())
        unacknowledged.add(number)
        if number % 20 == 0:
            second = connect()
            assert second.accepted()
            while (one := connection.receive()) is not None:
                handle(one)
            assert not unacknowledged, "the first connection ended before all that arrived on it was answered"
            connection = second
        with contextlib.suppress(TimeoutError):
            while True:
                handle(connection.receive(timeout=0.01))
    deadline = time.monotonic() + 5
    while len(arrived) < 300 and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            handle(connection.receive(timeout=0.1))
    assert sorted(arrived) == list(range(1, 301))
    assert not doubled_without_dup
    assert all(earlier < later for earlier, later in pairwise(order))


def test_what_was_not_acknowledged_goes_out_again_with_dup_and_its_identifier(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t")
    other = connect("other")
    other.accepted()
    for number in (1, 2, 3):
        other.publish(number, b"%d" % number)
    identifiers = [connection.expect(PUBLISH).identifier for _ in range(3)]
    connection.acknowledge(identifiers[1])
    connection.ping()

    connection = connect()
    connection.accepted()
    again = [connection.expect(PUBLISH) for _ in range(2)]
    assert [(one.identifier, one.payload, one.duplicate) for one in again] == [
        (identifiers[0], b"1", True),
        (identifiers[2], b"3", True),
    ]
    for one in again:
        connection.acknowledge(one.identifier)
    connection.ping()

    connection = connect()
    connection.accepted()
    connection.ping()  # and nothing before its answer


def test_a_message_of_qos_2_arrives_once_through_a_take_over_in_each_of_its_steps(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t", qos=2)
    other = connect("other")
    other.accepted()
    other.publish(1, b"once", first=0x34)
    other.expect(PUBREC)
    other.acknowledge(1, first=0x62)
    other.expect(PUBCOMP)
    identifier = connection.expect(PUBLISH).identifier

    connection = connect()
    connection.accepted()
    again = connection.expect(PUBLISH)
    assert (again.identifier, again.duplicate) == (identifier, True)
    connection.acknowledge(identifier, first=0x50)
    assert connection.expect(PUBREL).identifier == identifier

    connection = connect()
    connection.accepted()
    assert connection.expect(PUBREL).identifier == identifier
    connection.acknowledge(identifier, first=0x70)
    connection.ping()

    connection = connect()
    connection.accepted()
    connection.ping()


def test_what_waited_for_the_client_arrives_in_order_and_without_retain(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t")
    connection.send(b"\xe0\x00")
    assert connection.ended()
    other = connect("other")
    other.accepted()
    for number in range(10):
        other.publish(number + 1, b"%d" % number)
        other.expect(PUBACK)

    connection = connect()
    assert connection.accepted()
    waited = [connection.expect(PUBLISH) for _ in range(10)]
    assert [(one.payload, one.retain, one.duplicate) for one in waited] == [
        (b"%d" % number, False, False) for number in range(10)
    ]


def test_a_clean_session_begins_with_nothing_and_leaves_nothing(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t")
    clean = connect(clean=True)
    assert not clean.accepted()
    assert connection.ended()
    clean.publish(1, b"to nobody")
    clean.expect(PUBACK)
    clean.subscribe("t")
    clean.send(b"\xe0\x00")
    assert clean.ended()
    connection = connect()
    assert not connection.accepted()
    connection.publish(1, b"to nobody")
    connection.expect(PUBACK)
    connection.ping()


@pytest.mark.parametrize("clean", [False, True])
def test_the_will_is_published_when_the_client_is_lost_and_not_after_disconnect(
    connect: Callable[..., Connection], clean: bool
) -> None:
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


def test_a_client_that_is_silent_for_one_and_a_half_keepalives_is_let_go(connect: Callable[..., Connection]) -> None:
    start = time.monotonic()
    connection = connect(keepalive=1)
    connection.accepted()
    assert connection.ended()
    assert time.monotonic() - start > 1.4


def test_a_packet_that_mqtt_forbids_ends_the_connection_and_the_client_may_come_back(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    connection.accepted()
    connection.publish(1, b"to a wildcard", topic="t/#")
    assert connection.ended()
    connection = connect()
    connection.accepted()
    connection.ping()


# Both as guests of a process


def test_they_are_quiet_and_leave_no_thread_and_no_port(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    before = set(threading.enumerate())
    with AuthorizationServer(lifetime=60) as server, Broker(server) as broker:
        token_of(server)
        ask(server, secret="wrong")
        connack_of(broker, "no token")
        with Connection(broker, token_of(server)) as first, Connection(broker, token_of(server)) as second:
            second.accepted()
            assert first.ended() if first.receive() else True
            second.subscribe("#")
            second.publish(1, b"in flight at the end")
            second.expect(PUBACK)
            held = Connection(broker, token_of(server), "held")
            held.accepted()
        ports = int(server.issuer.rpartition(":")[2]), broker.port
    assert held.ended()
    held.__exit__()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    assert set(threading.enumerate()) <= before
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert capfd.readouterr() == ("", "")


def test_a_broker_comes_back_on_the_same_port_and_has_forgotten_everything(server: AuthorizationServer) -> None:
    with Broker(server) as broker, Connection(broker, token_of(server)) as connection:
        assert not connection.accepted()
    with Broker(server, port=broker.port) as broker, Connection(broker, token_of(server)) as connection:
        assert not connection.accepted()


def test_a_port_that_is_taken_is_an_oserror(server: AuthorizationServer, broker: Broker) -> None:
    with pytest.raises(OSError, match="in use"), Broker(server, port=broker.port):
        pass


def test_several_pairs_live_in_one_process_and_know_only_their_own(server: AuthorizationServer, broker: Broker) -> None:
    with AuthorizationServer() as other_server, Broker(other_server) as other_broker:
        assert connack_of(broker, token_of(server)) == 0
        assert connack_of(other_broker, token_of(other_server)) == 0
        assert connack_of(broker, token_of(other_server)) == 0x87
