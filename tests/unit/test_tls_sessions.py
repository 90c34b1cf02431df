"""A TLS session that a device resumes, at a broker that accepts full handshakes only."""

from __future__ import annotations

import socket
import ssl
from typing import cast

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import Connected, ConnectFailed, Disconnected, Rotated, RotationFailed
from mqtt_token_client.mqtt.transport import open as open_module
from tests.unit.device import Device, Make
from tests.unit.packets import CONNECT
from tests.unit.scripted_broker import PATIENCE, Peer, ScriptedBroker
from tests.unit.stepped_time import wait_until_readable


class FullHandshakes(ScriptedBroker):
    """A broker with TLS that can break off in a handshake, by a reset or by silence."""

    def __init__(self, pki: Pki) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pki.server.certificate, pki.server.key)
        super().__init__(context)

    def break_off(self, how: str) -> Peer:
        """Read the beginning of the next handshake, and reset the connection or leave it unanswered."""
        wait_until_readable(self._listener, PATIENCE)
        sock = self._listener.accept()[0]
        sock.settimeout(PATIENCE)
        assert sock.recv(65_536)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no FIN
            sock.close()
        self._peers.append(Peer(sock))
        return self._peers[-1]


def resumed(peer: Peer) -> bool | None:
    return cast("ssl.SSLSocket", peer._sock).session_reused


def rotated(device: Device) -> Peer:
    peer = device.rotate()
    peer.connack(session_present=True)
    device.event(Rotated)
    return peer


@pytest.fixture
def device(make: Make, pki: Pki) -> Device:
    return make(5, broker=FullHandshakes(pki), tls=ssl.create_default_context(cafile=pki.ca))


@pytest.fixture(params=["reset", "silence"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "silence":
        monkeypatch.setattr(open_module, "_TIMEOUT", 2.0)
    return str(request.param)


def test_that_a_rotation_fails_with_is_left_out_in_the_same_attempt(device: Device, how: str) -> None:
    first = device.start()
    assert not resumed(first)
    device.client.rotate()
    cast("FullHandshakes", device.broker).break_off(how)
    second = device.broker.accept()
    assert not resumed(second)
    second.expect(CONNECT)
    second.connack(session_present=True)
    device.event(Rotated)
    assert not device.reported(Disconnected)
    assert not device.reported(RotationFailed)
    assert resumed(rotated(device)), "the session of the full handshake serves again"


def test_that_a_new_connection_fails_with_is_left_out_in_the_same_attempt(device: Device, how: str) -> None:
    device.start()
    peer = rotated(device)
    assert resumed(peer)
    peer.close()
    device.event(Disconnected)
    cast("FullHandshakes", device.broker).break_off(how)
    peer = device.answer()
    assert not resumed(peer)
    device.event(Connected)
    assert not device.reported(ConnectFailed)


def test_outlives_an_attempt_that_failed_before_tls(device: Device) -> None:
    peer = device.start()
    peer = rotated(device)
    assert resumed(peer)
    device.broker.close_listener()
    peer.close()
    device.event(ConnectFailed)
    device.broker.listen_again()
    assert resumed(device.answer())
