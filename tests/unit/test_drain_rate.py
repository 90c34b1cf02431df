"""``drain_rate``: how fast messages are sent that have waited for a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import ConfigurationError, open_journal
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import Outgoing, RecordedMessage
from mqtt_token_client.mqtt.session.journal import Bounds
from mqtt_token_client.mqtt.session.recorded_queue import RecordedQueue
from tests.unit.device import Device, Make
from tests.unit.journals import disconnect
from tests.unit.packets import PUBACK, PUBLISH
from tests.unit.scripted_broker import Peer
from tests.unit.scripted_journal import ScriptedJournal


class OpenedJournal(ScriptedJournal):
    """A journal that a client opens, with a rate."""

    def __init__(self, drain_rate: float | None) -> None:
        super().__init__(automatic=True)
        self.bounds = Bounds(drain_rate=drain_rate)

    def open(self, *_: object) -> None:
        """It is in memory."""


def receive(peer: Peer, count: int, *, acknowledge: bool = True) -> list[tuple[float, bytes]]:
    """The next messages: when each arrived, and its payload."""
    found = []
    for _ in range(count):
        packet = peer.expect(PUBLISH)
        found.append((monotonic(), packet.payload))
        if acknowledge and packet.qos:
            peer.acknowledge(PUBACK, packet.packet_id)
    return found


def offline(make: Make, count: int, rate: float | None = 2.0, *, qos: int = 1) -> Device:
    """A device with so many messages before it connects."""
    device = make(5, journal=OpenedJournal(rate))
    for number in range(count):
        device.client.publish("t", b"%d" % number, qos=qos)
    return device


@pytest.mark.parametrize("qos", [0, 1])
def test_a_backlog_is_sent_at_the_rate(make: Make, qos: int) -> None:
    device = offline(make, 9, qos=qos)
    found = receive(device.start(), 9)
    assert [payload for _, payload in found] == [b"%d" % number for number in range(9)]
    assert 4 <= found[-1][0] - found[0][0] < 4.2


def test_without_a_rate_it_is_sent_at_once(make: Make) -> None:
    found = receive(offline(make, 50, rate=None).start(), 50)
    assert found[-1][0] - found[0][0] < 0.1


def test_what_is_published_meanwhile_comes_behind_the_backlog_and_without_a_limit(make: Make) -> None:
    device = offline(make, 5)
    peer = device.start()
    receive(peer, 1)
    for number in range(20):
        device.client.publish("t", b"new %d" % number, qos=1)
    found = receive(peer, 24)
    assert [payload for _, payload in found] == [b"%d" % n for n in range(1, 5)] + [b"new %d" % n for n in range(20)]
    assert found[23][0] - found[3][0] < 0.1
    assert found[3][0] - found[0][0] >= 1.5


def test_a_message_is_sent_at_once_if_nothing_waited(make: Make) -> None:
    device = offline(make, 0, rate=0.01)
    peer = device.start()
    began = monotonic()
    for number in range(20):
        device.client.publish("t", b"%d" % number, qos=1)
    assert receive(peer, 20)[-1][0] - began < 0.1


def test_what_waited_for_the_next_connection_is_a_backlog_too(make: Make) -> None:
    device = offline(make, 0)
    peer = device.start()
    for number in range(5):
        device.client.publish("t", b"%d" % number, qos=1)
    receive(peer, 5, acknowledge=False)
    peer.close()
    found = receive(device.answer(), 5)
    assert [payload for _, payload in found] == [b"%d" % number for number in range(5)]
    assert found[-1][0] - found[0][0] >= 2


def test_the_rest_is_sent_after_disconnect_and_connect(make_in_real_time: Make, pool: ThreadPoolExecutor) -> None:
    """disconnect() of the only client ends the network thread, and no timer of that one fires any more."""
    device = offline(make_in_real_time, 5, rate=5.0)
    peer = device.start()
    receive(peer, 2)
    disconnect(device, peer, pool)
    found = receive(device.start(session_present=True), 3)
    assert [payload for _, payload in found] == [b"2", b"3", b"4"]


class OnDisk:
    """A queue with ten messages in memory and the others on disk, and the seconds at which messages are sent."""

    def __init__(self, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("_MAX_IN_MEMORY", 10), ("_FEW_IN_MEMORY", 10)):
            monkeypatch.setattr(f"mqtt_token_client.mqtt.session.recorded_queue.{name}", value)
        self.now = 1000.0
        monkeypatch.setattr("mqtt_token_client.mqtt.session.pace.monotonic", lambda: self.now)
        self.messages: list[RecordedMessage] = []
        journal = ScriptedJournal()
        journal.bounds = Bounds(drain_rate=rate)
        journal.read = self.read  # type: ignore[method-assign]
        self.queue = RecordedQueue(journal, print)
        self.again: list[Outgoing] = []

    def publish(self, qos: int) -> RecordedMessage:
        message = RecordedMessage(encode_topic("t"), b"x", qos, False, b"")
        self.queue.put(message)
        if qos:
            self.messages.append(message)
        return message

    def read(self, after: int, limit: int, then: Callable[[Sequence[RecordedMessage], bool], None]) -> None:
        page = [message for message in self.messages if message.number > after][: min(limit, 10)]
        then(page, page[-1:] == self.messages[-1:])

    def due(self) -> Iterator[Outgoing]:
        while waiting := self.again or self.queue.new:
            yield waiting.pop(0) if waiting is self.again else self.queue.new.popleft()

    def sent(self, seconds: int) -> list[list[int]]:
        """The numbers of those sent in each of so many seconds."""
        found = []
        for _ in range(seconds):
            self.now += 1
            found.append(list[int]())
            while sent := [message.number for message in self.queue.pace.limit(self.due())]:
                found[-1] += sent
                self.queue.read_backlog()  # has it read, and takes it
                self.queue.read_backlog()
        return found


@pytest.mark.parametrize("when", ["before", "in", "again"])
def test_a_message_of_qos_0_that_overtakes_those_on_disk_ends_no_limit(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    device = OnDisk(1.0, monkeypatch)
    for _ in range(30):
        device.publish(1)
    if when == "before":
        device.publish(0)
    if when == "again":  # it was not written completely
        device.again.append(device.publish(0))
        device.queue.new.pop()
    device.queue.connected(rotated=False)
    before = device.sent(5)
    if when == "in":
        device.publish(0)
    sent = before + device.sent(40)
    assert [number for second in sent for number in second if number <= 30] == list(range(1, 31))
    assert max(sum(number <= 30 for number in second) for second in sent) == 1
    assert sum(31 in second for second in sent) == 1
    for _ in range(20):
        device.publish(1)
    assert sum(map(len, device.sent(2))) == 20


def test_a_rotation_does_not_slow_anything_down(make: Make) -> None:
    device = offline(make, 0)
    first = device.start()
    second = device.rotate()
    second.connack(session_present=True)
    first.close()
    for number in range(20):
        device.client.publish("t", b"%d" % number, qos=1)
    found = receive(second, 20)
    assert found[-1][0] - found[0][0] < 0.1


@pytest.mark.parametrize("rate", [0, -1, "fast", True, float("inf"), float("nan")])
def test_the_rate_must_be_messages_a_second(rate: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^drain_rate must be messages a second, above 0, got"):
        open_journal("journal", drain_rate=rate)  # type: ignore[arg-type]
