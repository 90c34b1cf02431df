"""The time in a journal: ages and expiries pass from process to process, and over a power cut if that is certain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_token_client import MessageExpired, Token, TokenKeeper
from mqtt_token_client.clock import ServerClock, TimesOfDay, monotonic, synchronized_wall
from mqtt_token_client.journal.batch import Batch
from mqtt_token_client.journal.database import Database
from mqtt_token_client.journal.rows import DamagedError
from mqtt_token_client.journal.timeline import Age
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import Outgoing, RecordedExpiringMessage
from mqtt_token_client.profiles import profile_class
from mqtt_token_client.tokens.credentials import CredentialsProvider
from tests.unit import packets
from tests.unit.device import Make, Source
from tests.unit.journals import Open, journal, make

__all__ = ["journal", "make"]

NOON = 1_700_000_000.0  # a time of day


class Machine:
    """A machine that is booted and loses power, and the journal on its disk."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.now = 5000.0
        self.boot = 1
        self.database: Database | None = None
        monkeypatch.setattr("mqtt_token_client.journal.timeline.monotonic", lambda: self.now)
        monkeypatch.setattr("mqtt_token_client.journal.timeline.boot_id", lambda: f"boot {self.boot}")

    def start(self) -> None:
        """Start a process that opens the journal."""
        self.end()
        self.database = Database(self.path)

    def reboot(self) -> None:
        """The power fails and comes back."""
        self.end()
        self.boot += 1
        self.now = 3.0
        self.start()

    def end(self) -> None:
        if self.database is not None:
            self.database.close()

    def publish(self, number: int, expires_in: float = 60.0) -> None:
        one = RecordedExpiringMessage(encode_topic("t"), b"x", 1, False, b"")
        one.number, one.expires_at = number, self.now + expires_in
        self.commit(lambda batch: batch.append(one, b"x", self.now))

    def learn(self, server: float | None = None, machine: float | None = None) -> None:
        """Get the time of day from clocks that can be trusted."""
        self.commit(lambda batch: batch.note_time(TimesOfDay(server, machine), self.now))

    def commit(self, change: object = lambda _: None) -> None:
        assert self.database is not None
        batch = Batch(self.database.counters)
        change(batch)  # type: ignore[operator]
        self.database.commit(batch)

    def messages(self) -> list[Outgoing]:
        assert self.database is not None
        return list(self.database.page(0, 1000)[0])

    def left(self, message: Outgoing | None = None) -> float:
        """Seconds until a message, by default the only one, expires."""
        (found,) = self.messages() if message is None else [message]
        assert found.expires_at is not None
        return found.expires_at - self.now

    def ages(self) -> list[Age]:
        assert self.database is not None
        return [age for _, age in self.database.ages()]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path / "journal", monkeypatch)
    yield machine
    machine.end()


def test_time_passes_between_two_processes_of_one_boot(machine: Machine) -> None:
    machine.start()
    machine.publish(1)
    machine.now += 40
    machine.start()
    assert machine.left() == 20
    assert machine.ages() == [Age(40.0, exact=True)]


def test_without_a_clock_that_can_be_trusted_time_stands_still_while_the_power_is_off(machine: Machine) -> None:
    machine.start()
    machine.publish(1)
    machine.now += 40
    machine.publish(2)
    machine.reboot()
    machine.now += 5
    assert [machine.left(one) for one in machine.messages()] == [15, 55]
    assert machine.ages() == [Age(45.0, exact=False), Age(5.0, exact=False)]


def test_power_off_time_counts_once_both_boots_know_the_time_of_day(machine: Machine) -> None:
    machine.start()
    machine.learn(NOON)
    machine.now += 10
    machine.publish(1, expires_in=1000)
    machine.reboot()
    (waiting,) = machine.messages()
    assert machine.left(waiting) == 1000
    machine.learn(NOON + 10 + 600)
    assert machine.left(waiting) == machine.left() == 400
    assert machine.ages() == [Age(600.0, exact=True)]


def test_the_time_from_the_last_commit_to_the_power_cut_counts_too(machine: Machine) -> None:
    machine.start()
    machine.learn(NOON)
    machine.publish(1, expires_in=1000)
    machine.now += 300  # nothing is written in that time
    machine.reboot()
    machine.learn(NOON + 300 + 100)
    assert machine.left() == 600


def test_power_off_time_does_not_count_for_later_messages(machine: Machine) -> None:
    machine.start()
    machine.learn(NOON)
    machine.publish(1, expires_in=1000)
    machine.reboot()
    machine.publish(2, expires_in=1000)
    machine.learn(NOON + 600)
    assert [machine.left(one) for one in machine.messages()] == [400, 1000]
    assert machine.ages() == [Age(600.0, exact=True), Age(0.0, exact=True)]


def test_power_off_times_of_several_boots_add_up(machine: Machine) -> None:
    machine.start()
    machine.learn(NOON)
    machine.publish(1, expires_in=1000)
    machine.reboot()
    machine.learn(NOON + 200)
    machine.publish(2, expires_in=1000)
    machine.reboot()
    machine.learn(NOON + 200 + 300)
    assert [machine.left(one) for one in machine.messages()] == [500, 700]
    machine.start()
    assert [machine.left(one) for one in machine.messages()] == [500, 700]


def test_a_boot_that_does_not_get_to_know_the_time_is_counted_by_the_next_one(machine: Machine) -> None:
    machine.start()
    machine.learn(NOON)
    machine.publish(1, expires_in=1000)
    machine.reboot()
    machine.publish(2, expires_in=1000)  # for this one, nobody can know
    machine.reboot()
    machine.learn(NOON + 600)
    assert [machine.left(one) for one in machine.messages()] == [400, 1000]
    assert not machine.ages()[1].exact


def test_a_clock_that_was_not_trusted_before_the_power_cut_counts_nothing(machine: Machine) -> None:
    machine.start()
    machine.publish(1, expires_in=1000)
    machine.reboot()
    machine.learn(NOON)
    assert machine.left() == 1000
    assert machine.ages() == [Age(0.0, exact=False)]


def test_two_clocks_are_not_compared_with_each_other(machine: Machine) -> None:
    machine.start()
    machine.learn(server=NOON)
    machine.publish(1, expires_in=1000)
    machine.reboot()
    machine.learn(machine=NOON + 50_000_000)
    assert machine.left() == 1000
    assert machine.ages() == [Age(0.0, exact=False)]
    machine.learn(server=NOON + 600, machine=NOON + 50_000_000)
    assert machine.left() == 400
    assert machine.ages() == [Age(600.0, exact=True)]
    machine.reboot()
    machine.learn(machine=NOON + 50_000_100)
    assert machine.left() == 300


def test_a_boot_before_which_nobody_knows_the_time_stays_uncertain(machine: Machine) -> None:
    machine.start()
    machine.publish(1, expires_in=1000)
    machine.reboot()
    machine.learn(NOON)
    machine.reboot()
    machine.learn(NOON + 600)
    assert machine.left() == 400
    assert machine.ages() == [Age(600.0, exact=False)]


def test_a_clock_that_is_behind_counts_nothing(machine: Machine) -> None:
    machine.start()
    machine.learn(NOON)
    machine.publish(1, expires_in=1000)
    machine.reboot()
    machine.learn(NOON - 600)
    assert machine.left() == 1000


def test_the_time_of_day_in_one_boot_moves_no_expiry(machine: Machine) -> None:
    machine.start()
    machine.publish(1, expires_in=1000)
    machine.learn(NOON)
    machine.learn(NOON + 600)
    assert machine.left() == 1000
    machine.reboot()
    machine.learn(NOON + 900)  # the clock that was heard last counts
    assert machine.left() == 700


def test_absences_are_forgotten_with_the_last_message_that_waited(machine: Machine) -> None:
    machine.start()
    for boot in range(1, 4):
        machine.learn(NOON + 100 * boot)
        machine.publish(boot)
        machine.commit(lambda batch, done=boot - 1: batch.remove(done))
        machine.reboot()
    assert machine.database is not None
    assert machine.database._connection.execute("SELECT count(*) FROM absences").fetchone()[0] <= 1


def test_a_damaged_time_is_damage(machine: Machine) -> None:
    machine.start()
    assert machine.database is not None
    machine.database._connection.execute("UPDATE timeline SET base = base + 1")
    with pytest.raises(DamagedError, match="time"):
        machine.start()


class DatedSource(Source):
    """Its server says the time of day with each token."""

    def __init__(self, time_of_day: float) -> None:
        super().__init__()
        self.clock = ServerClock()
        self._time_of_day = time_of_day

    def fetch(self, previous: Token | None) -> Token:
        self.clock.learn_from(self._time_of_day, monotonic())
        return super().fetch(previous)


def test_what_expired_while_the_power_was_off_is_not_sent(
    make: Make, journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_token_client.journal.timeline.boot_id", lambda: "first")
    first_journal = journal(commit_every=0)
    first = make(5, journal=first_journal, tokens=DatedSource(NOON), max_inflight=1)
    peer = first.start()
    first.client.publish("t", b"in flight", qos=1)
    peer.expect(packets.PUBLISH)
    for expiry, payload in ((600, b"expires"), (6000, b"stays")):
        first.client.publish("t", payload, qos=1, properties={"message_expiry_interval": expiry}).stored.wait(10)
    first_journal.close()
    first.broker.close()
    monkeypatch.setattr("mqtt_token_client.journal.timeline.boot_id", lambda: "second")
    second = make(5, journal=journal(), tokens=DatedSource(NOON + 3600))
    peer = second.start(session_present=True)
    assert peer.expect(packets.PUBLISH).payload == b"in flight"
    sent = peer.expect(packets.PUBLISH)
    assert sent.payload == b"stays"
    assert 2400 <= sent.properties[0x02] < 2500
    assert second.event(MessageExpired) == MessageExpired("t")


def test_a_wall_clock_that_ntp_keeps_is_trusted_and_another_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        state = 0

        def adjtimex(self, _timex: object) -> int:
            return self.state

    monkeypatch.setattr("ctypes.CDLL", lambda _: Kernel())
    before = time.time()
    assert before <= (synchronized_wall() or 0) <= time.time()
    for state in (5, -1):  # TIME_ERROR; not permitted
        monkeypatch.setattr(Kernel, "state", state)
        assert synchronized_wall() is None
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # of another system
    assert synchronized_wall() is None


def test_a_client_knows_the_time_of_its_server_and_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_token_client.tokens.credentials.synchronized_wall", lambda: 5.0)
    source = DatedSource(NOON)
    provider = CredentialsProvider(TokenKeeper(source), profile_class("password")(), "pump")
    source.clock.learn_from(NOON + 365 * 86_400, monotonic(), from_server=False)  # a router's
    assert provider.times_of_day() == TimesOfDay(None, 5.0)
    source.fetch(None)
    assert abs((provider.times_of_day().server or 0) - NOON) < 10
