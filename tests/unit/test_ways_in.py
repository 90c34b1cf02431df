"""A connection uses the ways in: the token in the WebSocket upgrade, resumed TLS sessions."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from mqtt_token_client import Connected, Rotated, Token, TokenRefused
from mqtt_token_client.profiles import Credentials
from tests.servers.pki import Pki
from tests.unit.device import Device, devices, password
from tests.unit.packets import CONNECT
from tests.unit.scripted_broker import PATIENCE, Peer, ScriptedBroker
from tests.unit.websocket_server import WebSocketPeer


@pytest.fixture
def make() -> Iterator[Callable[..., Device]]:
    with devices() as make:
        yield make


class WebSocketBroker(ScriptedBroker):
    """It tells what token the upgrades carried, and refuses as many of them as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"ws://127.0.0.1:{self.port}/mqtt"
        self.tokens: list[str] = []
        self.refusals = 0

    def accept(self, timeout: float = PATIENCE) -> Peer:
        while True:
            self._listener.settimeout(timeout)
            sock = self._listener.accept()[0]
            sock.settimeout(PATIENCE)
            upgrade = WebSocketPeer(sock)
            if not self.refusals:
                break
            self.refusals -= 1
            upgrade.refuse(401)
            self.tokens.append(upgrade.headers["authorization"])
            sock.close()
        upgrade.accept()
        self.tokens.append(upgrade.headers["authorization"])
        self._peers.append(Peer(cast("ssl.SSLSocket", upgrade)))
        return self._peers[-1]


def bearer(token: Token, _client_id: str) -> Credentials:
    return Credentials(None, None, token, headers={"Authorization": f"Bearer {token.value}"})


def test_a_token_that_the_upgrade_is_refused_for_is_replaced_at_once(make: Callable[..., Device]) -> None:
    broker = WebSocketBroker()
    broker.refusals = 1
    device = make(5, broker=broker, profile=bearer)
    device.client.connect(timeout=0)
    peer = broker.accept()
    connect = peer.expect(CONNECT)
    peer.connack()
    device.event(Connected)
    (refused,) = device.told(TokenRefused)
    assert (refused.reason, refused.retry_in) == (0x87, 0.0)
    assert broker.tokens == [f"Bearer {password(number).decode()}" for number in (1, 2)]
    assert connect.password is None


def test_each_rotation_resumes_the_tls_session_of_the_connection_before(make: Callable[..., Device], pki: Pki) -> None:
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
