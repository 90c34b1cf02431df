"""Whether a journal keeps its promises: what devices report, against what an independent subscriber received."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devtools.servers.processes import wait_until
from tests.integration.journal_device import padding

_COMMITS = 4  # syncs after which a commit that was asked for is on the disk, with one under way and a checkpoint


class Monitor:
    """Receives everything that devices publish, at QoS 2, in a session that outlives connections.

    Args:
        port: of the broker.
        token: for the broker.
    """

    def __init__(self, port: int, token: str) -> None:
        self._arrived: dict[str, list[tuple[str, int, bytes]]] = defaultdict(list)  # topic, QoS and payload
        subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="monitor", clean_session=False)
        self._client.username_pw_set("monitor", token)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("+/+", 2)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(10), "the monitor could not subscribe"

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        topic, name = message.topic.split("/")
        self._arrived[name].append((topic, message.qos, bytes(message.payload)))

    def take(self, name: str) -> list[tuple[str, int, bytes]]:
        """Everything that a device has published, once its last message is here."""
        wait_until(lambda: any(one[2] == b"end" for one in self._arrived[name][-3:]), "the last message", timeout=60)
        return self._arrived.pop(name)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@dataclass
class Message:
    """What a device has reported of one of its messages."""

    topic: str
    qos: int
    stored: bool = False
    delivered: tuple[int, int] | None = None  # in which life, after how many changes of the folder
    handed_over: list[tuple[int, int]] = field(default_factory=list)  # to this device
    session_lost: bool = False  # while it was on its way: it may arrive again
    forgotten: bool = False  # perhaps by the broker, see Story._connected()
    mistaken: bool = False  # for delivered: the broker has answered PUBREL for what it may have forgotten


@dataclass
class Story:
    """What one device has reported in its lives, from the first to the last."""

    name: str
    messages: dict[int, Message] = field(default_factory=dict)
    syncs: list[list[int]] = field(default_factory=list)  # of each life: after how many changes
    faults: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)  # the reports of all lives, for whoever looks into a fault
    forgotten: int = 0  # by the broker: lost, see _connected()
    _disk_failed: bool = False
    _lost: bool = False  # the broker has lost the session, and the device has not been told
    _told: tuple[int, int] | None = None  # in which life, after how many changes, the last loss was reported to it
    expected: tuple[str, ...] = (
        "Connected",
        "Disconnected",
        "ConnectFailed",
        "Rotated",
        "TokenRenewed",
        "SessionLost",
        "Resumed",
        "RotationFailed",
        "JournalFailed",
        "JournalRecovered",
    )

    @property
    def life(self) -> int:
        return len(self.syncs)

    def add(self, reports: list[str]) -> None:
        """One more life, before :attr:`syncs` has it."""
        stolen: set[int] = set()
        self.history += [f"{self.life}: {line}" for line in reports]
        for line in reports:
            what, *words = line.split(" ", 3)
            match what, *words:
                case "p", number, topic, qos:
                    self.messages[int(number)] = Message(topic, int(qos))
                case "s", number:
                    self.messages[int(number)].stored = True
                case "d", number, changes:
                    self.messages[int(number)].delivered = self.life, int(changes)
                    self.messages[int(number)].mistaken |= self.messages[int(number)].forgotten
                case "f", *_:
                    self.faults.append(f"a delivery failed: {line}")
                case "r", number, changes:
                    self.messages[int(number)].handed_over.append((self.life, int(changes)))
                case "x", *_:  # somebody is about to end the session
                    stolen = {n for n, one in self.messages.items() if not self._is_over(one)}
                case "y", *_:  # the session is gone
                    for n, one in self.messages.items():
                        one.session_lost |= n in stolen or not self._is_over(one)
                    self._lost, self._told = True, None
                case "c", changes, present:
                    self._connected(int(changes), session_present=present == "1")
                case "v", *_ if not line[2:].startswith(self.expected):
                    self.faults.append(f"unexpected: {line[2:]}")

    def _connected(self, changes: int, *, session_present: bool) -> None:
        """If a process dies before it has recorded that the session was lost, the next one cannot know that: the broker
        has a session. What it had accepted by PUBREC, and forgot with the session before, is lost [MQTT-4.3.3].
        """
        if self._lost:  # what was removed from the journal just before the end of a life is there again
            for message in self.messages.values():
                message.session_lost |= not self._is_over(message)
        if not session_present:
            self._told = self.life, changes
        elif self._lost and not (self._told and self._is_recorded(*self._told)):
            for message in self.messages.values():
                message.forgotten |= message.qos == 2 and message.session_lost and not self._is_over(message)
        self._lost &= not session_present

    def _is_over(self, message: Message) -> bool:
        """Whether a message is delivered, and the journal knows that."""
        return message.delivered is not None and self._is_recorded(*message.delivered)

    def _is_recorded(self, life: int, changes: int) -> bool:
        """Whether what happened then is on the disk for certain, unless that life still goes on."""
        return life == self.life or sum(sync > changes for sync in self.syncs[life]) >= _COMMITS

    def disk_failed(self) -> None:
        """In its last life the disk could not be read or did not take what happened, as an event has said: any message
        may come again, and older ones after newer ones.
        """
        self._disk_failed = True
        for message in self.messages.values():
            message.session_lost |= message.delivered is None or message.delivered[0] == self.life - 1

    def check(self, arrived: list[tuple[str, int, bytes]]) -> None:
        """Compare with what has arrived."""
        self.history += [f"arrived: {topic} {qos} {payload[:8]!r}" for topic, qos, payload in arrived]
        times: dict[int, int] = defaultdict(int)
        last: dict[tuple[str, int], int] = defaultdict(lambda: -1)
        for topic, qos, payload in arrived:
            if payload == b"end":
                continue
            digits, rest = payload.split(b" ", 1)
            number = int(digits)
            sent = self.messages[number]
            if (topic, qos, rest) != (sent.topic, sent.qos, padding(number)):
                self.faults.append(f"damaged: message {number} arrived as {topic} {qos} {payload[:40]!r}")
            times[number] += 1
            if times[number] == 1:
                # If the power is cut before it is removed, and the session lost again, it is sent after all, and late.
                if number < last[topic, qos] and not (self._disk_failed or sent.mistaken):
                    self.faults.append(f"reordered: message {number} arrived after {last[topic, qos]}, {sent}")
                last[topic, qos] = number
        for number, message in self.messages.items():
            if not times[number] and (message.stored or message.delivered):
                if message.forgotten:
                    self.forgotten += 1
                else:
                    self.faults.append(f"lost: message {number}, {message}")
            if message.qos == 2 and times[number] > 1 and not message.session_lost:
                self.faults.append(f"twice: message {number} arrived {times[number]} times, {message}")
            if message.topic == "loop" and times[number] and not message.session_lost:
                self._check_handed_over(number, message)

    def _check_handed_over(self, number: int, message: Message) -> None:
        if not message.handed_over:
            self.faults.append(f"lost: message {number} was not handed over, {message}")
        if message.qos == 2:
            for before, after in pairwise(message.handed_over):
                if before[0] == after[0] or self._is_recorded(*before):
                    lives = [life for life, _ in message.handed_over]
                    self.faults.append(f"twice: message {number} was handed over in the lives {lives}")
