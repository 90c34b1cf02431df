"""A client with a journal on disk, from one process to the next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mqtt_token_client import ConfigurationError, DeliveryFailed, JournalFailed, Resumed, TokenClient, open_journal
from mqtt_token_client.journal.disk import DiskJournal
from tests.unit import packets
from tests.unit.device import Device, Make, Source
from tests.unit.journals import Open, disconnect, journal, make

__all__ = ["journal", "make"]


def end(device: Device, journal: DiskJournal) -> None:
    """As if the process ended: nothing else reaches the disk. The client is closed after the test."""
    journal.close()
    device.broker.close()


def test_messages_of_an_earlier_process_are_sent_before_new_ones(make: Make, journal: Open) -> None:
    first_journal = journal(commit_every=0)
    first = make(5, journal=first_journal)
    first.client.publish("t", b"1", qos=1)
    first.client.publish("t", b"2", qos=1).stored.wait(10)
    end(first, first_journal)
    second = make(5, journal=journal())
    second.client.publish("t", b"3", qos=1)
    peer = second.start()
    assert [message.payload for message in peer.expect_messages(3)] == [b"1", b"2", b"3"]
    assert second.reported(Resumed) == [Resumed(2)]


def test_a_message_of_qos_0_is_kept_if_it_is_durable(make: Make, journal: Open) -> None:
    first_journal = journal(commit_every=3600)
    first = make(5, journal=first_journal)
    first.client.publish("t", b"lost", qos=0)
    first.client.publish("t", b"kept", qos=0, durable=True).stored.wait(10)
    end(first, first_journal)
    peer = make(5, journal=journal()).start()
    assert peer.expect(packets.PUBLISH).payload == b"kept"
    peer.expect_nothing()


def test_an_unacknowledged_message_keeps_its_identifier(make: Make, journal: Open) -> None:
    first_journal = journal(commit_every=0)
    first = make(5, journal=first_journal)
    peer = first.start()
    first.client.publish("t", b"1", qos=2)
    sent = peer.expect(packets.PUBLISH)
    end(first, first_journal)
    peer = make(5, journal=journal()).start(session_present=True)
    again = peer.expect(packets.PUBLISH)
    assert (again.packet_id, again.payload, again.dup) == (sent.packet_id, b"1", True)


def test_disconnect_keeps_messages_and_connect_sends_them(make: Make, journal: Open, pool: ThreadPoolExecutor) -> None:
    device = make(5, journal=journal())
    peer = device.start()
    delivery = device.client.publish("t", b"1", qos=1)
    peer.expect(packets.PUBLISH)
    disconnect(device, peer, pool)
    with pytest.raises(DeliveryFailed, match="the journal has it"):
        delivery.wait(0)
    assert device.client.stats.queued == 1
    peer = device.start(session_present=True)
    again = peer.expect(packets.PUBLISH)
    peer.acknowledge(packets.PUBACK, again.packet_id)
    device.until(lambda: device.client.stats.queued == 0)


def test_disconnect_returns_when_everything_is_on_disk(make: Make, journal: Open, pool: ThreadPoolExecutor) -> None:
    device = make(5, journal=journal(commit_every=3600))
    peer = device.start()
    delivery = device.client.publish("t", b"1", qos=1)
    peer.expect(packets.PUBLISH)
    disconnect(device, peer, pool)
    assert delivery.disk is True


def test_a_client_whose_disk_fails_starts_and_says_so(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    journal = open_journal(tmp_path / "file" / "journal")
    device = make(5, journal=journal)
    delivery = device.client.publish("t", b"1", qos=1)
    peer = device.start()
    peer.acknowledge(packets.PUBACK, peer.expect(packets.PUBLISH).packet_id)
    delivery.wait(10)
    assert len(device.reported(JournalFailed)) == 1
    journal.close()


def test_durable_needs_a_journal(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="durable=True needs"):
        make(5).client.publish("t", b"", durable=True)


def test_a_journal_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match=r"^journal must be an open_journal\(path\), got str"):
        TokenClient("mqtts://broker", Source(), client_id="device", journal="/var/lib/pump")  # type: ignore[arg-type]
