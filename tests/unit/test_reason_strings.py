"""What the broker says beside a reason code of CONNACK and DISCONNECT is in the event or error that reports it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mqtt_token_client import BrokerRefused, ConnectFailed, Disconnected, TokenRefused
from tests.unit import packets
from tests.unit.device import Make
from tests.unit.packets import CONNECT


def reason_string(text: bytes) -> bytes:
    """The properties of a packet: a Reason String only."""
    packed = b"\x1f" + len(text).to_bytes(2) + text
    return bytes((len(packed),)) + packed


def connack(code: int, text: bytes = b"because\nof that") -> bytes:
    return packets._packet(0x20, bytes((0, code)) + reason_string(text))


def disconnect(code: int, text: bytes = b"because\nof that") -> bytes:
    return packets._packet(0xE0, bytes((code,)) + reason_string(text))


@pytest.mark.parametrize("packet", [connack, disconnect])
class TestOfARejectedConnection:
    """MQTT 5 section 3.2.2.3.9. DISCONNECT comes in the place of CONNACK from some brokers."""

    def test_is_in_the_error(self, make: Make, packet: Callable[[int], bytes]) -> None:
        device = make()
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(packet(0x97))
        error = device.event(ConnectFailed).error
        assert isinstance(error, BrokerRefused)
        assert str(error) == f"{device.broker.url} rejected the connection: Quota exceeded: because of that"
        assert error.reason == 0x97

    def test_comes_before_the_advice(self, make: Make, packet: Callable[[int], bytes]) -> None:
        device = make()
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(packet(0x95))
        assert ": Packet too large: because of that; a packet is too large" in str(device.event(ConnectFailed).error)

    def test_is_in_the_event_of_a_rejected_token(self, make: Make, packet: Callable[[int], bytes]) -> None:
        device = make()
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(packet(0x87))
        refused = device.event(TokenRefused)
        assert (refused.reason, refused.reason_string) == (0x87, "because of that")


def test_of_a_connection_that_the_broker_ends_is_in_the_event(make: Make) -> None:
    """MQTT 5 section 3.14.2.2.3."""
    device = make()
    peer = device.start()
    peer.send(disconnect(0x8B))
    peer.close()
    lost = device.event(Disconnected)
    assert lost.cause == "the broker ended the connection: Server shutting down: because of that"
    assert lost.reason == 0x8B


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        ("20 03 00 05 00", "the broker sent a malformed CONNACK (reason code 0x05)"),
        ("20 ff ff ff 7f", "the broker sent CONNACK of 268435460 bytes, which is too long"),
        ("30 03 0001 74", "the broker sent PUBLISH out of place before CONNACK"),
    ],
)
def test_an_error_before_connack_names_it_once(make: Make, packet: str, says: str) -> None:
    device = make()
    device.client.connect(timeout=0)
    peer = device.broker.accept()
    peer.expect(CONNECT)
    peer.send(bytes.fromhex(packet))
    assert str(device.event(ConnectFailed).error).removeprefix(f"{device.broker.url}: ").split(";")[0] == says
