"""The demo: a client that publishes to itself while its tokens are rotated, and counts its messages."""

from __future__ import annotations

import signal
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.live import Live

from ..client import TokenClient
from ..description import describe, short
from ..events import Connected, Event, Rotated, TokenRenewed
from ..sources.oauth.client_credentials import ClientCredentials
from ..testing import AuthorizationServer, Broker
from .display import Snapshot, line, table
from .live import can_refresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

_LIFETIME = 6.0  # seconds that a token is valid
_PERIOD = 1 / 50  # seconds between messages
_GRACE = 5.0  # seconds after which a message that has not arrived counts as lost
_TOPIC = "demo/numbers"


class Traffic:
    """Counts numbered messages.

    A message counts as lost once ``grace`` seconds have passed since it was sent, until it arrives after all. One
    thread sends, one receives, any thread may read.
    """

    def __init__(self, grace: float = _GRACE) -> None:
        self.sent = 0
        self.received = 0
        self.duplicated = 0
        self._grace = grace
        self._pending: dict[int, float] = {}  # when each was sent

    def send(self) -> int:
        """Return the number of the next message, which is sent now."""
        self.sent += 1
        self._pending[self.sent] = time.monotonic()
        return self.sent

    def receive(self, number: int) -> None:
        """Count a message that has arrived."""
        if self._pending.pop(number, None) is None:
            self.duplicated += 1
        else:
            self.received += 1

    @property
    def lost(self) -> int:
        """How many messages have not arrived in time."""
        overdue = time.monotonic() - self._grace
        return sum(sent <= overdue for sent in self._pending.copy().values())

    @property
    def settled(self) -> bool:
        """Whether each message has arrived or is lost."""
        return self.lost == len(self._pending)


class Watch:
    """Follows a client by its events.

    Args:
        log: gets a line for each event that belongs in a log.
    """

    def __init__(self, log: Callable[[str], object]) -> None:
        self.traffic = Traffic()
        self.client: TokenClient | None = None
        self._log = log
        self._started = time.monotonic()
        self._connected = False
        self._token = ""
        self._lifetime = 0.0
        self._renewals = 0
        self._gaps: list[float] = []
        self._events: deque[tuple[float, str]] = deque(maxlen=20)

    def on_event(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case TokenRenewed(expires_in=expires_in, jti=jti):
                self._token, self._lifetime = short(jti), expires_in
                self._renewals += self._connected  # the first token is not a renewal
            case Connected():
                self._connected = True
            case Rotated(gap=gap):
                self._gaps.append(gap)
        self._events.append((time.monotonic() - self._started, describe(event)))
        if not isinstance(event, TokenRenewed):
            self._log(line(self.snapshot()))

    def snapshot(self) -> Snapshot:
        """Return the counters as they are now."""
        left = self.client.token_expires_in if self.client is not None else None
        return Snapshot(
            elapsed=time.monotonic() - self._started,
            token=self._token,
            token_left=left or 0.0,
            token_lifetime=self._lifetime,
            renewals=self._renewals,
            gaps=tuple(self._gaps),
            sent=self.traffic.sent,
            received=self.traffic.received,
            lost=self.traffic.lost,
            duplicated=self.traffic.duplicated,
            events=tuple(self._events),
        )


def run(seconds: float | None, console: Console) -> Snapshot:
    """Run the demo for this many seconds, or until Ctrl-C, and show it.

    Returns:
        The counters at the end, when all messages had arrived or were lost.

    Raises:
        MqttTokenError: the client could not connect.
    """
    lines: deque[str] = deque()
    watch = Watch(lines.append)
    picture = (
        Live(get_renderable=lambda: table(watch.snapshot()), console=console, refresh_per_second=8)
        if can_refresh(console)
        else nullcontext()
    )

    def show_lines() -> None:
        while lines and not can_refresh(console):
            console.out(lines.popleft(), highlight=False)

    with AuthorizationServer(_LIFETIME) as server, Broker(server) as broker:
        source = ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret)
        client = TokenClient(broker.url, source, client_id="demo", on_event=watch.on_event)
        client.subscribe(_TOPIC, lambda message: watch.traffic.receive(int(message.payload)), qos=1)
        watch.client = client
        with _first_interrupt() as interrupted, picture, client:
            for _ in _ticks(seconds, interrupted):
                client.publish(_TOPIC, str(watch.traffic.send()), qos=1)
                show_lines()
            while not watch.traffic.settled:
                time.sleep(_PERIOD)
            show_lines()
        return watch.snapshot()


def _ticks(seconds: float | None, interrupted: Callable[[], bool]) -> Iterator[None]:
    """Yield once per period until the time is over."""
    start = due = time.monotonic()
    while not interrupted() and (seconds is None or due < start + seconds):
        yield
        # Do not catch up after a suspend.
        due = max(due + _PERIOD, time.monotonic() - 1.0)
        time.sleep(max(due - time.monotonic(), 0.0))


@contextmanager
def _first_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed, which interrupts nothing the first time; the second time
    it raises KeyboardInterrupt as usual.
    """
    pressed = False

    def first(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
