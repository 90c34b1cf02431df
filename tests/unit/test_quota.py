"""A message that the broker rejects because of a quota (MQTT 5 section 3.4.2.1) is sent again after a pause."""

from __future__ import annotations

import pytest

from mqtt_token_client import DeliveryFailed, DeliveryRefused, MessageExpired, MessagesAbandoned, QuotaExceeded
from tests.unit.device import Make
from tests.unit.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL
from tests.unit.scripted_broker import Peer
from tests.unit.stepped_time import stepped

QUOTA = 0x97
MOST = 10  # pauses that one message gets
LONGEST = 60.0  # seconds of one


def rejected(peer: Peer, *, kind: int = PUBACK, reason: int = QUOTA) -> bytes:
    """Reject the next message, and return its payload."""
    packet = peer.expect(PUBLISH, LONGEST + 1)
    peer.acknowledge(kind, packet.packet_id, reason)
    return packet.payload


@pytest.mark.parametrize("reason", [0x93, 0x96, QUOTA])
@pytest.mark.parametrize(("qos", "kind"), [(1, PUBACK), (2, PUBREC)])
def test_is_sent_again_and_delivered(make: Make, qos: int, kind: int, reason: int) -> None:
    device = make()
    peer = device.start()
    delivery = device.client.publish("t", b"1", qos=qos)
    assert rejected(peer, kind=kind, reason=reason) == b"1"
    event = device.event(QuotaExceeded)
    assert event.reason == reason
    assert 0.5 <= event.retry_in <= 1.0
    began = stepped().now
    again = peer.expect(PUBLISH)
    assert (again.payload, again.dup) == (b"1", False)
    assert stepped().now - began == pytest.approx(event.retry_in, abs=0.01)
    peer.acknowledge(kind, again.packet_id)
    if qos == 2:
        peer.acknowledge(PUBCOMP, peer.expect(PUBREL).packet_id)
    delivery.wait(10)
    assert device.client.stats.delivered == 1
    assert not device.reported(DeliveryRefused)


def test_goes_before_anything_newer_and_in_the_order_of_acceptance(make: Make) -> None:
    device = make()
    peer = device.start()
    for number in range(3):
        device.client.publish("t", b"%d" % number, qos=1)
    first, second, third = (peer.expect(PUBLISH) for _ in range(3))
    peer.acknowledge(PUBACK, first.packet_id)
    peer.acknowledge(PUBACK, third.packet_id, QUOTA)  # a broker may answer in another order
    peer.acknowledge(PUBACK, second.packet_id, QUOTA)
    device.event(QuotaExceeded)
    device.client.publish("t", b"new", qos=1)
    for payload in (b"1", b"2", b"new"):
        packet = peer.expect(PUBLISH)
        assert packet.payload == payload
        peer.acknowledge(PUBACK, packet.packet_id)
    device.until(lambda: device.client.stats.delivered == 4)


def test_is_sent_alone_after_the_pause_and_then_ever_more(make: Make) -> None:
    device = make()
    peer = device.start()
    for number in range(8):
        device.client.publish("t", b"%d" % number, qos=1)
    sent = [peer.expect(PUBLISH) for _ in range(8)]
    for packet in sent:
        peer.acknowledge(PUBACK, packet.packet_id, QUOTA)
    assert len(device.reported(QuotaExceeded)) <= 1
    alone = peer.expect(PUBLISH)
    assert alone.payload == b"0"
    peer.expect_nothing()
    assert len(device.reported(QuotaExceeded)) == 1, "one pause for all of them"
    peer.acknowledge(PUBACK, alone.packet_id)
    assert [peer.expect(PUBLISH).payload for _ in range(2)] == [b"1", b"2"]
    peer.expect_nothing()


def test_waits_ever_longer_while_nothing_is_accepted(make: Make) -> None:
    device = make()
    peer = device.start()
    device.client.publish("t", b"1", qos=1)
    for times in range(MOST):
        rejected(peer)
        bound = min(2.0**times, LONGEST)
        assert bound / 2 <= device.event(QuotaExceeded).retry_in <= bound
    peer.acknowledge(PUBACK, peer.expect(PUBLISH, LONGEST + 1).packet_id)
    device.client.publish("t", b"2", qos=1)
    rejected(peer)
    assert device.event(QuotaExceeded).retry_in <= 1.0, "a success in between begins anew"


def test_fails_in_the_end_and_the_next_message_has_its_turn(make: Make) -> None:
    device = make()
    peer = device.start()
    poison = device.client.publish("t", b"poison", qos=1)
    after = device.client.publish("t", b"after", qos=1)
    peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id, QUOTA)
    peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id, QUOTA)
    for _ in range(MOST):
        assert rejected(peer) == b"poison"
    with pytest.raises(DeliveryFailed) as raised:
        poison.wait(10)
    assert raised.value.reason == QUOTA
    assert not raised.value.permanent
    assert device.event(DeliveryRefused).reason == QUOTA
    packet = peer.expect(PUBLISH)
    assert packet.payload == b"after"
    peer.acknowledge(PUBACK, packet.packet_id)
    after.wait(10)


def test_expires_while_it_waits(make: Make) -> None:
    device = make()
    peer = device.start()
    delivery = device.client.publish("t", b"1", qos=1, properties={"message_expiry_interval": 3})
    for _ in range(3):  # the last time after 1.5 to 3 s, and then there is a pause of 2 to 4 s
        rejected(peer)
    with pytest.raises(DeliveryFailed, match="expired"):
        delivery.wait(10)
    assert device.reported(MessageExpired)


def test_is_sent_at_once_on_the_next_connection(make: Make) -> None:
    device = make()
    first = device.start()
    delivery = device.client.publish("t", b"1", qos=1)
    for _ in range(5):
        rejected(first)
    device.until(lambda: len(device.reported(QuotaExceeded)) == 5)
    first.close()
    second = device.answer(session_present=True)
    before = stepped().now
    packet = second.expect(PUBLISH)
    assert stepped().now - before < 1.0
    second.acknowledge(PUBACK, packet.packet_id)
    delivery.wait(10)
    stepped().pass_time(60)
    assert len(device.reported(QuotaExceeded)) == 5


def test_counts_what_was_sent_and_not_what_still_waits_for_its_turn_on_this_connection(make: Make) -> None:
    device = make()
    first = device.start()
    for number in range(8):
        device.client.publish("t", b"%d" % number, qos=1)
    first.expect_messages(8)
    first.close()
    second = device.answer(properties={0x21: 2})  # Receive Maximum
    second.expect_messages(2)
    second.disconnect(QUOTA)
    third = device.answer()
    third.expect_messages(1)
    third.expect_nothing()


def test_goes_before_newer_ones_of_qos_0_too(make: Make) -> None:
    device = make()
    peer = device.start()
    device.client.publish("t", b"1", qos=1)
    rejected(peer)
    device.event(QuotaExceeded)
    device.client.publish("t", b"0", qos=0)
    assert [peer.expect(PUBLISH).payload for _ in range(2)] == [b"1", b"0"]


def test_is_abandoned_if_the_client_is_closed_meanwhile_and_the_next_connection_is_not_paused(make: Make) -> None:
    device = make()
    peer = device.start()
    delivery = device.client.publish("t", b"1", qos=1)
    rejected(peer)
    device.event(QuotaExceeded)
    device.client.disconnect(timeout=0)
    with pytest.raises(DeliveryFailed, match="closed"):
        delivery.wait(10)
    assert device.event(MessagesAbandoned).count == 1
    peer = device.start()
    before = stepped().now
    device.client.publish("t", b"2", qos=1)
    assert peer.expect(PUBLISH).payload == b"2"
    assert stepped().now == before


def test_rejected_twice_is_sent_once(make: Make) -> None:
    device = make()
    peer = device.start()
    delivery = device.client.publish("t", b"1", qos=1)
    packet = peer.expect(PUBLISH)
    for _ in range(2):
        peer.acknowledge(PUBACK, packet.packet_id, QUOTA)
    peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
    delivery.wait(10)
    peer.expect_nothing()


def test_of_qos_2_that_was_stored_all_the_same_is_released(make: Make) -> None:
    """EMQX looks at the quota before it looks whether it has the message: it has, and keeps the identifier."""
    device = make()
    first = device.start()
    delivery = device.client.publish("t", b"1", qos=2)
    first.expect(PUBLISH)
    first.close()
    second = device.answer(session_present=True)
    rejected(second, kind=PUBREC)
    again = second.expect(PUBLISH)
    second.acknowledge(PUBREC, again.packet_id, 0x91)
    second.acknowledge(PUBCOMP, second.expect(PUBREL).packet_id)
    delivery.wait(10)
