"""Numbered messages in both directions between a client under test and an independent one, and their outcome."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from devtools.servers.keys import RIGHTS
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from mqtt_token_client import ClientCredentials, Delivery, Disconnected, Event, Message, Rotated
from tests.integration.interfaces import AnyClient, OnTheLoop

TOPICS, TURN, STAY = 60, 12, 10  # a turn: one topic has one QoS, where that goes by number % 2, 3 or 4


def source(oidc: AuthorizationServer) -> ClientCredentials:
    return ClientCredentials(
        issuer=oidc.issuer, client_id=oidc.client_id, client_secret=oidc.client_secret, scope=RIGHTS
    )


@dataclass
class Arrivals:
    """Numbered messages in the order in which they arrived."""

    numbers: list[int] = field(default_factory=list)
    by_topic: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    at: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    def add(self, topic: str, payload: bytes | bytearray, now: float) -> None:
        number, sent_at = payload.split()
        self.at.append(now)
        self.delays.append(now - float(sent_at))
        self.numbers.append(int(number))
        self.by_topic[topic].append(int(number))

    def lost_of(self, count: int) -> set[int]:
        return set(range(count)) - set(self.numbers)

    @property
    def duplicated(self) -> int:
        return len(self.numbers) - len(set(self.numbers))

    @property
    def repeated(self) -> list[int]:
        """Those that arrived more than once."""
        return sorted(number for number, count in Counter(self.numbers).items() if count > 1)

    @property
    def longest_until_repeated(self) -> float:
        """The longest time from the first arrival of a message to its last one, in seconds."""
        first: dict[int, float] = {}
        pairs = zip(self.numbers, self.at, strict=True)
        return max((at - first.setdefault(number, at) for number, at in pairs), default=0.0)

    @property
    def rate(self) -> float:
        """Arrivals per second, from the first to the last."""
        return (len(self.at) - 1) / (self.at[-1] - self.at[0]) if len(self.at) > 1 else 0.0

    @property
    def reordered(self) -> int:
        """Messages that first arrived after a later one of their topic."""
        count = 0
        for numbers in self.by_topic.values():
            highest, seen = -1, set()
            for number in numbers:
                count += number < highest and number not in seen
                seen.add(number)
                highest = max(highest, number)
        return count

    def longest_gap(self, start: float = 0.0, end: float = float("inf")) -> float:
        """The longest time without an arrival between two times, in seconds."""
        pairs = zip(self.at, self.at[1:], strict=False)
        return max((later - earlier for earlier, later in pairs if later > start and earlier < end), default=0.0)


def late_of(broker: str, kind: str, rotations: int) -> int:
    """How many messages a broker may send after later ones of their topic. RabbitMQ gives the new connection of a
    session its next messages before it has taken back those that the old one has not acknowledged, at most its
    prefetch of 10: any client sees that when it takes a session over. Once the old connection is closed it cannot.
    """
    return 10 * rotations if (broker, kind) == ("rabbitmq", "handover") else 0


def topic(number: int) -> int:
    """The topic of a message. Messages of one topic follow each other closely, for a while: otherwise those in transit
    together when a connection ends could not change places, because MQTT does not order messages of different topics or
    different QoS.
    """
    return number // (TURN * STAY) * TURN % TOPICS + number % TURN


def payload(number: int) -> bytes:
    return b"%d %.6f" % (number, time.monotonic())


class PeerProcess:
    """A process for any number of peers."""

    def __init__(self) -> None:
        self._speaking = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "peer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: object) -> None:
        """Send a command of peer.py."""
        with self._speaking:
            self._send(command)

    def ask(self, command: object) -> Any:
        """Send a command and return the answer."""
        with self._speaking:
            self._send(command)
            assert self._process.stdout is not None
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=10)

    def _send(self, command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()


class Peer:
    """An independent client with a long-lived token; it receives what the client under test sends, and its will. It has
    a process of its own, unless it is given one.
    """

    def __init__(
        self, port: int, name: str, token: str, *, session: bool = False, process: PeerProcess | None = None
    ) -> None:
        self.name = name
        self._arrivals = Arrivals()
        self._wills = 0
        self._shared = process is not None
        self._process: PeerProcess | None = process or PeerProcess()
        given = {"port": port, "name": name, "token": token, "session": session}
        assert self._process.ask(given) == "ready"  # not on the command line: it has a secret

    @property
    def arrivals(self) -> Arrivals:
        """The arrivals so far."""
        self._ask()
        return self._arrivals

    @property
    def wills(self) -> int:
        self._ask()
        return self._wills

    def publish(self, topic: str, number: int, qos: int = 1) -> None:
        assert self._process is not None
        self._process.tell([self.name, topic, payload(number).decode(), qos])

    def close(self) -> None:
        self._ask()
        process, self._process = self._process, None
        if process is not None and not self._shared:
            process.close()

    def _ask(self) -> None:
        if self._process is None:
            return
        answer = self._process.ask(self.name)
        self._wills = answer["wills"]
        for topic, content, when in answer["arrivals"]:
            self._arrivals.add(topic, content.encode(), when)


class Traffic:
    """A client under test and its peer, and everything that happens to them."""

    def __init__(self, client: AnyClient, peer: Peer, events: list[Event]) -> None:
        self.client = client
        self.peer = peer
        self.events = events
        self.down = Arrivals()
        self.deliveries: list[Delivery | OnTheLoop] = []
        self.sent = 0

    def __enter__(self) -> Traffic:
        self.client.subscribe(f"down/{self.peer.name}/#", self._arrived, qos=2)
        assert self.client.connect(), self.events
        # Once its own subscription works, the client receives its own messages.
        ready = threading.Event()
        self.client.subscribe(f"ready/{self.peer.name}", lambda _message: ready.set())
        wait_until(lambda: self._say_ready(ready), "the subscriptions work")
        return self

    def _say_ready(self, ready: threading.Event) -> bool:
        self.client.publish(f"ready/{self.peer.name}", b"", qos=1)
        return ready.wait(0.2)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.peer.close()

    def _arrived(self, message: Message) -> None:
        self.down.add(message.topic, message.payload, time.monotonic())

    def publish(self, number: int, qos: int = 1) -> None:
        name = f"up/{self.peer.name}/{topic(number)}"
        self.deliveries.append(self.client.publish(name, payload(number), qos=qos))

    def send(self, qos: int = 1) -> None:
        """Send the next message each way."""
        self.publish(self.sent, qos)
        self.peer.publish(f"down/{self.peer.name}/{topic(self.sent)}", self.sent, qos)
        self.sent += 1

    def run(
        self,
        seconds: float,
        rate: float,
        qos: Callable[[int], int] = lambda _number: 1,
        enough: threading.Event | None = None,
    ) -> None:
        """Send ``rate`` messages per second each way, for some time or until ``enough``."""
        pause = enough or threading.Event()
        began = time.monotonic()
        while (ahead := began + self.sent / rate - time.monotonic()) < seconds:
            if self.sent >= seconds * rate or pause.is_set():
                break
            if ahead > 0:
                pause.wait(ahead)
            self.send(qos(self.sent))

    def wait_for_load(self, sent: int) -> None:
        """Wait until so many messages have been sent each way."""
        wait_until(lambda: self.sent >= sent, f"{sent} messages sent", timeout=30)

    def settle(self, timeout: float = 20, *, but: Callable[[int], bool] = lambda _number: False) -> None:
        """Wait until everything that was sent has arrived, except ``but``, which may be lost."""
        for delivery in self.deliveries:
            delivery.wait(timeout)
        for name, way in (("up", lambda: self.peer.arrivals), ("down", lambda: self.down)):
            wait_until(lambda way=way: all(map(but, way().lost_of(self.sent))), f"all messages {name}", timeout)  # type: ignore[misc]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def rotations(self) -> list[Rotated]:
        return [event for event in self.events if isinstance(event, Rotated)]

    @property
    def losses(self) -> list[Event]:
        return self.of(Disconnected)


def turns(count: int, rate: float) -> Iterator[float]:
    """Yield how long to wait before each of ``count`` turns, of which there are ``rate`` per second."""
    began = time.monotonic()
    for number in range(count):
        yield max(0.0, began + number / rate - time.monotonic())


def trusting(ca: object) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))
