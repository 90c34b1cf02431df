"""The ways to a broker, on a real one: WebSockets, client certificates, proxies, resumed TLS sessions, several
addresses.
"""

from __future__ import annotations

import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.processes import free_port, wait_until
from devtools.servers.secret_check import remember_secret
from mqtt_token_client import Connected, ConnectFailed, Disconnected, Event, Token, TokenClient
from mqtt_token_client.errors import BrokerUnreachable, ConfigurationError
from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.transport.address import Address
from mqtt_token_client.mqtt.transport.open import open_transport
from tests.integration.traffic import Peer, Traffic, source, trusting
from tests.unit.test_open_transport import Proxy

SECONDS, RATE, ROTATIONS = 4, 100, 5


def url(mosquitto: Mosquitto, way: str) -> str:
    return {
        "ws": f"ws://127.0.0.1:{mosquitto.ws_port}/mqtt",
        "wss": f"wss://localhost:{mosquitto.wss_port}/mqtt",
        "client certificate": f"mqtts://localhost:{mosquitto.client_tls_port}",
    }[way]


def context(pki: Pki, *, certificate: bool) -> ssl.SSLContext:
    context = trusting(pki.ca)
    if certificate:
        context.load_cert_chain(pki.client.certificate, pki.client.key)
    return context


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("way", ["ws", "wss", "client certificate"])
def test_rotates_by_handover_under_traffic_and_loses_nothing(
    oidc: AuthorizationServer, mosquitto: Mosquitto, keys: Keys, pki: Pki, way: str, protocol: int
) -> None:
    name = f"by-{way.replace(' ', '-')}-{protocol}"
    events: list[Event] = []
    client = TokenClient(
        url(mosquitto, way),
        source(oidc),
        client_id=name,
        protocol=protocol,
        tls=context(pki, certificate=way == "client certificate"),
        on_event=events.append,
    )
    with Traffic(client, Peer(mosquitto.port, name, keys.token(3600)), events) as one:
        running = threading.Thread(target=one.run, args=(SECONDS, RATE, lambda number: number % 3))
        running.start()
        for count in range(1, ROTATIONS + 1):
            client.rotate()
            wait_until(lambda expected=count: len(one.rotations) == expected, f"rotation {count}")  # type: ignore[misc]
        running.join()
        one.settle()
        assert {rotation.kind for rotation in one.rotations} == {"handover"}
        assert (one.down.duplicated, one.down.reordered, one.peer.arrivals.reordered) == (0, 0, 0)
        assert one.losses == one.of(ConnectFailed) == []
    assert mosquitto.accepted(name) == ROTATIONS + 1


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that hands each connection to a function, several at once."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                handle(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_rotates_by_handover_through_a_proxy_and_loses_nothing(
    oidc: AuthorizationServer, mosquitto: Mosquitto, keys: Keys, kind: str, protocol: int
) -> None:
    name, password = f"by-{kind}-proxy-{protocol}", "a-secret-of-the-proxy"
    remember_secret(password)
    events: list[Event] = []
    proxy = Proxy(mosquitto.port)
    proxy.credentials = ("pump", password)
    with serving(getattr(proxy, kind)) as port:
        client = TokenClient(
            "mqtt://broker.test:1883",  # which nobody can resolve: there is no other way than the proxy
            source(oidc),
            client_id=name,
            protocol=protocol,
            proxy=f"{kind}://pump:{password}@127.0.0.1:{port}",
            allow_insecure=True,
            on_event=events.append,
        )
        with Traffic(client, Peer(mosquitto.port, name, keys.token(3600)), events) as one:
            running = threading.Thread(target=one.run, args=(2, RATE, lambda number: number % 3))
            running.start()
            for number in range(1, ROTATIONS + 1):
                one.wait_for_load(number * 30)
                client.rotate()
                wait_until(lambda wanted=number: len(one.rotations) == wanted, "the rotation")  # type: ignore[misc]
            running.join()
            one.settle()
    assert {rotation.kind for rotation in one.rotations} == {"handover"}
    assert (one.down.duplicated, one.down.reordered, one.peer.arrivals.reordered) == (0, 0, 0)
    assert one.losses == one.of(ConnectFailed) == []
    asked = "CONNECT broker.test:1883 HTTP/1.1" if kind == "http" else ("broker.test", 1883)
    assert proxy.asked == [asked] * (ROTATIONS + 1)
    assert mosquitto.accepted(name) == ROTATIONS + 1


def test_a_large_message_arrives_whole_by_a_websocket(
    oidc: AuthorizationServer, mosquitto: Mosquitto, pki: Pki
) -> None:
    """Up only: Mosquitto 2.0 needs many seconds to send as much down a WebSocket, to other clients as well."""
    payload, arrived = bytes(range(256)) * 4000, threading.Event()
    got: list[bytes] = []

    def take(message: Any) -> None:
        got.append(message.payload)
        arrived.set()

    with (
        TokenClient(f"mqtt://127.0.0.1:{mosquitto.port}", source(oidc), client_id="plain") as plain,
        TokenClient(url(mosquitto, "wss"), source(oidc), client_id="large", tls=trusting(pki.ca)) as client,
    ):
        plain.subscribe("large", take, qos=1)
        wait_until(lambda: mosquitto.count("Sending SUBACK to plain") == 1, "the subscription")
        client.publish("large", payload, qos=1)
        assert arrived.wait(20)
    assert got == [payload]


def test_an_expired_token_is_answered_the_same_over_a_websocket(mosquitto: Mosquitto, keys: Keys) -> None:
    sock = open_transport(Address("127.0.0.1", mosquitto.ws_port, False, "/mqtt"), None, None)
    assert ask(sock, keys.token(-60)) == b"\x20\x02\x00\x05"
    sock.close()


def ask(sock: socket.socket, token: str) -> bytes:
    """What the broker says to CONNECT, in MQTT 3.1.1."""
    engine = Codec(4)
    sock.send(
        engine.connect(
            client_id="asking",
            clean=True,
            keepalive=60,
            username="",
            password=token.encode(),
            will=None,
            properties={},
        )
    )
    answer = b""
    while len(answer) < 4:
        try:
            piece = sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            assert select.select([sock], [], [], 20)[0], "no CONNACK"
            continue
        assert piece, "closed without CONNACK"
        answer += piece
    return answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("way", ["tls", "wss", "client certificate"])
def test_a_tls_session_is_resumed(
    mosquitto: Mosquitto, keys: Keys, pki: Pki, way: str, version: ssl.TLSVersion
) -> None:
    port = {"tls": mosquitto.tls_port, "wss": mosquitto.wss_port}.get(way, mosquitto.client_tls_port)
    address = Address("localhost", port, True, "/mqtt" if way == "wss" else None)
    tls = context(pki, certificate=way == "client certificate")
    tls.maximum_version = version
    reused, session = [], None
    for _ in range(3):
        sock: Any = open_transport(address, tls, None, session=session)
        assert ask(sock, keys.token()) == b"\x20\x02\x00\x00"
        session = sock.session
        reused.append((sock._sock if way == "wss" else sock).session_reused)
        sock.close()
    assert reused == [False, True, True]


def test_a_session_of_before_a_restart_of_the_broker_costs_nothing(mosquitto: Mosquitto, keys: Keys, pki: Pki) -> None:
    address, tls = Address("localhost", mosquitto.tls_port, True), trusting(pki.ca)
    sock: Any = open_transport(address, tls, None)
    assert ask(sock, keys.token()) == b"\x20\x02\x00\x00"
    session = sock.session
    sock.close()
    mosquitto.stop()
    mosquitto.start()
    sock = open_transport(address, tls, None, session=session)
    assert not sock.session_reused
    assert ask(sock, keys.token()) == b"\x20\x02\x00\x00"
    sock.close()


@pytest.mark.parametrize(
    ("protocol", "cause"),
    [
        (4, "the broker closed the WebSocket: 1000 Normal Closure"),
        (5, "the broker ended the connection: Maximum connect"),
    ],
)
def test_a_websocket_that_ends_with_its_token_is_followed_by_one_with_a_new_token(
    hivemq: HiveMQ, keys: Keys, protocol: int, cause: str
) -> None:
    class EndsSooner:
        """The first token ends before the client expects it to."""

        count = 0

        def fetch(self, previous: Token | None) -> Token:
            self.count += 1
            return Token(keys.token(2 if self.count == 1 else 60, iat=None), 60)

    events: list[Event] = []
    url, name = f"ws://127.0.0.1:{hivemq.ws_port}/mqtt", f"ends-{protocol}"
    with TokenClient(url, EndsSooner(), client_id=name, protocol=protocol, on_event=events.append) as client:
        wait_until(lambda: client.stats.connects == 2, "the second connection")
        client.publish("ends", b"", qos=1).wait(10)
    (lost,) = (event for event in events if isinstance(event, Disconnected))
    assert lost.cause.startswith(cause)
    assert hivemq.accepted(name) == 2


def test_a_websocket_where_there_is_none_is_unreachable(mosquitto: Mosquitto) -> None:
    with pytest.raises(BrokerUnreachable, match=r"closed without an answer|Connection reset by peer"):
        open_transport(Address("127.0.0.1", mosquitto.port, False, "/mqtt"), None, None)


def test_a_web_server_that_is_no_broker_is_for_a_person_to_fix(oidc: AuthorizationServer) -> None:
    port = int(oidc.issuer.split(":")[2].split("/")[0])
    with pytest.raises(ConfigurationError, match="the WebSocket upgrade was answered with HTTP 4"):
        open_transport(Address("127.0.0.1", port, False, "/mqtt"), None, None)


def test_the_second_broker_is_taken_when_the_first_is_down(
    oidc: AuthorizationServer, mosquitto: Mosquitto, pki: Pki
) -> None:
    events: list[Event] = []
    brokers = [f"mqtt://127.0.0.1:{free_port()}", url(mosquitto, "wss")]
    client = TokenClient(brokers, source(oidc), client_id="two", tls=trusting(pki.ca), on_event=events.append)
    with client:
        pass
    (connected,) = (event for event in events if isinstance(event, Connected))
    assert connected.broker == brokers[1]


def test_a_name_whose_first_address_is_dead_leads_to_the_broker_by_the_second(
    oidc: AuthorizationServer, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def both(host: Any, port: Any, *rest: Any, **options: Any) -> list[Any]:
        found: list[Any] = real("127.0.0.1" if host == "broker.test" else host, port, *rest, **options)
        if host == "broker.test":
            found.insert(0, (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)))
        return found

    monkeypatch.setattr(socket, "getaddrinfo", both)
    broker = f"mqtt://broker.test:{mosquitto.port}"
    with TokenClient(broker, source(oidc), client_id="both", allow_insecure=True) as client:
        client.publish("both", b"here", qos=1).wait(20)
    assert mosquitto.accepted("both") == 1
