"""The outbox: what is sent next, what is sent again, and what becomes of a Delivery."""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.errors import ClientClosed, DeliveryFailed, OutboxFull, ProtocolError
from mqtt_token_client.mqtt.codec.packets import CONNACK, NAMES, PUBACK, PUBCOMP, PUBREC, Acknowledgement
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.session.delivery import Delivery, Outgoing, Stage, rejection
from mqtt_token_client.mqtt.session.journal import Bounds, Reporting
from mqtt_token_client.mqtt.session.opening import open_outbox
from mqtt_token_client.mqtt.session.outbox import CLOSED, Outbox
from mqtt_token_client.mqtt.session.packet_ids import PacketIds
from mqtt_token_client.mqtt.session.queue import MessageQueue
from tests.unit.network_thread import call
from tests.unit.scripted_journal import ScriptedJournal


def message(name: str, qos: int = 1, message_type: type[Outgoing] = Outgoing) -> Outgoing:
    return message_type(encode_topic(name), b"", qos, False, b"")


def restored(earlier: list[Outgoing], *, max_queued: int = 100_000, max_inflight: int = 100) -> Outbox:
    """An outbox that continues with the messages of an earlier process."""
    journal = ScriptedJournal(automatic=True)
    journal.bounds = Bounds(max_queued)
    for one in earlier:
        journal.append(one)
        if one.packet_id:
            journal.mark(one.number, one.packet_id, one.stage)

    def receiving() -> Reporting:
        raise AssertionError("the journal loses nothing here")

    return open_outbox(journal, PacketIds(), receiving, print, max_queued=max_queued, max_inflight=max_inflight)


def outbox(max_queued: int = 1000, max_inflight: int = 100, ids: PacketIds | None = None) -> Outbox:
    return Outbox(ids or PacketIds(), MessageQueue(max_queued), max_inflight=max_inflight)


def put(box: Outbox, *names: str, qos: int = 1) -> list[Outgoing]:
    messages = [message(name, qos, box.queue.message_type) for name in names]
    for one in messages:
        box.queue.put(one)
    return messages


def send(box: Outbox, receive_maximum: int | None = 65_535) -> list[str]:
    """Send all that may be sent, as a session does; the topics, in order."""
    sent = []
    while (one := next(box.due(receive_maximum), None)) is not None:
        sent.append(one.topic_name)
    return sent


def done(one: Outgoing) -> bool:
    return one.done


class TestOrder:
    def test_messages_go_out_as_they_were_given_whatever_their_qos(self) -> None:
        box = outbox()
        for name, qos in (("a", 1), ("b", 0), ("c", 2), ("d", 0), ("e", 1)):
            put(box, name, qos=qos)
        assert send(box) == ["a", "b", "c", "d", "e"]

    def test_only_what_is_acknowledged_has_an_identifier(self) -> None:
        box = outbox()
        (zero,) = put(box, "zero", qos=0)
        one, two = put(box, "one")[0], put(box, "two", qos=2)[0]
        send(box)
        assert (zero.packet_id, one.packet_id, two.packet_id) == (0, 1, 2)

    def test_what_was_in_flight_is_sent_again_in_the_same_order_before_anything_new(self) -> None:
        box = outbox()
        sent = put(box, "a", "b", "c")
        send(box)
        identifiers = [one.packet_id for one in sent]
        put(box, "d")
        box.connection_lost([])
        put(box, "e")
        assert send(box) == ["a", "b", "c", "d", "e"]
        assert [one.packet_id for one in sent] == identifiers

    def test_so_it_is_when_the_next_connection_is_lost_in_the_middle_of_that(self) -> None:
        box = outbox()
        put(box, "a", "b", "c", "d")
        send(box)
        box.connection_lost([])
        next(box.due(65_535), None)
        next(box.due(65_535), None)
        box.connection_lost([])
        assert send(box) == ["a", "b", "c", "d"]

    def test_what_was_acknowledged_before_the_loss_is_not_sent_again(self) -> None:
        box = outbox()
        put(box, "a", "b", "c")
        send(box)
        box.acknowledged(PUBACK, 2, 0)
        box.connection_lost([])
        assert send(box) == ["a", "c"]

    def test_what_is_acknowledged_after_the_loss_is_not_sent_again_either(self) -> None:
        box = outbox()
        put(box, "a", "b", "c")
        send(box)
        box.connection_lost([])
        box.acknowledged(PUBACK, 1, 0)
        box.acknowledged(PUBACK, 2, 0)
        assert send(box) == ["c"]

    def test_a_message_of_qos_0_that_did_not_go_out_whole_keeps_its_place_before_later_ones(self) -> None:
        box = outbox()
        unwritten = put(box, "a", "b", qos=0)
        put(box, "c")
        assert send(box) == ["a", "b", "c"]
        put(box, "d", qos=0)
        box.connection_lost(unwritten)
        assert [one.stage for one in unwritten] == [Stage.NEW, Stage.NEW]
        assert send(box) == ["a", "b", "c", "d"]

    def test_so_it_does_when_the_next_connection_is_lost_before_its_turn(self) -> None:
        box = outbox()
        put(box, "a")
        unwritten = put(box, "b", qos=0)
        put(box, "c")
        send(box)
        box.connection_lost(unwritten)
        assert next(box.due(65_535), None) is not None
        put(box, "d")
        box.connection_lost([])
        assert send(box) == ["a", "b", "c", "d"]

    def test_what_comes_after_a_message_that_must_wait_waits_too(self) -> None:
        box = outbox(max_inflight=1)
        put(box, "a", "b")
        put(box, "c", qos=0)
        assert send(box) == ["a"]
        box.acknowledged(PUBACK, 1, 0)
        assert send(box) == ["b", "c"]


class TestStages:
    def test_a_message_that_the_broker_has_is_released_again_and_not_published_again(self) -> None:
        box = outbox()
        first, second = put(box, "a", "b", qos=2)
        send(box)
        box.received(first.packet_id)
        box.connection_lost([])
        again = [next(box.due(65_535), None), next(box.due(65_535), None)]
        assert again == [first, second]
        assert (first.stage, second.stage) == (Stage.RELEASED, Stage.SENT)

    def test_after_a_lost_session_it_starts_anew_with_its_identifier(self) -> None:
        box = outbox()
        first, second = put(box, "a", "b", qos=2)
        send(box)
        box.received(first.packet_id)
        box.connection_lost([])
        box.session_lost()
        assert (first.stage, second.stage) == (Stage.NEW, Stage.NEW)
        assert send(box) == ["a", "b"]
        assert (first.packet_id, second.packet_id) == (1, 2)

    def test_after_a_lost_session_messages_that_the_broker_had_go_out_in_the_order_of_their_acceptance(self) -> None:
        box = outbox()
        put(box, "a", "b", qos=2)
        send(box)
        box.received(2)
        box.received(1)
        box.connection_lost([])
        box.session_lost()
        assert send(box) == ["a", "b"]

    def test_a_receipt_for_an_unknown_identifier_is_nobody(self) -> None:
        box = outbox()
        (only,) = put(box, "a", qos=2)
        send(box)
        assert box.received(77) == 0x92
        assert only.stage is Stage.SENT


class TestWindow:
    def test_is_our_own_where_the_broker_allows_more(self) -> None:
        box = outbox(max_inflight=3)
        put(box, *"abcdef")
        assert send(box, 65_535) == ["a", "b", "c"]
        assert box.inflight == 3
        box.acknowledged(PUBACK, 2, 0)
        assert send(box, 65_535) == ["d"]

    def test_is_the_receive_maximum_where_that_is_smaller(self) -> None:
        box = outbox(max_inflight=100)
        put(box, *"abcdef")
        assert send(box, 2) == ["a", "b"]

    def test_counts_what_is_released_until_it_is_complete(self) -> None:
        box = outbox()
        put(box, *"abc", qos=2)
        assert send(box, 2) == ["a", "b"]
        box.received(1)
        assert send(box, 2) == []
        box.acknowledged(PUBCOMP, 1, 0)
        assert send(box, 2) == ["c"]

    def test_does_not_hold_messages_of_qos_0(self) -> None:
        box = outbox(max_inflight=1)
        put(box, "a")
        put(box, *"bcd", qos=0)
        assert send(box) == ["a", "b", "c", "d"]

    def test_is_20_at_qos_2_where_the_broker_cannot_tell(self) -> None:
        box = outbox()
        put(box, *map(str, range(30)), qos=2)
        assert len(send(box, None)) == 20
        box.received(1)
        box.acknowledged(PUBCOMP, 1, 0)
        assert send(box, None) == ["20"]

    def test_is_our_own_at_qos_1_where_the_broker_cannot_tell(self) -> None:
        box = outbox(max_inflight=25)
        put(box, *map(str, range(30)))
        assert len(send(box, None)) == 25

    def test_is_timed_with_the_first_message_whatever_its_identifier(self) -> None:
        box = outbox(ids=PacketIds(500))
        put(box, "a", "b")
        send(box)
        assert box.window.timed == 501

    def test_grows_while_it_is_full_and_the_broker_answers_as_fast_as_before(self) -> None:
        box = outbox(max_inflight=1000)
        put(box, *map(str, range(400)))
        assert len(send(box)) == 100
        for packet_id in range(1, 101):
            box.acknowledged(PUBACK, packet_id, 0)
        assert len(send(box)) == 200

    def test_grows_at_qos_2_with_the_first_answer_to_a_message(self) -> None:
        box = outbox(max_inflight=1000)
        put(box, *map(str, range(400)), qos=2)
        assert len(send(box)) == 100
        box.received(1)
        assert len(send(box)) == 100

    def test_is_timed_with_another_message_than_one_that_is_kept_because_of_a_quota(self) -> None:
        box = outbox()
        put(box, "a")
        send(box)
        assert box.rejected(Acknowledgement(PUBACK, 1, 0x97)) == (None, False)
        assert box.window.timed == 0

    @pytest.mark.parametrize(("qos", "kind"), [(2, PUBACK), (1, PUBREC)])
    def test_is_not_changed_by_a_quota_in_the_wrong_kind_of_answer(self, qos: int, kind: int) -> None:
        box = outbox()
        put(box, "a", qos=qos)
        send(box)
        with pytest.raises(ProtocolError, match="out of place"):
            box.rejected(Acknowledgement(kind, 1, 0x97))

    def test_lets_the_oldest_message_go_first_when_a_pause_is_over_and_has_it_sent(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, woken = 1000.0, list[bool]()
        monkeypatch.setattr("mqtt_token_client.mqtt.session.flow.monotonic", lambda: now)
        box = outbox()
        put(box, "a", "b")
        send(box)
        for packet_id in (2, 1):
            box.rejected(Acknowledgement(PUBACK, packet_id, 0x97))
        box.window.pause()
        box.queue.open(lambda: woken.append(True))
        assert send(box) == []
        now += 60.0
        box.resume()
        assert woken == [True]
        assert send(box) == ["a"]

    def test_grows_though_the_message_that_is_timed_is_never_written(self) -> None:
        box = outbox(max_inflight=1000)
        too_large = put(box, *map(str, range(400)))[0]
        assert next(box.due(65_535)) is too_large
        box.fail_unsent(too_large, rejection(too_large, CONNACK, 0x95))
        assert len(send(box)) == 100
        for packet_id in range(2, 102):
            box.acknowledged(PUBACK, packet_id, 0)
        assert len(send(box)) == 200

    def test_grows_though_the_message_that_is_timed_is_denied(self) -> None:
        box = outbox(max_inflight=1000)
        put(box, *map(str, range(400)))
        send(box)
        box.denied(1)
        for packet_id in range(2, 101):
            box.acknowledged(PUBACK, packet_id, 0)
        assert len(send(box)) == 100
        for packet_id in range(101, 201):
            box.acknowledged(PUBACK, packet_id, 0)
        assert len(send(box)) == 200

    def test_does_not_shrink_by_the_time_between_two_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr("mqtt_token_client.mqtt.session.flow.monotonic", lambda: now)
        box = outbox(max_inflight=100)
        put(box, *map(str, range(300)))
        send(box)
        box.acknowledged(PUBACK, 1, 0)
        send(box)
        box.connection_lost([])
        now = 60.0
        assert len(send(box)) == 100
        for packet_id in range(2, 102):
            box.acknowledged(PUBACK, packet_id, 0)
        assert len(send(box)) == 100

    def test_holds_though_a_message_is_acknowledged_before_it_is_sent_again(self) -> None:
        box = outbox()
        put(box, *"abcdef")
        send(box, 2)
        box.connection_lost([])
        box.acknowledged(PUBACK, 1, 0)
        assert send(box, 2) == ["b", "c"]

    def test_counts_messages_of_an_earlier_process_from_when_they_are_sent_again(self) -> None:
        earlier = [message(name) for name in "abc"]
        for number, one in enumerate(earlier, 1):
            one.number, one.packet_id, one.stage = number, number, Stage.SENT
        box = restored(earlier, max_inflight=3)
        put(box, "d", "e")
        assert send(box) == ["a", "b", "c"]
        box.acknowledged(PUBACK, 1, 0)
        assert send(box) == ["d"]

    def test_holds_though_messages_of_qos_0_are_sent_again_between(self) -> None:
        box = outbox()
        put(box, "a")
        unwritten = put(box, *"bc", qos=0)
        put(box, *"def")
        send(box, 4)
        box.connection_lost(unwritten)
        assert send(box, 2) == ["a", "b", "c", "d"]
        box.acknowledged(PUBACK, 1, 0)
        assert send(box, 2) == ["e"]

    def test_holds_when_what_was_not_sent_again_yet_is_acknowledged(self) -> None:
        """A broker must not do that; it may be one that counts what it gets."""
        box = outbox()
        put(box, *"abcdefg")
        send(box, 6)
        box.connection_lost([])
        assert send(box, 2) == ["a", "b"]
        box.acknowledged(PUBACK, 4, 0)
        assert send(box, 2) == []
        box.acknowledged(PUBACK, 1, 0)
        assert send(box, 2) == ["c"]

    def test_holds_though_a_message_fails_before_it_is_sent_again(self) -> None:
        box = outbox(max_inflight=2)
        first, *_ = put(box, "a", "b", "c", "d")
        send(box)
        box.connection_lost([])
        box.fail_unsent(first, rejection(first, CONNACK, 0x95))
        assert send(box) == ["b", "c"]

    def test_what_was_acknowledged_before_it_was_sent_again_is_not_sent_though_its_identifier_is_taken(self) -> None:
        ids = PacketIds()
        box = outbox(ids=ids)
        put(box, *"abc")
        send(box)
        box.connection_lost([])
        assert send(box, 1) == ["a"]
        box.acknowledged(PUBACK, 3, 0)
        ids._last = 2
        assert ids.take() == 3  # by a SUBSCRIBE, say
        box.acknowledged(PUBACK, 1, 0)
        assert send(box) == ["b"]

    def test_holds_for_what_is_sent_again_too(self) -> None:
        box = outbox()
        put(box, *"abcd")
        send(box, 4)
        put(box, "e")
        box.connection_lost([])
        assert send(box, 2) == ["a", "b"]
        box.acknowledged(PUBACK, 1, 0)
        assert send(box, 2) == ["c"]
        box.acknowledged(PUBACK, 2, 0)
        box.acknowledged(PUBACK, 3, 0)
        assert send(box, 2) == ["d", "e"]


class TestBound:
    def test_more_than_max_queued_is_refused_and_not_taken(self) -> None:
        box = outbox(max_queued=2)
        put(box, "a", "b")
        with pytest.raises(OutboxFull, match=r"^publish: 2 messages wait already \(max_queued\)"):
            put(box, "c")
        assert len(box.queue) == 2
        assert send(box) == ["a", "b"]

    def test_what_is_in_flight_counts_until_it_is_done(self) -> None:
        box = outbox(max_queued=1)
        put(box, "a", qos=2)
        send(box)
        box.received(1)
        with pytest.raises(OutboxFull):
            put(box, "b")
        box.acknowledged(PUBCOMP, 1, 0)
        put(box, "b")

    def test_of_messages_of_an_earlier_process_counts_those_that_are_left(self) -> None:
        earlier = [message("a"), message("b")]
        for number, one in zip((7, 9), earlier, strict=True):
            one.number = number
        box = restored(earlier, max_queued=3)
        assert len(box.queue) == 2
        (latest,) = put(box, "c")
        assert (latest.number, len(box.queue)) == (10, 3)
        with pytest.raises(OutboxFull):
            box.queue.put(message("d", message_type=box.queue.message_type))

    def test_a_message_of_qos_0_counts_until_it_is_written(self) -> None:
        box = outbox(max_queued=1)
        (only,) = put(box, "a", qos=0)
        send(box)
        with pytest.raises(OutboxFull):
            put(box, "b")
        box.at_qos_0.written([only])
        put(box, "b")

    def test_that_there_is_room_again_is_reported_once_messages_of_qos_0_are_written(self) -> None:
        box, room = outbox(max_queued=2), list[int]()
        messages = put(box, "a", "b", qos=0)
        send(box)
        box.queue.when_room(lambda: room.append(len(box.queue)))
        assert room == []
        box.at_qos_0.written(messages)
        assert room == [0]

    def test_holds_for_many_threads(self) -> None:
        box, refused = outbox(max_queued=500), threading.Semaphore(0)

        def publish() -> None:
            for _ in range(100):
                try:
                    put(box, "a", qos=0)
                except OutboxFull:
                    refused.release()

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        taken: list[Outgoing] = []
        while len(taken) < 500:
            if (one := next(box.due(None), None)) is not None:
                taken.append(one)
        for thread in threads:
            thread.join()
        assert len(box.queue) == 500
        assert next(box.due(None), None) is None
        assert sum(refused.acquire(blocking=False) for _ in range(301)) == 300


class TestAcknowledgements:
    @pytest.mark.parametrize(
        ("qos", "released", "kind"),
        [(1, False, PUBREC), (1, False, PUBCOMP), (2, False, PUBACK), (2, False, PUBCOMP), (2, True, PUBACK)],
    )
    @pytest.mark.parametrize("reason", [0, 0x80])
    def test_of_another_qos_or_out_of_order_are_a_protocol_error_and_change_nothing(
        self, qos: int, released: bool, kind: int, reason: int
    ) -> None:
        """Sections 4.3.2 and 4.3.3."""
        box = outbox()
        (only,) = put(box, "a", qos=qos)
        send(box)
        if released:
            box.received(1)
        stage = only.stage

        def answer() -> None:
            if kind == PUBREC and not reason:
                box.received(1)
            elif reason:
                box.rejected(Acknowledgement(kind, 1, reason))
            else:
                box.acknowledged(kind, 1, reason)

        with pytest.raises(ProtocolError, match=f"{NAMES[kind]} out of place, for a message of QoS {qos}"):
            answer()
        assert (only.done, only.stage, box.inflight) == (False, stage, 1)

    @pytest.mark.parametrize("qos", [1, 2])
    def test_finish_the_delivery_and_free_the_identifier(self, qos: int) -> None:
        ids = PacketIds()
        box = outbox(ids=ids)
        (only,) = put(box, "a", qos=qos)
        send(box)
        assert not done(only)
        if qos == 2:
            box.received(1)
        assert box.acknowledged(PUBACK if qos == 1 else PUBCOMP, 1, 0) is only
        assert done(only)
        assert only.error is None
        assert (len(box.queue), box.inflight) == (0, 0)
        ids._last = 0
        assert ids.take() == 1

    def test_may_come_in_any_order(self) -> None:
        box = outbox()
        first, second = put(box, "a", "b")
        send(box)
        assert box.acknowledged(PUBACK, 2, 0) is second
        assert (first.done, second.done) == (False, True)

    def test_of_nobody_are_nobody(self) -> None:
        box = outbox()
        put(box, "a")
        send(box)
        assert box.acknowledged(PUBACK, 9, 0) is None
        assert box.acknowledged(PUBACK, 1, 0x10) is not None  # No matching subscribers is a success
        assert box.acknowledged(PUBACK, 1, 0) is None
        assert len(box.queue) == 0

    @pytest.mark.parametrize("qos", [1, 2])
    @pytest.mark.parametrize(
        ("reason", "name"),
        [(0x80, "Unspecified error"), (0x87, "Not authorized"), (0x99, "Payload format invalid")],
    )
    def test_that_refuse_fail_the_delivery_with_their_reason(self, qos: int, reason: int, name: str) -> None:
        box = outbox()
        (only,) = put(box, "pump/17", qos=qos)
        send(box)
        box.acknowledged(PUBACK if qos == 1 else PUBREC, 1, reason)
        error = only.error
        assert isinstance(error, DeliveryFailed)
        assert error.reason == reason
        assert str(error) == f"the broker rejected a message on pump/17: {name} (0x{reason:x})"
        assert len(box.queue) == 0

    def test_of_what_was_released_are_not_a_rejection(self) -> None:
        """PUBCOMP with Packet Identifier not found: the broker had the message, and is done with it."""
        box = outbox()
        (only,) = put(box, "a", qos=2)
        send(box)
        box.received(1)
        box.acknowledged(PUBCOMP, 1, 0x92)
        assert only.done
        assert only.error is None

    def test_free_the_payload_of_a_delivery_that_the_application_keeps(self) -> None:
        box = outbox()
        written, delivered, rejected = message("z", 0), message("a"), message("b")
        for one in (written, delivered, rejected):
            one.payload = bytes(1000)
            box.queue.put(one)
        send(box)
        assert len(delivered.payload) == len(rejected.payload) == 1000
        box.acknowledged(PUBACK, 1, 0)
        box.acknowledged(PUBACK, 2, 0x97)
        box.at_qos_0.written([written])
        assert written.payload == delivered.payload == rejected.payload == b""

    def test_of_qos_0_are_its_writing(self) -> None:
        box = outbox()
        (only,) = put(box, "a", qos=0)
        send(box)
        assert not done(only)
        box.at_qos_0.written([only])
        assert done(only)
        assert len(box.queue) == 0


class TestClose:
    def test_fails_all_that_waits_and_reports_how_many(self) -> None:
        box = outbox(max_inflight=2)
        messages = put(box, *"abcd")
        send(box)
        assert box.close() == 4
        for one in messages:
            assert isinstance(one.error, DeliveryFailed)
            assert one.error.reason is None
        assert (len(box.queue), box.inflight) == (0, 0)
        assert send(box) == []

    def test_counts_what_was_to_be_sent_again_once(self) -> None:
        box = outbox()
        put(box, *"abc")
        send(box)
        put(box, "d")
        unwritten = put(box, "e", qos=0)
        assert send(box) == ["d", "e"]
        put(box, "f")
        box.connection_lost(unwritten)
        assert next(box.due(65_535), None) is not None
        assert box.close() == 6
        assert len(box.queue) == 0

    def test_takes_no_message_until_it_is_opened_again(self) -> None:
        box = outbox()
        box.close()
        with pytest.raises(ClientClosed, match=r"^publish: the client has been disconnected; call connect\(\)"):
            put(box, "a")
        box.queue.open(lambda: None)
        put(box, "b")
        assert send(box) == ["b"]

    def test_calls_to_send_when_it_is_open_and_only_then(self) -> None:
        box = outbox()
        calls: list[str] = []
        put(box, "a")
        box.queue.open(lambda: calls.append("wake"))
        put(box, "b")
        assert calls == ["wake"]
        box.close()
        box.queue.wake()
        assert calls == ["wake"]

    def test_frees_the_identifiers(self) -> None:
        ids = PacketIds()
        box = outbox(ids=ids)
        put(box, "a")
        send(box)
        box.close()
        ids._last = 0
        assert ids.take() == 1

    def test_counts_nothing_as_sent_before_when_it_is_opened_again(self) -> None:
        box = outbox(max_inflight=3)
        put(box, *"abc")
        unwritten = put(box, "zero", qos=0)
        send(box)
        box.connection_lost(unwritten)
        box.close()
        box.queue.open(lambda: None)
        put(box, *"defgh")
        assert send(box) == ["d", "e", "f"]

    def test_forgets_what_was_denied_when_it_is_opened_again(self) -> None:
        box = outbox()
        put(box, "a")
        send(box)
        box.denied(1)
        assert box.close() == 1
        box.queue.open(lambda: None)
        put(box, "b")
        box.token_renewed()
        assert send(box) == ["b"]

    def test_of_an_empty_outbox_fails_nothing(self) -> None:
        assert outbox().close() == 0


class TestDenied:
    def test_messages_are_sent_again_once_for_a_new_token_before_newer_ones(self) -> None:
        box = outbox()
        put(box, *"abc")
        send(box)
        box.denied(2)
        box.denied(1)
        put(box, "d")
        box.token_renewed()
        assert send(box) == ["a", "b", "d"]
        box.token_renewed()
        assert send(box) == []

    def test_what_was_not_sent_again_yet_is_not_taken_for_denied(self) -> None:
        """A broker must not do that, but the message would be sent twice."""
        box = outbox()
        put(box, "a", "b")
        send(box)
        box.connection_lost([])
        assert box.denied(1)
        assert send(box) == ["a", "b"]
        box.token_renewed()
        assert send(box) == []


class TestIdentifiers:
    """Each one is freed when its message needs it no longer, and never before."""

    @pytest.fixture
    def ids(self) -> PacketIds:
        return PacketIds()

    @pytest.mark.parametrize("qos", [1, 2])
    def test_of_a_message_that_was_denied(self, ids: PacketIds, qos: int) -> None:
        box = outbox(ids=ids)
        put(box, "a", "b", qos=qos)
        send(box)
        assert box.denied(1)
        assert ids._in_use == {2}
        assert not box.denied(1)

    @pytest.mark.parametrize("qos", [1, 2])
    def test_of_a_message_that_the_broker_rejects_by_its_connack(self, ids: PacketIds, qos: int) -> None:
        box = outbox(ids=ids)
        (only,) = put(box, "a", qos=qos)
        send(box)
        assert ids._in_use == {1}
        box.fail_unsent(only, rejection(only, CONNACK, 0x95))
        assert ids._in_use == set()

    def test_of_a_message_that_is_rejected_by_an_answer(self, ids: PacketIds) -> None:
        box = outbox(ids=ids)
        put(box, "a", qos=2)
        send(box)
        box.acknowledged(PUBREC, 1, 0x97)
        assert ids._in_use == set()

    def test_of_a_message_that_is_released_stays_in_use(self, ids: PacketIds) -> None:
        box = outbox(ids=ids)
        put(box, "a", qos=2)
        send(box)
        box.received(1)
        assert ids._in_use == {1}

    def test_of_what_is_sent_again_stays_in_use(self, ids: PacketIds) -> None:
        box = outbox(ids=ids)
        put(box, "a", "b")
        send(box)
        box.connection_lost([])
        box.session_lost()
        assert ids._in_use == {1, 2}

    def test_are_waited_for_while_all_are_in_use(self, ids: PacketIds) -> None:
        for _ in range(65_534):
            ids.take()
        box = outbox(ids=ids)
        put(box, "a", "b")
        put(box, "c", qos=0)
        assert send(box) == ["a"]
        assert send(box) == []
        box.acknowledged(PUBACK, 65_535, 0)
        assert send(box) == ["b", "c"]


class TestInASignalHandler:
    """publish() interrupts a publish() of the same thread, which holds the lock."""

    def interrupted_at(self, box: Outbox, line: int, inner: Outgoing, outer: Outgoing) -> bool:
        """Publish ``outer``, and ``inner`` before that line of put(); whether there is such a line."""
        lines = 0

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal lines
            if frame.f_code is not MessageQueue.put.__code__:
                return None
            if event == "line":
                lines += 1
                if lines == line:
                    sys.settrace(None)
                    box.queue.put(inner)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            box.queue.put(outer)
        finally:
            sys.settrace(before)
        return lines >= line

    def test_both_are_accepted_wherever_that_happens(self) -> None:
        line = 0
        while True:
            line += 1
            box, inner, outer = outbox(), message("inner"), message("outer")
            if not self.interrupted_at(box, line, inner, outer):
                break
            assert len(box.queue) == 2
            first, second = box.queue.new
            assert {first, second} == {inner, outer}
            assert (first.number, second.number) in ((1, 2), (2, 1))
        assert line > 5, "put() was never interrupted"


class TestCloseDuringPublish:
    """The network thread closes the queue while publish() is in put() on another one, whose lock it does not need."""

    class Closing(deque[Outgoing]):
        """Closes the outbox around an append()."""

        def __init__(self, before: Callable[[], object], after: Callable[[], object]) -> None:
            super().__init__()
            self._before, self._after = before, after

        def append(self, one: Outgoing) -> None:
            self._before()
            super().append(one)
            self._after()

    def test_a_message_that_close_finds_fails(self) -> None:
        box = outbox()
        box.queue.new = self.Closing(lambda: None, box.close)
        (late,) = put(box, "a")
        assert (late.done, str(late.error), len(box.queue)) == (True, CLOSED, 0)

    def test_any_other_one_is_not_accepted(self) -> None:
        box = outbox()
        box.queue.new = self.Closing(box.close, lambda: None)
        late = message("b")
        with pytest.raises(ClientClosed, match=r"^publish: the client has been disconnected"):
            box.queue.put(late)
        assert (late.done, len(box.queue), list(box.queue.new)) == (False, 0, [])
        box.queue.new = deque()
        box.queue.open(lambda: None)
        put(box, "c")
        assert (len(box.queue), send(box)) == (1, ["c"])


class TestPacketIds:
    def test_are_0_while_all_are_in_use(self) -> None:
        ids = PacketIds(last=7)
        assert len({ids.take() for _ in range(65_535)}) == 65_535
        assert ids.take() == 0
        ids.free(5)
        assert ids.take() == 5

    def test_that_an_earlier_process_took_are_skipped(self) -> None:
        ids = PacketIds()
        ids.reserve(1)
        assert ids.take() == 2

    def test_begin_at_1_and_wrap_after_65535(self) -> None:
        ids = PacketIds()
        for expected in range(1, 65_536):
            assert ids.take() == expected
            ids.free(expected)
        assert ids.take() == 1

    def test_skip_those_in_use(self) -> None:
        ids = PacketIds()
        for _ in range(65_535):
            ids.take()
        for free in (5, 6, 65_535):
            ids.free(free)
        assert [ids.take() for _ in range(3)] == [5, 6, 65_535]

    def test_that_were_given_up_are_free_once_the_broker_has_lost_the_session(self) -> None:
        ids = PacketIds()
        for _ in range(65_535):
            ids.take()
        ids.give_up(7, finished=False)
        ids.session_lost()
        assert ids.unfinished == ()
        assert [ids.take(), ids.take()] == [7, 0]

    def test_may_be_freed_twice(self) -> None:
        ids = PacketIds()
        ids.free(ids.take())
        ids.free(1)
        assert ids.take() == 2


class TestDelivery:
    def test_is_waited_for_in_another_thread(self) -> None:
        delivery, seen = Delivery(), queue.SimpleQueue[bool]()

        def wait() -> None:
            delivery.wait(20)
            seen.put(delivery.done)

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: delivery._callbacks is not None, "the other thread to wait")
        delivery.finish()
        assert seen.get(timeout=20)
        waiting.join()

    def test_is_waited_for_by_many_threads(self) -> None:
        """Some begin to wait before it is done, some while it becomes done, some after."""
        delivery, together = Delivery(), threading.Barrier(5)

        def wait() -> None:
            together.wait(10)
            delivery.wait()

        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        together.wait(10)
        delivery.finish()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()

    def test_that_becomes_done_just_before_the_wait_is_not_waited_for(self) -> None:
        delivery = Delivery()
        delivery.finish()
        for _ in range(2):
            delivery._wait(0)

    def test_that_is_done_is_not_waited_for(self) -> None:
        delivery = Delivery()
        delivery.finish()
        delivery.wait(0)
        delivery.wait()

    def test_that_failed_raises_its_error_each_time(self) -> None:
        delivery, error = Delivery(), DeliveryFailed("refused", reason=0x87)
        delivery.finish(error)
        for _ in range(2):
            with pytest.raises(DeliveryFailed) as raised:
                delivery.wait()
            assert raised.value is error

    def test_under_way_times_out_and_stays_under_way(self) -> None:
        delivery = Delivery()
        with pytest.raises(TimeoutError, match=r"not acknowledged within 0\.01 s; it is still in progress"):
            delivery.wait(0.01)
        assert not delivery.done
        assert not delivery._callbacks, "whoever waits again and again leaves nothing behind"
        delivery.finish()
        delivery.wait(0)

    def test_is_not_waited_for_on_the_network_thread(self, loop: NetworkThread) -> None:
        delivery = Delivery()
        with pytest.raises(RuntimeError, match=r"use add_done_callback\(\)"):
            call(loop, delivery.wait)
        delivery.finish()
        call(loop, delivery.wait)

    def test_calls_back_in_order_when_it_is_done(self) -> None:
        delivery, calls = Delivery(), []
        delivery.add_done_callback(lambda delivered: calls.append(("first", delivered.done)))
        delivery.add_done_callback(lambda delivered: calls.append(("second", delivered is delivery)))
        assert calls == []
        delivery.finish()
        assert calls == [("first", True), ("second", True)]

    def test_calls_back_at_once_when_it_is_done_already(self) -> None:
        delivery, calls = Delivery(), []
        delivery.finish(DeliveryFailed("refused"))
        delivery.add_done_callback(lambda delivered: calls.append(delivered.error))
        assert [str(error) for error in calls] == ["refused"]

    @pytest.mark.parametrize("error", [ValueError("of a callback"), SystemExit("of a callback")])
    def test_calls_the_others_back_though_one_raises(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        delivery, calls = Delivery(), []

        def fail(_delivery: Delivery) -> None:
            raise error

        delivery.add_done_callback(fail)
        delivery.add_done_callback(lambda _: calls.append("called"))
        delivery.finish()
        assert calls == ["called"]
        assert "of a callback" in caplog.text

    def test_can_be_asked_again_in_its_callback(self) -> None:
        delivery, calls = Delivery(), []

        def ask(delivered: Delivery) -> None:
            delivered.wait()
            delivered.add_done_callback(lambda _: calls.append("asked"))

        delivery.add_done_callback(ask)
        delivery.finish()
        assert calls == ["asked"]

    def test_is_finished_while_others_add_callbacks_and_none_is_forgotten(self) -> None:
        for _ in range(50):
            calls: queue.SimpleQueue[int] = queue.SimpleQueue()
            delivery, together = Delivery(), threading.Barrier(3)

            def add(delivery: Delivery, together: threading.Barrier, callback: Callable[[Delivery], object]) -> None:
                together.wait(10)
                delivery.add_done_callback(callback)

            threads = [
                threading.Thread(target=add, args=(delivery, together, lambda _, calls=calls: calls.put(1)))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            together.wait(10)
            delivery.finish()
            for thread in threads:
                thread.join()
            assert calls.qsize() == 2
