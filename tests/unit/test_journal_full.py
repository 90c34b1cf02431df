"""``JournalFull``: every message that was dropped is reported, at most every ten seconds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mqtt_token_client import JournalFull
from mqtt_token_client.mqtt.session.journal import Bounds
from mqtt_token_client.mqtt.session.journal_link import JournalLink
from tests.unit.device import Device, Make, end
from tests.unit.packets import PUBLISH
from tests.unit.scripted_journal import ScriptedJournal
from tests.unit.stepped_time import stepped


class FullJournal(ScriptedJournal):
    """A journal that a client opens, with room for one message."""

    def __init__(self) -> None:
        super().__init__(automatic=True)
        self.bounds = Bounds(max_queued=1, when_full="drop_newest")

    def open(self, *_: object) -> None:
        """It is in memory."""


def publish(device: Device, count: int) -> None:
    for _ in range(count):
        device.client.publish("t", "x", qos=1)


def counts(device: Device) -> list[int]:
    return [event.count for event in device.reported(JournalFull)]


def timers() -> int:
    """How many timers a report waits for."""
    entries = [entry[2].callback for entry in stepped().runtime._timers]
    return sum(isinstance(getattr(callback, "__self__", None), JournalLink) for callback in entries)


def test_what_is_dropped_within_ten_seconds_of_a_report_is_reported_when_they_are_over(make: Make) -> None:
    device = make(5, journal=FullJournal())
    device.start()
    publish(device, 2)
    stepped().settle()
    assert (counts(device), timers()) == ([1], 0)
    publish(device, 3)
    stepped().pass_time(4)
    publish(device, 1)
    stepped().pass_time(5)
    assert (counts(device), timers()) == ([1], 1)
    stepped().pass_time(2)
    assert (counts(device), timers()) == ([1, 4], 0)


def test_what_is_dropped_later_is_reported_at_once(make: Make) -> None:
    device = make(5, journal=FullJournal())
    device.start()
    publish(device, 2)
    stepped().pass_time(11)
    publish(device, 2)
    stepped().settle()
    assert (counts(device), timers()) == ([1, 2], 0)


def test_what_was_dropped_is_reported_before_disconnect_returns(make: Make, pool: ThreadPoolExecutor) -> None:
    device = make(5, journal=FullJournal())
    peer = device.start()
    publish(device, 5)
    stepped().settle()
    publish(device, 2)
    peer.expect(PUBLISH)
    end(peer, pool.submit(device.client.disconnect, 0))
    assert sum(counts(device)) == 6
    assert timers() == 0


def test_what_is_dropped_while_disconnect_closes_the_session_is_reported_by_the_next_connection(
    make: Make, pool: ThreadPoolExecutor
) -> None:
    """publish() reports it after it has released the lock of the queue."""
    device = make(5, journal=FullJournal())
    peer = device.start()
    publish(device, 2)
    stepped().settle()
    peer.expect(PUBLISH)
    link = device.client._core.session._outbox._link  # type: ignore[attr-defined]  # of a session with a journal
    end(peer, pool.submit(device.client.disconnect, 0))
    link.dropped(3)
    stepped().settle()
    assert (counts(device), timers()) == ([1], 0)
    device.start()
    assert sum(counts(device)) == 4
