"""A client at a scripted broker, with its token source; its events and messages are recorded."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar
from unittest.mock import patch

import pytest

from devtools.servers.secret_check import remember_secret
from mqtt_token_client import Backoff, Connected, Event, Message, Token, TokenClient
from tests.unit.packets import CONNECT, DISCONNECT
from tests.unit.scripted_broker import PATIENCE, Peer, ScriptedBroker
from tests.unit.stepped_time import stepping, wait_until

both = pytest.mark.parametrize("protocol", [4, 5])
QUICK = Backoff(initial=0.02, maximum=0.1, stable_after=60.0)

_Event = TypeVar("_Event", bound=Event)


def password(number: int) -> bytes:
    """The token that a source makes at its n-th request, as CONNECT carries it."""
    return b"the token of request %d" % number


class Source:
    """Makes a new token at each request, unless ``next`` or ``always`` says otherwise."""

    def __init__(self, life: float | None = 3600.0) -> None:
        self.life = life
        self.requests = 0
        self.next: list[Any] = []  # tokens to return, exceptions to raise
        self.always: Any = None
        self.gate = threading.Event()  # while it is cleared, a request waits
        self.gate.set()
        self.asked = threading.Semaphore(0)

    def fetch(self, previous: Token | None) -> Token:
        self.requests += 1
        number = self.requests
        self.asked.release()
        assert self.gate.wait(PATIENCE)
        step = self.next.pop(0) if self.next else self.always
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, Token):
            return step
        remember_secret(password(number).decode())
        return Token(password(number).decode(), self.life)


class Device:
    """A client, its source, its broker, and what it reported."""

    def __init__(self, protocol: int = 5, *, broker: ScriptedBroker | None = None, **options: Any) -> None:
        self.broker = broker or ScriptedBroker()
        self.source = Source()
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self._taken = 0
        options = {"client_id": "device", "tokens": self.source, "backoff": QUICK, **options}
        options = {"on_event": self.on_event, "on_message": self.on_message, **options}
        self.client = TokenClient(options.pop("broker_url", self.broker.url), protocol=protocol, **options)

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_message(self, message: Message) -> None:
        self.messages.append(message)

    def until(self, happened: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Wait for a condition that a message, an event or the passing of time makes true."""
        assert wait_until(happened, timeout), f"it did not happen; events: {self.events}"

    def event(self, kind: type[_Event]) -> _Event:
        """Wait for an event of a kind: the first one after the event that was returned last."""

        def later() -> list[int]:
            return [at for at in range(self._taken, len(self.events)) if isinstance(self.events[at], kind)]

        self.until(lambda: bool(later()))
        found = self.events[later()[0]]
        self._taken = later()[0] + 1
        assert isinstance(found, kind)
        return found

    def reported(self, kind: type[_Event]) -> list[_Event]:
        """All events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def payloads(self) -> list[bytes]:
        """The payloads that the handlers received, in order."""
        return [message.payload for message in self.messages]

    def answer(self, code: int = 0, *, session_present: bool = True, properties: dict[int, int] | None = None) -> Peer:
        """Accept a connection, read CONNECT, and send CONNACK."""
        peer = self.broker.accept()
        peer.expect(CONNECT)
        peer.connack(code, session_present=session_present, properties=properties)
        return peer

    def start(self, *, session_present: bool = False, properties: dict[int, int] | None = None) -> Peer:
        """Connect; returns the broker's side of the connection."""
        self.client.connect(timeout=0)
        peer = self.answer(session_present=session_present, properties=properties)
        self.event(Connected)
        return peer

    def rotate(self) -> Peer:
        """Renew the token; returns the second connection, after its CONNECT."""
        self.client.rotate()
        peer = self.broker.accept()
        connect = peer.expect(CONNECT)
        assert connect.password == password(self.source.requests)
        return peer

    def close(self) -> None:
        self.source.gate.set()
        self.broker.close()
        self.client.disconnect(0)


class InternalErrors(logging.Handler):
    """Records what the library reports as its own errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "error of this library" in record.getMessage():
            self.found.append(logging.Formatter().format(record))


Make = Callable[..., Device]


@contextlib.contextmanager
def devices(*, real_time: bool = False) -> Iterator[Make]:
    """``make(protocol, ...)`` makes devices; at the end their threads are gone and there was no internal error."""
    made: list[Device] = []
    before = set(threading.enumerate())
    errors = InternalErrors()
    logging.getLogger("mqtt_token_client").addHandler(errors)

    def make(protocol: int = 5, **options: Any) -> Device:
        made.append(Device(protocol, **options))
        return made[-1]

    # A test does not read the first connection all the time, so its PINGREQ is not answered.
    settle_time = patch("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 0.1)
    with settle_time, contextlib.nullcontext() if real_time else stepping():
        try:
            yield make
        finally:
            for device in made:
                device.close()
            logging.getLogger("mqtt_token_client").removeHandler(errors)
    deadline = time.monotonic() + PATIENCE
    while left := [t for t in threading.enumerate() if t not in before and t.name.startswith("mqtt-token")]:
        assert time.monotonic() < deadline, f"threads are left: {left}"
        time.sleep(0.001)
    assert not errors.found, "\n".join(errors.found)


def end(peer: Peer, disconnecting: Future[Any]) -> None:
    """The client sends DISCONNECT and nothing after it; the broker closes, and disconnect() returns."""
    assert peer.expect(DISCONNECT).reason == 0
    peer.expect_nothing(0.4)  # the broker may close by itself
    peer.expect_end()
    peer.close()
    disconnecting.result(PATIENCE)
