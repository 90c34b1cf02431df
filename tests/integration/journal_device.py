"""A device with a journal that dies at a chosen moment; power_cuts.py starts it and reads what it reports.

It is a warm process that has everything imported: each line on its input is one life, a :class:`Life` as JSON, which a
fork of it lives. A life ends at a change of its folder (devtools/disk/layer.c kills it there), after a random time, or
when everything is delivered; then its exit status is a line of the output. What happens to each message goes to a
file, line by line, so that nothing of it is lost with the process:

    p NUMBER TOPIC QOS   publish() is called
    s NUMBER             Delivery.stored is true
    d NUMBER CHANGES     the message is delivered, after so many changes of its folder
    f NUMBER ERROR       the delivery failed
    r NUMBER CHANGES     a message was handed over to this device, as before
    c CHANGES PRESENT    it has connected; PRESENT is 1 if the broker has a session
    v EVENT              any other event
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from devtools.disk.layer import Layer
from mqtt_token_client import (
    Backoff,
    Connected,
    Delivery,
    Event,
    Message,
    MqttTokenError,
    Token,
    TokenClient,
    open_journal,
)

QUICK = Backoff(initial=0.02, maximum=0.1, stable_after=1.0)
TOPICS = ("a", "b", "loop")  # the device has subscribed to the last one
SIZES = (0, 0, 0, 100, 2_000, 9_000)  # bytes of padding
_LONGEST_LIFE = 60  # seconds, on a machine that is busy


@dataclasses.dataclass
class Life:
    """One life of a device.

    Attributes:
        name: its client identifier.
        port: of the broker.
        folder: where its journal is.
        log: for the changes of the folder.
        reports: the file for what happens.
        tokens: to present, one after the other.
        first: the number of its first message.
        seed: of all that is random.
        kill_at: the change of the folder at which it dies; 0 for none.
        kill_after: seconds after which it dies, mostly counted from its first message; 0 for never.
        commit_every: of the journal, in seconds.
        key: of its journal; empty for none.
        fails: what the disk does: the error, the first call that fails, how many do.
        drains: publish nothing, and end when everything is delivered.
    """

    name: str
    port: int
    folder: str
    log: str
    reports: str
    tokens: list[str]
    first: int
    seed: int
    kill_at: int = 0
    kill_after: float = 0.0
    commit_every: float = 0.0
    key: str = ""
    fails: tuple[int, int, int] = (0, 0, 0)
    drains: bool = False


class Tokens:
    """A source whose tokens were made before."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._fetched = 0

    def fetch(self, previous: Token | None) -> Token:
        self._fetched += 1
        return Token(self._tokens[self._fetched % len(self._tokens)], 3600)


def padding(number: int) -> bytes:
    """What follows the number in a payload."""
    return b"%d." % number * (SIZES[number % len(SIZES)] // 5)


class Device:
    """One life, in its own process."""

    def __init__(self, life: Life, layer: Layer) -> None:
        self._life = life
        self._layer = layer
        self._chance = random.Random(life.seed)
        self._reports = -1  # opened with the first report
        self._number = life.first
        self._heard_end = threading.Event()
        self.client = TokenClient(
            f"mqtt://127.0.0.1:{life.port}",
            Tokens(life.tokens),
            client_id=life.name,
            journal=open_journal(Path(life.folder) / "outbox", commit_every=life.commit_every, key=life.key or None),
            backoff=QUICK,
            max_inflight=self._chance.choice((1, 3, 20)),
            on_event=self._event,
        )
        self.client.subscribe(f"loop/{life.name}", self._received, qos=2)

    def _report(self, line: str) -> None:
        if self._reports < 0:
            self._reports = os.open(self._life.reports, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._reports, f"{line}\n".encode())

    def _event(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._report(f"c {self._layer.changes} {event.session_present:d}")
        else:
            self._report(f"v {event!r}")

    def _received(self, message: Message) -> None:
        if message.payload == b"end":
            self._heard_end.set()
        else:
            self._report(f"r {int(message.payload.split(b' ')[0])} {self._layer.changes}")

    def publish(self) -> Delivery:
        """Publish the next message, and report what becomes of it."""
        number, self._number = self._number, self._number + 1
        topic, qos = self._chance.choice(TOPICS), self._chance.choice((1, 2))
        self._report(f"p {number} {topic} {qos}")
        payload = b"%d " % number + padding(number)
        delivery = self.client.publish(f"{topic}/{self._life.name}", payload, qos=qos)
        delivery.stored.add_done_callback(lambda _: self._report(f"s {number}") if delivery.stored else None)
        delivery.add_done_callback(lambda done: self._report_done(number, done))
        return delivery

    def _report_done(self, number: int, delivery: Delivery) -> None:
        self._report(f"d {number} {self._layer.changes}" if delivery.error is None else f"f {number} {delivery.error}")

    def live(self) -> None:
        """Publish until the end of this life."""
        self.client.connect(timeout=0)
        last = self.publish()
        while True:
            match self._chance.choice(("burst", "burst", "burst", "stored", "acknowledged", "rotate", "pause")):
                case "burst":
                    for _ in range(self._chance.randint(1, 4)):
                        last = self.publish()
                case "stored":
                    wait(last.stored.__bool__)
                case "acknowledged":
                    with contextlib.suppress(TimeoutError):
                        last.wait(0.05)
                case "rotate" if self._chance.random() < 0.3:
                    try:
                        self.client.rotate()
                    except MqttTokenError as error:
                        self._report(f"v {error!r}")
                case _:
                    time.sleep(0.002)

    def drain(self) -> None:
        """Deliver everything, and receive everything that was sent before."""
        self.client.connect(timeout=_LONGEST_LIFE)
        wait(lambda: not self.client.stats.queued, _LONGEST_LIFE)
        self.client.publish(f"loop/{self._life.name}", b"end", qos=2).wait(_LONGEST_LIFE)
        assert self._heard_end.wait(_LONGEST_LIFE), "the end has not come back"
        self.client.disconnect()


def wait(condition: Callable[[], bool], timeout: float = 0.05) -> None:
    """Wait until a condition holds, or it is too late."""
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)


def live(life: Life, layer: Layer) -> None:
    """One life, in a fork."""
    signal.alarm(_LONGEST_LIFE)  # a life that does not end is a failure
    layer.watch(Path(life.folder), Path(life.log), life.kill_at)
    if life.fails[0]:
        layer.fail(*life.fails)
    device = Device(life, layer)
    if life.drains:
        device.drain()
    else:
        device.live()


def main() -> None:
    layer = Layer()
    import sqlite3  # noqa: F401 - warm

    for line in sys.stdin:
        life = Life(**json.loads(line))
        if (child := os.fork()) == 0:
            try:
                live(life, layer)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - the end of this fork
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
                os._exit(1)
        if life.kill_after:
            if life.seed % 5:
                wait(Path(life.reports).exists, 5.0)
            time.sleep(life.kill_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
