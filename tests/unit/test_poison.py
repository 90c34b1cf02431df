"""A message or a filter that makes the broker end the connection is found and given up, and the others go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mqtt_token_client import (
    Backoff,
    Delivery,
    DeliveryFailed,
    DeliveryRefused,
    Disconnected,
    SubscriptionRefused,
)
from mqtt_token_client.clock import monotonic
from tests.unit import packets
from tests.unit.device import Device, Make, both
from tests.unit.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBSCRIBE, UNSUBSCRIBE, Packet
from tests.unit.scripted_broker import Peer
from tests.unit.scripted_journal import ScriptedJournal

BACKOFF = Backoff(initial=1.0, maximum=8.0, stable_after=60.0)


class Broker:
    """Answers every packet until one comes that it ends the connection for."""

    def __init__(
        self,
        device: Device,
        ends: Callable[[Packet], bool],
        *,
        reason: int | None = None,
        keeps_sessions: bool = True,
    ) -> None:
        self.device, self.ends, self.reason, self.keeps_sessions = device, ends, reason, keeps_sessions
        self.connections = 0
        self.peer: Peer | None = None
        self.received: list[bytes] = []  # payloads
        self.subscribed: list[str] = []

    def serve(self, until: Callable[[], bool]) -> None:
        silent_since = monotonic()
        while not until():
            assert monotonic() < silent_since + 20.0, "the client sends nothing"
            if self.peer is None:
                self.peer = self.device.answer(session_present=self.keeps_sessions and self.connections > 0)
                self.connections += 1
                assert self.connections < 40
            try:
                packet = self.peer.packet(0.05)
            except TimeoutError:
                continue
            silent_since = monotonic()
            if packet is None or self.ends(packet):
                self.end(self.peer)
            else:
                self.answer(self.peer, packet)

    def end(self, peer: Peer) -> None:
        if self.reason is None:
            peer.close()
        else:
            peer.disconnect(self.reason)
        self.peer = None

    def answer(self, peer: Peer, packet: Packet) -> None:
        if packet.kind == PUBLISH:
            self.received.append(packet.payload)
            if packet.qos:
                peer.acknowledge(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id)
        elif packet.kind == PUBREL:
            peer.acknowledge(PUBCOMP, packet.packet_id)
        elif packet.kind == SUBSCRIBE:
            self.subscribed += packet.filters
            peer.send(packets.suback(peer.five, packet.packet_id, list(packet.filters.values())))
        else:
            assert packet.kind == UNSUBSCRIBE


def is_done(*deliveries: Delivery) -> Callable[[], bool]:
    return lambda: all(delivery.done for delivery in deliveries)


def committed(journal: NumberedJournal | None) -> bool:
    """Have everything that was reported so far on disk."""
    if journal is not None:
        journal.commit()
    return True


def on(topic: str) -> Callable[[Packet], bool]:
    return lambda packet: packet.kind == PUBLISH and packet.topic == topic


@both
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_is_given_up_and_those_before_and_behind_it_are_delivered(
    make: Make, protocol: int, qos: int
) -> None:
    device = make(protocol, backoff=BACKOFF)
    device.client.connect(timeout=0)
    topics = ["a", "a", "poison", "a", "b", "a"]
    deliveries = [device.client.publish(topic, b"%d" % n, qos=qos) for n, topic in enumerate(topics)]
    broker = Broker(device, on("poison"))
    broker.serve(is_done(*deliveries))
    assert [delivery.error is None for delivery in deliveries] == [topic != "poison" for topic in topics]
    assert list(dict.fromkeys(broker.received)) == [b"0", b"1", b"3", b"4", b"5"]
    assert broker.connections == 6  # three ends, two more with it alone, and one that goes on
    refused = device.reported(DeliveryRefused)
    assert [(event.topic, event.reason) for event in refused] == [("poison", 0x80)]
    with pytest.raises(DeliveryFailed, match=refused[0].hint):
        deliveries[2].wait(0)


@pytest.mark.parametrize("reason", [0x81, 0x87, 0x90, 0x95])
def test_a_message_that_the_broker_names_by_its_reason_is_given_up_with_it(make: Make, reason: int) -> None:
    device = make(backoff=BACKOFF)
    device.client.connect(timeout=0)
    poison, other = (device.client.publish(topic, b"", qos=1) for topic in ("poison", "other"))
    broker = Broker(device, on("poison"), reason=reason)
    broker.serve(is_done(poison, other))
    assert other.error is None
    assert device.reported(DeliveryRefused)[0].reason == reason
    assert device.source.requests <= 2  # 0x87 may mean the token: once


def test_many_messages_are_given_up_one_by_one_without_a_growing_wait(make: Make) -> None:
    device = make(backoff=BACKOFF)
    device.client.connect(timeout=0)
    deliveries = [device.client.publish(topic, b"", qos=1) for topic in ("poison", "a") * 4]
    broker = Broker(device, on("poison"))
    broker.serve(is_done(*deliveries))
    assert [delivery.error is None for delivery in deliveries] == [False, True] * 4
    assert len(device.reported(DeliveryRefused)) == 4
    assert broker.connections == 3 + 4 * 2 + 1
    assert all(lost.retry_in <= 2.0 for lost in device.reported(Disconnected)[4:])


def test_what_is_published_later_goes_out_as_fast_as_ever(make: Make) -> None:
    device = make(backoff=BACKOFF)
    device.client.connect(timeout=0)
    broker = Broker(device, on("poison"))
    broker.serve(is_done(device.client.publish("poison", b"", qos=1)))
    for _ in range(5):
        device.client.publish("a", b"", qos=1)
    assert broker.peer is not None
    broker.peer.expect_messages(5)


@both
def test_a_filter_is_given_up_and_the_others_are_asked_for(make: Make, protocol: int) -> None:
    device = make(protocol, backoff=BACKOFF)
    for topic_filter in ("a/#", "poison/#", "b/#"):
        device.client.subscribe(topic_filter, qos=1)
    device.client.connect(timeout=0)
    delivery = device.client.publish("a", b"", qos=1)
    broker = Broker(device, lambda packet: packet.kind == SUBSCRIBE and "poison/#" in packet.filters)
    broker.serve(is_done(delivery))
    assert set(broker.subscribed) == {"a/#", "b/#"}
    assert [(event.topic_filter, event.reason) for event in device.reported(SubscriptionRefused)] == [
        ("poison/#", 0x80)
    ]
    assert "not asked for again" in device.reported(SubscriptionRefused)[0].hint
    assert delivery.error is None


@both
def test_a_filter_is_given_up_though_the_one_before_it_is_answered_on_each_connection(
    make: Make, protocol: int
) -> None:
    device = make(protocol, backoff=BACKOFF, session_expiry=0)
    for topic_filter in ("a/#", "poison/#", "b/#"):
        device.client.subscribe(topic_filter, qos=1)
    device.client.connect(timeout=0)
    broker = Broker(
        device, lambda packet: packet.kind == SUBSCRIBE and "poison/#" in packet.filters, keeps_sessions=False
    )
    broker.serve(lambda: "b/#" in broker.subscribed)
    assert [event.topic_filter for event in device.reported(SubscriptionRefused)] == ["poison/#"]
    assert broker.connections == 6


@both
def test_messages_that_are_answered_as_ones_of_another_qos_are_given_up(make: Make, protocol: int) -> None:
    """RabbitMQ 3.10 answers QoS 2 by PUBACK. The first one is sent twice, as the answer may be a mistake."""
    device = make(protocol, backoff=BACKOFF)
    device.client.connect(timeout=0)
    deliveries = [device.client.publish("t", b"%d" % n, qos=n % 2 + 1) for n in range(6)]
    broker = Broker(device, lambda _: False)
    sent: list[bytes] = []

    def answer(peer: Peer, packet: Packet) -> None:
        sent.append(packet.payload)
        peer.acknowledge(PUBACK, packet.packet_id)
        if packet.qos == 2:
            broker.peer = None

    broker.answer = answer  # type: ignore[method-assign]
    broker.serve(is_done(*deliveries))
    assert [delivery.error is None for delivery in deliveries] == [True, False] * 3
    assert {payload: sent.count(payload) for payload in (b"1", b"3", b"5")} == {b"1": 2, b"3": 1, b"5": 1}
    refused = device.reported(DeliveryRefused)
    assert [event.reason for event in refused] == [0x9B] * 3
    assert refused[0].hint == "the broker does not answer it as a message of QoS 2; publish with another qos"
    with pytest.raises(DeliveryFailed, match=refused[0].hint):
        deliveries[1].wait(0)


class NumberedJournal(ScriptedJournal):
    """A journal that a client opens. Each sync() has a number of its own, as with the journal on disk: nothing is on
    disk until the test commits it.
    """

    last = 0

    def open(self, *_: object) -> None:
        """It is in memory."""

    def sync(self) -> int:
        self.last += 1
        return self.last

    def commit(self) -> None:
        super().commit()
        self.durable = self.last
        self.notify()


def test_the_session_goes_on_while_the_cause_is_looked_for(make: Make) -> None:
    """Messages of QoS 2 in both directions are at the same point of their exchange as before."""
    device = make(backoff=BACKOFF)
    peer = device.start()
    device.client.publish("a", b"", qos=2)
    sent = peer.expect(PUBLISH).packet_id
    peer.acknowledge(PUBREC, sent)
    peer.expect(PUBREL)
    peer.publish("in", b"once", 2, 7)
    peer.expect(PUBREC)
    device.client.publish("poison", b"", qos=1)
    for _ in range(3):
        while (packet := peer.packet()) is not None and packet.topic != "poison":
            """The others are sent again."""
        peer.close()
        peer = device.answer(session_present=True)
    peer.publish("in", b"once", 2, 7, dup=True)
    peer.expect(PUBREC)
    assert peer.expect(PUBREL).packet_id == sent
    assert device.payloads == [b"once"]


class TestWithAJournal:
    """Packets of QoS 2 wait for the disk, and one at a time is sent all the same."""

    @pytest.mark.parametrize("lost", [False, True], ids=["once", "again after a loss at PUBREL"])
    def test_the_same_packets_are_sent_as_without_one(self, make: Make, lost: bool) -> None:
        def sent(journal: NumberedJournal | None) -> list[tuple[int, int, str]]:
            device = make(backoff=BACKOFF, journal=journal)
            seen: list[tuple[int, int, str]] = []

            def ends(packet: Packet) -> bool:
                is_first_pubrel = packet.kind == PUBREL and all(kind != PUBREL for _, kind, _ in seen)
                seen.append((broker.connections, packet.kind, packet.topic))
                return packet.topic == "poison" or (lost and is_first_pubrel)

            def serve(*deliveries: Delivery) -> None:
                broker.serve(lambda: committed(journal) and is_done(*deliveries)())

            broker = Broker(device, ends)
            device.client.connect(timeout=0)
            serve(*(device.client.publish(topic, b"", qos=2) for topic in ("poison", "a", "b")))
            device.client.subscribe("s", qos=1)
            serve(device.client.publish("c", b"", qos=1))
            serve(device.client.publish("d", b"", qos=2))
            return seen

        assert sent(NumberedJournal()) == sent(None)

    @pytest.mark.parametrize("max_inflight", [1, 20], ids=["PUBLISH", "PUBREL"])
    def test_nothing_overtakes_a_packet_that_waits_for_the_disk(self, make: Make, max_inflight: int) -> None:
        journal = NumberedJournal()
        device = make(backoff=BACKOFF, journal=journal, max_inflight=max_inflight)
        device.client.connect(timeout=0)
        _, good = (device.client.publish(topic, b"", qos=2) for topic in ("poison", "good"))
        broker = Broker(device, on("poison"))
        broker.serve(lambda: broker.connections == 6 or not committed(journal))  # "poison" is given up by then
        assert broker.peer is not None
        later = device.client.publish("later", b"", qos=0)
        device.client.subscribe("s")
        broker.peer.expect_nothing()
        broker.serve(lambda: committed(journal) and is_done(good, later)())
        assert broker.subscribed == ["s"]


class TestHint:
    @pytest.mark.parametrize(
        ("options", "size", "says"),
        [
            ({"qos": 2}, 0, "qos=2 or this topic"),
            ({"qos": 1, "retain": True}, 0, "retain or this topic"),
            ({"qos": 1}, 3_000_000, "a payload of 3000000 bytes or this topic"),
            ({"qos": 1}, 10, "may not accept this topic"),
        ],
    )
    def test_names_what_a_broker_may_have_switched_off(
        self, make: Make, options: dict[str, int], size: int, says: str
    ) -> None:
        device = make(4, backoff=BACKOFF)
        device.client.connect(timeout=0)
        poison = device.client.publish("poison", bytes(size), **options)  # type: ignore[arg-type]
        Broker(device, on("poison")).serve(is_done(poison))
        assert says in device.reported(DeliveryRefused)[0].hint


class TestInnocent:
    """A message is not given up because of what it did not cause."""

    def test_a_message_that_is_answered_as_one_of_another_qos_once(self, make: Make) -> None:
        device = make(backoff=BACKOFF)
        device.client.connect(timeout=0)
        for _ in range(3):
            delivery = device.client.publish("t", b"", qos=2)
            peer = device.answer(session_present=True)
            peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
            broker = Broker(device, lambda _: False)
            broker.serve(is_done(delivery))
            assert delivery.error is None
            assert broker.peer is not None
            broker.peer.close()

    def test_a_message_behind_one_of_qos_0_that_the_broker_ends_the_connection_for(self, make: Make) -> None:
        device = make(backoff=BACKOFF)
        device.client.connect(timeout=0)
        broker = Broker(device, on("poison"))
        for _ in range(8):
            device.client.publish("poison", b"", qos=0)
            delivery = device.client.publish("a", b"", qos=1)
            broker.serve(is_done(delivery))
            assert delivery.error is None

    @both
    def test_messages_at_a_broker_that_ends_each_connection_before_it_reads(self, make: Make, protocol: int) -> None:
        """Another client with the same identifier, or a broker in trouble."""
        device = make(protocol, backoff=BACKOFF)
        device.client.connect(timeout=0)
        delivery = device.client.publish("a", b"", qos=1)
        for _ in range(12):
            device.answer(session_present=True).close()
        Broker(device, lambda _: False).serve(is_done(delivery))
        assert delivery.error is None

    @pytest.mark.parametrize("reason", [0x89, 0x8B, 0x8D, 0x98, 0x9C, 0x9F])
    def test_a_message_at_a_broker_that_ends_the_connection_for_another_reason(self, make: Make, reason: int) -> None:
        device = make(backoff=BACKOFF)
        device.client.connect(timeout=0)
        delivery = device.client.publish("a", b"", qos=1)
        for _ in range(12):
            peer = device.answer(session_present=True)
            peer.expect(PUBLISH)
            peer.disconnect(reason)
        Broker(device, lambda _: False).serve(is_done(delivery))
        assert delivery.error is None

    def test_a_message_whose_answer_the_network_loses(self, make: Make) -> None:
        device = make(backoff=BACKOFF, keepalive=5)
        device.client.connect(timeout=0)
        delivery = device.client.publish("a", b"", qos=1)
        for _ in range(12):
            peer = device.answer(session_present=True)
            peer.expect(PUBLISH)  # nothing is answered, not even PINGREQ
            device.event(Disconnected)
        Broker(device, lambda _: False).serve(is_done(delivery))
        assert delivery.error is None

    def test_a_message_of_a_connection_that_lasted(self, make: Make) -> None:
        device = make(backoff=BACKOFF)
        device.client.connect(timeout=0)
        delivery = device.client.publish("a", b"", qos=1)
        for _ in range(12):
            peer = device.answer(session_present=True)
            peer.expect(PUBLISH)
            peer.expect_nothing(40.0)
            peer.close()
        Broker(device, lambda _: False).serve(is_done(delivery))
        assert delivery.error is None

    @both
    @pytest.mark.parametrize("accidents", [1, 2])
    def test_a_filter_that_is_answered_between_accidents(self, make: Make, protocol: int, accidents: int) -> None:
        """A broker that restarts, or a load balancer that ends connections, may do so before SUBACK at any time."""
        device = make(protocol, backoff=BACKOFF, session_expiry=0)
        device.client.subscribe("a/#")
        device.client.connect(timeout=0)
        for _ in range(6):
            for _ in range(accidents):
                self.end_before_suback(device)
            self.answer_suback(device)
        assert not device.reported(SubscriptionRefused)

    @both
    def test_a_filter_that_is_answered_after_one_packet_at_a_time_was_sent(self, make: Make, protocol: int) -> None:
        device = make(protocol, backoff=BACKOFF, session_expiry=0)
        device.client.subscribe("a/#")
        device.client.connect(timeout=0)
        for accidents in (3, 2, 2, 2):
            for _ in range(accidents):
                self.end_before_suback(device)
            self.answer_suback(device)
        assert not device.reported(SubscriptionRefused)

    @staticmethod
    def end_before_suback(device: Device) -> None:
        peer = device.answer(session_present=False)
        peer.expect(SUBSCRIBE)
        peer.close()

    @staticmethod
    def answer_suback(device: Device) -> None:
        """Answer SUBSCRIBE on a connection that lasts."""
        peer = device.answer(session_present=False)
        peer.expect_subscribe()
        peer.expect_nothing(40.0)
        peer.close()
