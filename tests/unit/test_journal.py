"""What a session reports to its journal, which packets wait for the disk, and what the next process continues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from mqtt_token_client.mqtt.codec.packets import PUBACK, Acknowledgement
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.session.acks import ManualAcks
from mqtt_token_client.mqtt.session.delivery import RecordedMessage, Stage
from mqtt_token_client.mqtt.session.journal import Bounds
from mqtt_token_client.mqtt.session.limits import Limits
from tests.unit.network_thread import call
from tests.unit.scripted_journal import ScriptedJournal
from tests.unit.session_client import Client

NEW, SENT, RELEASED = Stage
Make = Callable[..., Client]


@pytest.fixture
def make(loop: NetworkThread) -> Iterator[Make]:
    made: list[Client] = []

    def make(journal: ScriptedJournal, **options: Any) -> Client:
        made.append(Client(loop, journal=journal, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


class TestReports:
    """Each moment, in order; what is on disk is no matter here."""

    @pytest.fixture
    def journal(self) -> ScriptedJournal:
        return ScriptedJournal(automatic=True)

    @pytest.fixture
    def client(self, make: Make, journal: ScriptedJournal) -> Client:
        return make(journal)

    def test_a_message_of_qos_1(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t")
        assert journal.reported() == [("append", 1), ("mark", 1, 1, SENT)]
        client.answer("40 02 0001")
        assert journal.reported() == [("remove", 1)]

    def test_a_message_of_qos_2(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t", qos=2)
        assert journal.reported() == [("append", 1), ("mark", 1, 1, SENT)]
        client.answer("50 02 0001")
        assert journal.reported() == [("mark", 1, 1, RELEASED)]
        client.answer("70 02 0001")
        assert journal.reported() == [("remove", 1)]

    def test_a_message_of_qos_0_is_not_recorded(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t", qos=0)
        client.sees("30 04 0001 74 00")
        call(client.loop, lambda: None)
        assert journal.calls == []

    def test_a_message_that_the_broker_rejects(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t")
        client.publish("t", qos=2)
        journal.reported()
        client.answer("40 03 0001 99  50 03 0002 99")
        assert journal.reported() == [("remove", 1), ("remove", 2)]

    def test_a_message_beyond_the_limits_of_the_broker(self, client: Client, journal: ScriptedJournal) -> None:
        client.session.queue.put(RecordedMessage(encode_topic("t"), b"", 1, True, b""))
        call(client.loop, lambda: client.session.send(client.link, Limits(retain=False)))
        assert journal.reported() == [("append", 1), ("mark", 1, 1, SENT), ("remove", 1)]

    def test_a_message_that_is_denied_and_sent_again_as_a_new_one(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        client.publish("t")
        journal.reported()
        assert call(client.loop, lambda: client.session.denied(Acknowledgement(PUBACK, 1, 0x87)))
        assert journal.reported() == [("mark", 1, 0, NEW)]
        call(client.loop, client.session.token_renewed)
        client.send()
        assert journal.reported() == [("mark", 1, 2, SENT)]

    def test_a_lost_connection_changes_nothing(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t", qos=2)
        client.publish("t")
        journal.reported()
        client.reconnect()
        client.send()
        assert journal.reported() == []

    def test_a_lost_session(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t", qos=2)
        client.answer("50 02 0001")
        journal.reported()
        client.reconnect(session_present=False)
        client.send()
        assert journal.reported() == [("session_lost",), ("mark", 1, 1, SENT)]

    def test_everything_once_more_when_the_journal_has_lost_it(self, client: Client, journal: ScriptedJournal) -> None:
        client.session.open(client.loop.call_soon, lambda: None)
        client.publish("t")
        client.session.queue.put(RecordedMessage(encode_topic("t"), b"", 2, False, b""))
        journal.reported()
        journal.lost()
        call(client.loop, lambda: None)
        assert journal.reported() == [("append", 1), ("mark", 1, 1, SENT), ("append", 2)]

    @pytest.mark.parametrize("why", ["replace", "drop_oldest"])
    def test_nothing_that_another_thread_takes_out_while_the_rest_is_reported_once_more(
        self, client: Client, journal: ScriptedJournal, pool: ThreadPoolExecutor, why: str
    ) -> None:
        client.session.open(client.loop.call_soon, lambda: None)
        journal.bounds = Bounds(max_queued=3, when_full="drop_oldest")
        sent = client.publish("s")
        old, other, new = (RecordedMessage(encode_topic(topic), b"", 1, False, b"") for topic in "aba")
        client.session.queue.put(other)
        client.session.queue.put(old, replace=True)
        replace = why == "replace"
        publishing: list[Future[None]] = []

        def publish() -> None:
            journal.on_append = lambda: None
            publishing.append(pool.submit(client.session.queue.put, new, replace=replace))
            wait(publishing, 0.1)

        journal.on_append = publish
        journal.lost()
        call(client.loop, lambda: None)
        publishing[0].result(10)
        gone, kept = (old, other) if replace else (other, old)
        assert gone.done
        recorded = {one.number for one in journal.load(print, print).messages}
        assert recorded == {sent.number, kept.number, new.number}

    def test_messages_stay_as_the_client_is_closed(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t")
        client.session.queue.put(RecordedMessage(encode_topic("t"), b"", 2, False, b""))
        journal.reported()
        call(client.loop, client.session.close)
        assert journal.reported() == []

    def test_a_message_that_waits_for_a_new_token_stays_too(self, client: Client, journal: ScriptedJournal) -> None:
        delivery = client.publish("t")
        assert call(client.loop, lambda: client.session.denied(Acknowledgement(PUBACK, 1, 0x87)))
        journal.reported()
        assert call(client.loop, client.session.close) == 0
        assert journal.reported() == []
        assert "the journal has it" in str(delivery.error)

    def test_only_messages_that_are_not_recorded_count_as_abandoned(self, client: Client) -> None:
        for qos in (0, 0, 1):
            client.session.queue.put(RecordedMessage(encode_topic("t"), b"", qos, False, b""))
        assert call(client.loop, client.session.close) == 2

    def test_a_message_that_is_to_be_sent_again_stays_as_the_client_is_closed(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        message = client.publish("t")
        call(client.loop, lambda: client.session.denied(Acknowledgement(PUBACK, 1, 0x87)))
        call(client.loop, client.session.token_renewed)
        journal.reported()
        call(client.loop, client.session.close)
        assert journal.reported() == []
        assert (message.done, client.stats.queued) == (True, 1)
        client.reconnect()
        client.send()
        assert journal.reported() == [("mark", 1, 2, SENT)]

    def test_a_received_message_of_qos_2(self, client: Client, journal: ScriptedJournal) -> None:
        client.answer("34 07 0001 74 0102 00 21")
        assert journal.reported() == [("received", 0x102)]
        client.answer("62 02 0102")
        assert journal.reported() == [("released", 0x102)]

    def test_a_received_message_of_qos_1_is_not_recorded(self, client: Client, journal: ScriptedJournal) -> None:
        client.answer("32 07 0001 74 0102 00 21")
        assert journal.calls == []

    def test_a_received_message_is_reported_after_its_handler(self, make: Make, journal: ScriptedJournal) -> None:
        """In a power cut before that, the broker sends it again."""
        seen: list[list[tuple[object, ...]]] = []
        client = make(journal, on_message=lambda _: seen.append(list(journal.calls)))
        client.answer("34 07 0001 74 0102 00 21")
        assert seen == [[]]

    def test_with_manual_acknowledgement_it_is_reported_when_the_application_is_done_with_it(
        self, make: Make, journal: ScriptedJournal
    ) -> None:
        client = make(journal, manual_acks=ManualAcks())
        client.session.open(client.loop.call_soon, lambda: None)
        client.answer("34 07 0001 74 0102 00 21")
        assert journal.calls == []
        client.delivered[0].acknowledge()
        client.sees("50 02 0102")
        assert journal.reported() == [("received", 0x102)]

    def test_a_message_that_the_application_still_holds_is_not_reported_to_a_journal_that_has_lost_everything(
        self, make: Make, journal: ScriptedJournal
    ) -> None:
        client = make(journal, manual_acks=ManualAcks())
        client.session.open(client.loop.call_soon, lambda: None)
        client.answer("34 07 0001 74 0102 00 21  34 07 0001 74 0103 00 22")
        client.delivered[0].acknowledge()
        client.sees("50 02 0102")
        journal.reported()
        journal.lost()
        call(client.loop, lambda: None)
        assert journal.reported() == [("received", 0x102)]
        client.delivered[1].acknowledge()
        client.sees("50 02 0103")
        assert journal.reported() == [("received", 0x103)]


class TestWaiting:
    """Nothing is on disk until the test commits it."""

    @pytest.fixture
    def journal(self) -> ScriptedJournal:
        return ScriptedJournal()

    @pytest.fixture
    def client(self, make: Make, journal: ScriptedJournal) -> Client:
        return make(journal)

    def commit(self, client: Client, journal: ScriptedJournal) -> None:
        journal.commit()
        client.send()

    def test_publish_of_qos_2_waits_for_its_identifier(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t", qos=2)
        client.sees_nothing()
        self.commit(client, journal)
        client.sees("34 06 0001 74 0001 00")

    def test_publish_of_qos_0_and_1_does_not_wait(self, client: Client) -> None:
        client.publish("a", qos=2)
        client.publish("b", qos=1)
        client.publish("c", qos=0)
        client.sees("32 06 0001 62 0002 00  30 04 0001 63 00")

    def test_many_wait_for_one_commit_and_keep_their_order(self, client: Client, journal: ScriptedJournal) -> None:
        for topic in "abc":
            client.publish(topic, qos=2)
        self.commit(client, journal)
        client.sees("34 06 0001 61 0001 00  34 06 0001 62 0002 00  34 06 0001 63 0003 00")

    def test_those_that_were_reported_after_a_commit_wait_for_the_next(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        client.publish("a", qos=2)
        journal.commit()
        client.publish("b", qos=2)
        client.sees("34 06 0001 61 0001 00")
        self.commit(client, journal)
        client.sees("34 06 0001 62 0002 00")

    def test_those_that_wait_count_as_in_flight(self, client: Client, journal: ScriptedJournal) -> None:
        client.receive_maximum = 2
        for topic in "abc":
            client.publish(topic, qos=2)
        self.commit(client, journal)
        client.sees("34 06 0001 61 0001 00  34 06 0001 62 0002 00")
        self.commit(client, journal)
        client.sees_nothing()

    def test_pubrel_waits_for_the_stage(self, client: Client, journal: ScriptedJournal) -> None:
        client.publish("t", qos=2)
        self.commit(client, journal)
        client.sees("34 06 0001 74 0001 00")
        client.answer("50 02 0001")
        client.sees_nothing()
        self.commit(client, journal)
        client.sees("62 02 0001")
        client.answer("70 02 0001")
        assert client.stats.delivered == 1

    def test_pubrels_keep_the_order_of_the_pubrecs(self, client: Client, journal: ScriptedJournal) -> None:
        """[MQTT-4.6.0-4], on the same connection and on the next one."""
        for topic in "abc":
            client.publish(topic, qos=2)
        self.commit(client, journal)
        client.read(24)
        client.answer("50 02 0002  50 02 0001")
        self.commit(client, journal)
        client.sees("62 02 0002  62 02 0001")
        client.reconnect()
        client.send()
        client.sees("62 02 0002  62 02 0001  3c 06 0001 63 0003 00")

    def test_pubrel_for_an_unknown_identifier_does_not_wait(self, client: Client) -> None:
        client.answer("50 02 0007")
        client.sees("62 03 0007 92")

    def test_pubrec_waits_for_the_received_identifier_and_pubcomp_for_the_released_one(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        client.answer("34 07 0001 74 0102 00 21")
        assert len(client.delivered) == 1
        client.sees_nothing()
        self.commit(client, journal)
        client.sees("50 02 0102")
        client.answer("62 02 0102")
        client.sees_nothing()
        self.commit(client, journal)
        client.sees("70 02 0102")

    def test_puback_does_not_wait(self, client: Client) -> None:
        client.answer("34 07 0001 74 0102 00 21  32 07 0001 74 0103 00 21")
        client.sees("40 02 0103")

    def test_what_waits_when_the_connection_is_lost_waits_on_the_next_one(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        client.publish("a", qos=2)
        self.commit(client, journal)
        client.sees("34 06 0001 61 0001 00")
        client.publish("b", qos=2)
        client.answer("50 02 0001  34 07 0001 74 0102 00 21")
        client.reconnect()
        client.send()
        client.sees_nothing()
        self.commit(client, journal)
        client.sees("62 02 0001  34 06 0001 62 0002 00")

    def test_a_packet_that_need_not_wait_does_not_overtake_one_that_does(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        """The journal is faster the second time."""
        client.publish("a", qos=2)
        client.sees_nothing()
        journal.automatic = True
        client.publish("b", qos=2)
        client.send()
        client.sees("34 06 0001 61 0001 00  34 06 0001 62 0002 00")
        journal.automatic = False
        client.answer("50 02 0001")
        client.sees_nothing()
        journal.automatic = True
        client.answer("50 02 0002")
        client.send()
        client.sees("62 02 0001  62 02 0002")

    def test_after_a_lost_session_everything_waits_until_that_is_on_disk(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        """Otherwise the next process would release a message that this broker has never received, and take a new
        message for one that was received in the lost session.
        """
        client.publish("t", qos=2)
        self.commit(client, journal)
        client.answer("50 02 0001")
        self.commit(client, journal)
        client.read(12)
        client.reconnect(session_present=False)
        client.subscribe("t")
        client.sees_nothing()
        self.commit(client, journal)
        client.sees("82 07 0002 00 0001 74 01")
        self.commit(client, journal)
        client.sees("34 06 0001 74 0001 00")

    def test_a_message_that_is_completed_before_its_pubrel_is_not_released(
        self, client: Client, journal: ScriptedJournal
    ) -> None:
        client.publish("t", qos=2)
        self.commit(client, journal)
        client.sees("34 06 0001 74 0001 00")
        client.answer("50 02 0001  70 02 0001")
        assert client.stats.delivered == 1
        self.commit(client, journal)
        client.sees_nothing()

    def test_the_session_is_woken_when_more_is_on_disk(self, client: Client, journal: ScriptedJournal) -> None:
        client.session.open(
            client.loop.call_soon, lambda: client.loop.call_soon(lambda: client.connection_writable(client.link))
        )
        client.publish("t", qos=2)
        threading.Thread(target=journal.commit).start()
        client.sees("34 06 0001 74 0001 00")


class TestNextProcess:
    """After a power cut: what was committed is there, and nothing else."""

    def test_sends_again_what_was_in_flight_and_then_what_was_not(self, make: Make) -> None:
        journal = ScriptedJournal(automatic=True)
        first = make(journal, max_inflight=3)
        for topic in "abcd":
            first.publish(topic, qos=2 if topic == "b" else 1)
        first.answer("50 02 0002")
        journal.commit()
        second = make(journal.after_power_cut())
        assert (second.stats.queued, second.stats.inflight) == (4, 3)
        second.send()
        second.sees("3a 06 0001 61 0001 00  62 02 0002  3a 06 0001 63 0003 00  32 06 0001 64 0004 00")
        second.answer("40 02 0001  70 02 0002  40 02 0003  40 02 0004")
        assert (second.stats.queued, second.stats.delivered) == (0, 4)

    def test_numbers_continue(self, make: Make) -> None:
        journal = ScriptedJournal(automatic=True)
        first = make(journal)
        for _ in range(3):
            first.publish("t")
        first.answer("40 02 0001  40 02 0003")
        journal.commit()
        next_journal = journal.after_power_cut()
        second = make(next_journal)
        second.publish("u")
        second.sees("3a 06 0001 74 0002 00  32 06 0001 75 0001 00")
        assert next_journal.reported() == [("append", 3), ("mark", 3, 1, SENT)]

    def test_identifiers_begin_anywhere_as_the_last_ones_may_not_be_on_disk(self, make: Make) -> None:
        """The power was cut while the disk failed: the broker may wait for PUBREL with an identifier after those that
        are known.
        """
        journal = ScriptedJournal(automatic=True)
        make(journal).publish("t")
        journal.commit()
        second = make(journal.after_power_cut(), last_packet_id=40)
        second.publish("u", qos=2)
        second.sees("3a 06 0001 74 0001 00  34 06 0001 75 0029 00")

    def test_identifiers_in_flight_are_not_taken_again(self, make: Make) -> None:
        journal = ScriptedJournal(automatic=True)
        first = make(journal, last_packet_id=65_534)
        first.publish("a")
        first.publish("b")
        first.answer("40 02 ffff")
        journal.commit()
        second = make(journal.after_power_cut(), last_packet_id=65_534)
        for topic in "cd":
            second.publish(topic)
        second.sees("3a 06 0001 62 0001 00  32 06 0001 63 ffff 00  32 06 0001 64 0002 00")

    def test_what_was_not_on_disk_is_gone(self, make: Make) -> None:
        journal = ScriptedJournal()
        make(journal).publish("t")
        second = make(journal.after_power_cut())
        second.send()
        second.sees_nothing()
        assert second.stats.queued == 0

    def test_a_message_of_qos_2_that_was_received_is_not_handed_over_again(self, make: Make) -> None:
        journal = ScriptedJournal(automatic=True)
        first = make(journal)
        first.answer("34 07 0001 74 0102 00 21  34 07 0001 74 0103 00 21  62 02 0103")
        second = make(journal.after_power_cut())
        second.answer("3c 07 0001 74 0102 00 21  34 07 0001 74 0103 00 22")
        second.sees("50 02 0102  50 02 0103")
        assert [message.payload for message in second.delivered] == [b'"']

    def test_a_message_that_was_not_acknowledged_is_handed_over_again_though_the_file_was_replaced(
        self, make: Make
    ) -> None:
        journal = ScriptedJournal(automatic=True)
        first = make(journal, manual_acks=ManualAcks())
        first.session.open(first.loop.call_soon, lambda: None)
        first.answer("34 07 0001 74 0102 00 21")
        journal.lost()
        call(first.loop, lambda: None)
        second = make(journal.after_death(), manual_acks=ManualAcks())
        second.session.open(second.loop.call_soon, lambda: None)
        second.answer("3c 07 0001 74 0102 00 21")
        assert [message.payload for message in second.delivered] == [b"!"]
        second.sees_nothing()

    def test_a_message_that_was_denied_gets_a_new_identifier(self, make: Make) -> None:
        journal = ScriptedJournal(automatic=True)
        first = make(journal)
        first.publish("t")
        call(first.loop, lambda: first.session.denied(Acknowledgement(PUBACK, 1, 0x87)))
        journal.commit()
        second = make(journal.after_power_cut(), last_packet_id=1)
        second.send()
        second.sees("32 06 0001 74 0002 00")

    def test_pubrel_follows_at_once_if_the_disk_has_pubrec(self, make: Make) -> None:
        client = make(ScriptedJournal(automatic=True))
        client.publish("a", qos=2)
        client.sees("34 06 0001 61 0001 00")
        client.answer("50 02 0001")
        client.sees("62 02 0001")

    def test_a_broker_without_the_session_gets_everything_as_new(self, make: Make) -> None:
        journal = ScriptedJournal(automatic=True)
        first = make(journal)
        first.publish("a", qos=2)
        first.publish("b")
        first.answer("50 02 0001")
        second = make(journal.after_power_cut())
        second.accepted(session_present=False)
        second.send()
        second.sees("34 06 0001 61 0001 00  32 06 0001 62 0002 00")


def test_a_message_published_while_another_is_recorded_is_recorded_too_and_both_keep_their_order(make: Make) -> None:
    """As by a signal handler, which interrupts publish()."""
    journal = ScriptedJournal(automatic=True)
    client = make(journal)
    second = RecordedMessage(encode_topic("b"), b"", 1, False, b"")

    def interrupt() -> None:
        journal.on_append = lambda: None
        client.session.queue.put(second)

    journal.on_append = interrupt
    client.publish("a")
    client.sees("32 06 0001 61 0001 00  32 06 0001 62 0002 00")
    assert journal.reported()[:2] == [("append", 1), ("append", 2)]


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_is_not_sent_before_it_is_recorded(make: Make, qos: int) -> None:
    """The network thread is faster than publish() here."""
    journal = ScriptedJournal(automatic=True)
    client = make(journal)
    inside, go_on = threading.Event(), threading.Event()

    def wait_inside() -> None:
        inside.set()
        assert go_on.wait(10)

    journal.on_append = wait_inside
    message = RecordedMessage(encode_topic("t"), b"", qos, False, b"")
    publishing = threading.Thread(target=client.session.queue.put, args=(message,), kwargs={"durable": not qos})
    publishing.start()
    assert inside.wait(10)
    sent = threading.Event()

    def send() -> None:
        client.connection_writable(client.link)
        sent.set()

    client.loop.call_soon(send)
    assert not sent.wait(0.05)
    go_on.set()
    publishing.join(10)
    assert sent.wait(10)
    client.sees("32 06 0001 74 0001 00" if qos else "30 04 0001 74 00")
    assert journal.reported() == [("append", 1), ("mark", 1, 1, SENT) if qos else ("remove", 1)]
