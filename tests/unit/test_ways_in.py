"""A connection uses the ways in: the token in the WebSocket upgrade, its close codes, resumed TLS sessions."""

from __future__ import annotations

import contextlib
import ssl
from typing import cast

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import (
    Backoff,
    Connected,
    ConnectFailed,
    Disconnected,
    RenewalPolicy,
    Rotated,
    RotationFailed,
    Token,
    TokenRefused,
)
from mqtt_token_client.clock import monotonic
from mqtt_token_client.profiles import Credentials
from tests.unit.device import Make, password
from tests.unit.packets import CONNECT, PUBACK, PUBLISH
from tests.unit.scripted_broker import PATIENCE, Peer, ScriptedBroker
from tests.unit.websocket_server import WebSocketPeer, close_frame


@pytest.fixture
def make(make_in_real_time: Make) -> Make:
    """The handshakes of TLS and WebSocket block both sides."""
    return make_in_real_time


class WebSocketBroker(ScriptedBroker):
    """It records the token that each upgrade carried, and rejects as many of them as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"ws://127.0.0.1:{self.port}/mqtt"
        self.tokens: list[str] = []
        self.refusals = 0

    def accept(self, timeout: float = PATIENCE) -> Peer:
        while self.refusals:
            self.refusals -= 1
            self.refuse(401)
        self.last = self._upgrade(timeout)
        self.last.accept()
        self.tokens.append(self.last.headers.get("authorization", ""))
        self._peers.append(Peer(cast("ssl.SSLSocket", self.last)))
        return self._peers[-1]

    def refuse(self, status: int, *lines: str) -> None:
        """Answer the next upgrade with this status and these lines of the head."""
        upgrade = self._upgrade(PATIENCE)
        upgrade.refuse(status, *lines)
        self.tokens.append(upgrade.headers.get("authorization", ""))
        upgrade.close()

    def _upgrade(self, timeout: float) -> WebSocketPeer:
        self._listener.settimeout(timeout)
        sock = self._listener.accept()[0]
        sock.settimeout(PATIENCE)
        return WebSocketPeer(sock)

    def close_websocket(self, code: int) -> None:
        self.last.sock.sendall(close_frame(code))


def bearer(token: Token, _client_id: str) -> Credentials:
    return Credentials(None, None, token, headers={"Authorization": f"Bearer {token.value}"})


def test_a_token_that_the_upgrade_is_refused_for_is_replaced_at_once(make: Make) -> None:
    broker = WebSocketBroker()
    broker.refusals = 1
    device = make(5, broker=broker, profile=bearer)
    device.client.connect(timeout=0)
    peer = broker.accept()
    connect = peer.expect(CONNECT)
    peer.connack()
    device.event(Connected)
    (refused,) = device.reported(TokenRefused)
    assert (refused.reason, refused.retry_in) == (0x87, 0.0)
    assert broker.tokens == [f"Bearer {password(number).decode()}" for number in (1, 2)]
    assert connect.password is None


class TestAnUpgradeThatIsPutOff:
    """RFC 9110 section 10.2.3."""

    def test_is_tried_again_after_retry_after_at_the_earliest_and_not_by_all_at_once(self, make: Make) -> None:
        broker = WebSocketBroker()
        device = make(5, broker=broker, backoff=Backoff(initial=60.0, maximum=60.0))
        device.client.connect(timeout=0)
        broker.refuse(503, "Retry-After: 1000")
        assert 1000 < device.event(ConnectFailed).retry_in <= 1060

    def test_is_not_tried_earlier_if_the_connection_that_was_up_ends_meanwhile(self, make: Make) -> None:
        broker = WebSocketBroker()
        device = make(5, broker=broker, backoff=Backoff(initial=60.0, maximum=60.0))
        peer = device.start()
        device.client.rotate()
        broker.refuse(429, "Retry-After: 1000")
        assert 1000 < device.event(RotationFailed).retry_in <= 1060
        peer.close()
        assert 990 < device.event(Disconnected).retry_in <= 1060

    def test_is_not_tried_earlier_if_a_message_is_denied_meanwhile(self, make: Make) -> None:
        broker = WebSocketBroker()
        late, quick = RenewalPolicy(fraction=0.999, jitter=0.0), Backoff(initial=0.01, maximum=0.01)
        device = make(5, broker=broker, renewal=late, backoff=quick)
        device.source.next = [Token("an-ending-token", 600.0, since=monotonic() - 590)]
        peer = device.start()
        device.client.rotate()
        broker.refuse(429, "Retry-After: 1000")
        device.event(RotationFailed)
        device.client.publish("t", b"denied", qos=1)
        peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id, 0x87)
        assert 990 < device.event(TokenRefused).retry_in <= 1000

    def test_leaves_the_way_to_another_broker_open(self, make: Make) -> None:
        broker, quick = WebSocketBroker(), Backoff(initial=0.01, maximum=0.01)
        with contextlib.closing(ScriptedBroker()) as other:
            device = make(5, broker=broker, broker_url=[broker.url, other.url], backoff=quick)
            peer = device.start()
            device.client.rotate()
            broker.refuse(429, "Retry-After: 1000")
            device.event(RotationFailed)
            peer.close()
            assert other.accept().expect(CONNECT).password == password(2)


@pytest.mark.parametrize("protocol", [4, 5])
class TestAWebSocketThatTheBrokerCloses:
    """RFC 6455 section 7.4."""

    @pytest.mark.parametrize(
        ("code", "name"), [(1008, "Policy Violation"), (3000, "Unauthorized"), (3003, "Forbidden")]
    )
    def test_for_the_tokens_sake_gets_one_new_token_and_a_new_connection_at_once(
        self, make: Make, protocol: int, code: int, name: str
    ) -> None:
        broker = WebSocketBroker()
        device = make(protocol, broker=broker, backoff=Backoff(initial=60.0, maximum=60.0))
        device.start()
        broker.close_websocket(code)
        lost = device.event(Disconnected)
        assert lost.cause == f"the broker closed the WebSocket: {code} {name}"
        assert (lost.reason, lost.retry_in) == (0x87, 0.0)
        assert broker.accept().expect(CONNECT).password == password(2)

    def test_for_the_tokens_sake_before_connack_has_refused_it(self, make: Make, protocol: int) -> None:
        broker = WebSocketBroker()
        device = make(protocol, broker=broker, backoff=Backoff(initial=60.0, maximum=60.0))
        device.client.connect(timeout=0)
        broker.accept().expect(CONNECT)
        broker.close_websocket(3000)
        assert device.event(TokenRefused).reason == 0x87
        assert broker.accept().expect(CONNECT).password == password(2)

    def test_for_another_reason_before_connack_has_not(self, make: Make, protocol: int) -> None:
        broker = WebSocketBroker()
        device = make(protocol, broker=broker)
        device.client.connect(timeout=0)
        broker.accept().expect(CONNECT)
        broker.close_websocket(1013)
        says = f"{broker.url}: the broker closed the WebSocket: 1013 Try Again Later before CONNACK"
        assert str(device.event(ConnectFailed).error) == says
        assert broker.accept().expect(CONNECT).password == password(1)

    @pytest.mark.parametrize("code", [1000, 1001, 1011, 4001])
    def test_for_another_reason_is_lost_with_its_token_kept(self, make: Make, protocol: int, code: int) -> None:
        broker = WebSocketBroker()
        device = make(protocol, broker=broker)
        device.start()
        broker.close_websocket(code)
        assert device.event(Disconnected).reason is None
        assert broker.accept().expect(CONNECT).password == password(1)

    def test_as_emqx_does_when_the_token_ends_gets_a_new_token_at_once(self, make: Make, protocol: int) -> None:
        broker, renewal = WebSocketBroker(), RenewalPolicy(fraction=0.9999, jitter=0.0)
        device = make(protocol, broker=broker, backoff=Backoff(initial=60.0, maximum=60.0), renewal=renewal)
        device.source.next = [Token("a token near its end", 100.0, since=monotonic() - 92.0)]
        device.start()
        broker.close_websocket(1000)
        assert device.event(Disconnected).retry_in == 0.0
        assert broker.accept().expect(CONNECT).password == password(2)


def test_each_rotation_resumes_the_tls_session_of_the_first_connection_which_is_read_once(
    make: Make, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[ssl.SSLSession | None] = []

    def session(sock: ssl.SSLSocket) -> ssl.SSLSession | None:
        read.append(sock._sslobj.session)  # type: ignore[attr-defined]
        return read[-1]

    def resume(sock: ssl.SSLSocket, session: ssl.SSLSession) -> None:
        sock._session = session  # type: ignore[attr-defined]
        if sock._sslobj is not None:  # type: ignore[attr-defined]
            sock._sslobj.session = session  # type: ignore[attr-defined]

    monkeypatch.setattr(ssl.SSLSocket, "session", property(session, resume))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.server.certificate, pki.server.key)
    device = make(5, broker=ScriptedBroker(context), tls=ssl.create_default_context(cafile=pki.ca))
    peer = device.start()
    reused = [cast("ssl.SSLSocket", peer._sock).session_reused]
    for _ in range(3):
        first, peer = peer, device.rotate()
        first.close()
        peer.connack(session_present=True)
        device.event(Rotated)
        reused.append(cast("ssl.SSLSocket", peer._sock).session_reused)
    assert reused == [False, True, True, True]
    assert len(read) == 1
