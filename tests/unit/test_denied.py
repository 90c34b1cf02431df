"""Not authorized (0x87) to publish or subscribe when the token is about to expire or has expired: the token's fault."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_token_client import (
    Credentials,
    DeliveryFailed,
    Disconnected,
    RenewalPolicy,
    Rotated,
    SubscriptionRefused,
    Token,
    TokenRefused,
)
from mqtt_token_client.clock import monotonic
from tests.unit import packets
from tests.unit.device import Device, Make, password
from tests.unit.packets import AUTH, CONNECT, PUBACK, PUBLISH, PUBREC, SUBSCRIBE
from tests.unit.scripted_broker import Peer

LATE = RenewalPolicy(fraction=0.999, jitter=0.0)


def ending(make: Make, **options: Any) -> tuple[Device, Peer]:
    """A device whose token is in its last seconds, and nobody renews it."""
    device = make(renewal=LATE, **options)
    device.source.next = [Token("an-ending-token", 600.0, since=monotonic() - 590)]
    return device, device.start()


@pytest.mark.parametrize(("qos", "answer"), [(1, PUBACK), (2, PUBREC)])
def test_a_message_denied_then_waits_for_a_new_token_and_is_sent_again(make: Make, qos: int, answer: int) -> None:
    device, first = ending(make)
    denied = device.client.publish("t", b"denied", qos=qos)
    began = monotonic()
    first.acknowledge(answer, first.expect(PUBLISH).packet_id, 0x87)
    refused = device.event(TokenRefused)
    assert (refused.reason, refused.times, refused.retry_in) == (0x87, 1, 0.0)
    second = device.broker.accept()
    assert monotonic() - began < 1.0, "it waited for the renewal that is due"
    assert second.expect(CONNECT).password == password(2)
    assert not denied.done
    second.connack(session_present=True)
    again = second.expect(PUBLISH)
    assert (again.payload, again.dup, again.qos) == (b"denied", False, qos)
    if qos == 1:
        second.acknowledge(PUBACK, again.packet_id)
        denied.wait(10)
    assert device.event(Rotated).kind == "handover"
    assert not device.reported(Disconnected)


def test_those_denied_keep_their_order_before_what_comes_later(make: Make) -> None:
    device, first = ending(make)
    for number in range(3):
        device.client.publish("t", b"%d" % number, qos=1)
    for message in first.expect_messages(3):
        first.acknowledge(PUBACK, message.packet_id, 0x87)
    second = device.broker.accept()
    second.expect(CONNECT)
    device.client.publish("t", b"3", qos=1)
    second.connack(session_present=True)
    assert [message.payload for message in second.expect_messages(4)] == [b"0", b"1", b"2", b"3"]
    assert len(device.reported(TokenRefused)) == 1


def test_a_message_denied_in_mid_life_fails(make: Make) -> None:
    device = make()
    first = device.start()
    denied = device.client.publish("t", b"denied", qos=1)
    first.acknowledge(PUBACK, first.expect(PUBLISH).packet_id, 0x87)
    with pytest.raises(DeliveryFailed):
        denied.wait(10)
    assert not device.reported(TokenRefused)


def test_a_message_denied_for_another_reason_fails(make: Make) -> None:
    device, first = ending(make)
    denied = device.client.publish("t", b"denied", qos=1)
    first.acknowledge(PUBACK, first.expect(PUBLISH).packet_id, 0x83)
    with pytest.raises(DeliveryFailed):
        denied.wait(10)


def test_a_subscription_denied_then_is_made_on_the_next_connection(make: Make) -> None:
    device, first = ending(make)
    device.client.subscribe("a/#")
    first.expect_subscribe(0x87)
    second = device.broker.accept()
    second.expect(CONNECT)
    second.connack(session_present=True)
    assert set(second.expect_subscribe().filters) == {"a/#"}
    assert not device.reported(SubscriptionRefused)


def test_a_subscription_denied_in_mid_life_is_refused(make: Make) -> None:
    device = make()
    device.start()
    device.client.subscribe("a/#")
    device.broker._peers[0].expect_subscribe(0x87)
    assert device.event(SubscriptionRefused).reason == 0x87


def test_what_is_denied_is_asked_for_again_after_a_re_authentication(make: Make) -> None:
    class ByMethod:
        def place(self, token: Token, client_id: str) -> Credentials:
            return Credentials(None, None, token, "OAUTH2-JWT", token.value.encode())

    device, first = ending(make, profile=ByMethod())
    device.client.publish("t", b"denied", qos=1)
    first.acknowledge(PUBACK, first.expect(PUBLISH).packet_id, 0x87)
    first.expect(AUTH)
    device.client.subscribe("a/#")
    first.expect_subscribe(0x87)
    first.send(packets.auth(0))
    assert [first.expect(SUBSCRIBE).kind, first.expect(PUBLISH).payload] == [SUBSCRIBE, b"denied"]
    assert device.event(Rotated).kind == "re-authentication"


def test_what_is_denied_and_not_sent_again_is_abandoned_at_the_end(make: Make) -> None:
    device, first = ending(make)
    device.source.gate.clear()
    denied = device.client.publish("t", b"denied", qos=1)
    first.acknowledge(PUBACK, first.expect(PUBLISH).packet_id, 0x87)
    device.event(TokenRefused)
    device.source.gate.set()
    device.close()
    with pytest.raises(DeliveryFailed):
        denied.wait(10)
    assert device.client.stats.queued == 0
