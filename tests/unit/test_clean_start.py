"""A clean start: the session that the broker has kept goes at the first connect, and no later one asks for that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import Connected, ConnectFailed, Disconnected, Rotated, Will
from tests.unit.device import Device, Make, end
from tests.unit.packets import CONNECT, DISCONNECT, SESSION_EXPIRY_INTERVAL, Packet
from tests.unit.scripted_broker import Peer


def connecting(device: Device) -> tuple[Peer, Packet]:
    peer = device.broker.accept()
    return peer, peer.expect(CONNECT)


class TestCleanStart:
    def test_is_asked_for_until_the_broker_has_accepted_once_and_never_again(self, make: Make) -> None:
        device = make(clean_start=True)
        device.client.connect(timeout=0)
        peer, connect = connecting(device)
        assert connect.clean
        assert connect.properties[SESSION_EXPIRY_INTERVAL] == 3600
        peer.connack(0x88)
        device.event(ConnectFailed)
        peer, connect = connecting(device)
        assert connect.clean
        peer.connack()
        device.event(Connected)
        peer.close()
        device.event(Disconnected)
        _, connect = connecting(device)
        assert not connect.clean

    @pytest.mark.parametrize("will", [None, Will("gone", b"")], ids=["handover", "reconnect"])
    def test_is_not_asked_for_by_a_rotation(self, make: Make, will: Will | None) -> None:
        device = make(clean_start=True, will=will)
        first = device.start()
        device.client.rotate()
        if will is not None:
            first.expect(DISCONNECT)
            first.close()
        second, connect = connecting(device)
        assert not connect.clean
        second.connack(session_present=True)
        assert device.event(Rotated).kind == ("handover" if will is None else "reconnect")

    def test_is_not_asked_for_by_a_later_connect_of_the_same_client(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make(clean_start=True)
        peer = device.start()
        end(peer, pool.submit(device.client.disconnect))
        device.client.connect(timeout=0)
        _, connect = connecting(device)
        assert not connect.clean

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_is_not_asked_for_by_default(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client.connect(timeout=0)
        _, connect = connecting(device)
        assert not connect.clean

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_is_asked_for_every_time_where_no_session_is_kept(self, make: Make, protocol: int) -> None:
        device = make(protocol, session_expiry=0)
        device.client.connect(timeout=0)
        for _ in range(2):
            peer, connect = connecting(device)
            assert connect.clean
            peer.connack()
            device.event(Connected)
            peer.close()
