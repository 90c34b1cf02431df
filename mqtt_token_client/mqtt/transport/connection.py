"""One network connection to the broker: a socket, its engine, what waits to be written, and the keepalive."""

from __future__ import annotations

import logging
import math
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ...clock import monotonic
from ...errors import BrokerError, BrokerRefused
from ..codec.packets import PINGREQ_PACKET, Packet
from ..runtime.base import Runtime, Timer

if TYPE_CHECKING:
    from ..codec.codec import Codec

log = logging.getLogger("mqtt_token_client.mqtt")

_READ_SIZE = 65_536
_WRITE_SIZE = 262_144  # bytes at a time; one of _HIGH_WATER would leave the end of a message for another call
_READS_A_TURN = 16  # then the other connections get their turn
_HIGH_WATER = 65_536  # bytes waiting to be written beyond which nothing is taken from the outbox
_LONGEST_PING = 15.0  # seconds that a broker has for its PINGRESP, if the keepalive is not shorter


_Item = TypeVar("_Item")


class ConnectionListener(Protocol[_Item]):
    """Who is told of what happens on a link."""

    def packets_arrived(self, link: NetworkConnection[_Item], packets: list[Packet]) -> None: ...

    def connection_writable(self, link: NetworkConnection[_Item]) -> None:
        """It had been full, and takes more."""

    def connection_wrote(self, items: list[_Item]) -> None:
        """The operating system has all bytes that were written with these items."""

    def connection_closed(self, link: NetworkConnection[_Item], cause: str, reason: int | None) -> None:
        """It failed, with a reason code where the broker gave one; this is its last call."""


class NetworkConnection(Generic[_Item]):
    """A connected socket: packets come in, bytes go out, it stays alive or it fails.

    All of it runs on the network thread.
    """

    def __init__(self, runtime: Runtime, sock: socket.socket, engine: Codec, owner: ConnectionListener[_Item]) -> None:
        self.engine = engine
        self.closed = False
        self.pongs = 0  # PINGRESP packets that have come, which the owner counts
        self._pings = 0
        self._runtime = runtime
        self._sock = sock
        self.owner = owner
        self._pending: Callable[[], int] | None = getattr(sock, "pending", None)  # bytes that TLS has decoded already
        self._watched = 0
        self._out = bytearray()
        self._sent = 0  # bytes, since the beginning
        self._marks: deque[tuple[float, _Item]] = deque()
        self._paused = self._ended = False
        self._keepalive = 0.0
        self._timer: Timer | None = None
        self._ping_sent: float | None = None
        self._last_in = self._last_out = monotonic()
        self._watch()

    # Writing

    def takes_more(self) -> bool:
        """Whether more may be written, and without piling up."""
        return not self._ended and len(self._out) < _HIGH_WATER

    @property
    def flushed(self) -> bool:
        """Whether everything has been handed to the operating system."""
        return not self._out

    @property
    def quiet_for(self) -> float:
        """Seconds since something went out."""
        return monotonic() - self._last_out

    @property
    def new_tls_session(self) -> ssl.SSLSession | None:
        """The TLS session, for later connections to resume; None if this one has resumed an earlier one, which serves
        on. With TLS 1.3 it comes with the first answers. CPython 3.11 loses some kilobytes each time it is read.
        """
        if getattr(self._sock, "session_reused", False):
            return None
        return getattr(self._sock, "session", None)

    def write(self, data: bytes, item: _Item | None = None) -> None:
        """Add to what goes out at the next flush; the owner is told when ``item`` is written."""
        if self._ended:
            if item is not None:
                self._marks.append((math.inf, item))  # it stays among those that are unwritten
            return
        self._out += data
        if item is not None:
            self._marks.append((self._sent + len(self._out), item))

    def ping(self) -> int:
        """Send PINGREQ; the broker has read all that was written before it once ``pongs`` is what this returns."""
        self.write(PINGREQ_PACKET)
        self.flush()
        self._pings += 1
        return self._pings

    def end(self) -> None:
        """Send DISCONNECT, after which nothing may follow [MQTT-3.14.4-2]; what arrives is still read."""
        self.write(self.engine.disconnect())
        self._ended = True
        self.flush()

    def unwritten(self) -> list[_Item]:
        """The items that the broker cannot have got, since not all of their bytes went out."""
        return [item for _, item in self._marks]

    def flush(self) -> None:
        """Send what is waiting, as far as the socket takes it; the rest follows when it is writable."""
        if self.closed or not self._out:
            return
        try:
            while self._out:
                with memoryview(self._out) as view:
                    sent = self._sock.send(view[:_WRITE_SIZE])
                del self._out[:sent]
                self._sent += sent
                self._last_out = monotonic()
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self._broken(_cause(error))
        if self._marks:
            written = []
            while self._marks and self._marks[0][0] <= self._sent:
                written.append(self._marks.popleft()[1])
            self.owner.connection_wrote(written)
        self._watch()

    # Reading

    def pause_reading(self) -> None:
        """Leave what arrives in the operating system's buffer."""
        self._paused = True
        self._watch()

    def resume_reading(self) -> None:
        self._paused = False
        self._watch()
        if self._pending is not None and self._pending():  # what is decoded already makes no socket readable
            self._runtime.call_soon(self.read)

    def read(self) -> None:
        """Read and hand on what has arrived."""
        try:
            for _ in range(_READS_A_TURN):
                if self.closed or self._paused:
                    return
                data = self._receive()
                if not data:
                    self._fail("the broker closed the connection")
                    return
                self._last_in = monotonic()
                packets = self.engine.receive(data)
                if packets:
                    self._arrived(packets)
                if len(data) < _READ_SIZE:  # there is no more, or the selector will tell
                    return
            self._runtime.call_soon(self.read)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except BrokerError as error:
            self._fail(str(error), error.reason if isinstance(error, BrokerRefused) else None)
        except OSError as error:
            self._fail(_cause(error))

    def _receive(self) -> bytes:
        """What has arrived. TLS and WebSocket hand out a record at a time, with one acknowledgement in it perhaps: they
        are taken together, so that the answers are sent together.
        """
        data = self._sock.recv(_READ_SIZE)
        if self._pending is None or not data:
            return data
        pieces, size = [data], len(data)
        try:
            while size < _READ_SIZE and (data := self._sock.recv(_READ_SIZE - size)):
                pieces.append(data)
                size += len(data)
        except (OSError, BrokerError):  # nothing is left; or the end of the connection, which the next call meets again
            pass
        return b"".join(pieces)

    def _arrived(self, packets: list[Packet]) -> None:
        try:
            self.owner.packets_arrived(self, packets)
        except BaseException:  # sys.exit() in a handler is one too
            log.exception("an error of this library, please report it; the connection is made again")
            self._fail("an internal error")
            return
        self.flush()

    # Staying alive

    def keep_alive(self, seconds: float) -> None:
        """From now on, prove every so many seconds that the other end lives; 0 does not."""
        self._keepalive = seconds
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._keepalive and not self.closed:
            due = self._silent_since() + self._keepalive
            if self._ping_sent is not None:
                due = self._ping_sent + min(self._keepalive, _LONGEST_PING)
            self._timer = self._runtime.call_at(due, self._check)

    def _silent_since(self) -> float:
        # PINGREQ would wait behind what waits already: as long as that moves, the other end lives.
        return self._last_out if self._out else min(self._last_in, self._last_out)

    def _check(self) -> None:
        now = monotonic()
        if self._ping_sent is not None:
            if self._last_in < self._ping_sent:
                self._fail("the broker did not answer PINGREQ")
                return
            self._ping_sent = None
        elif now >= self._silent_since() + self._keepalive:
            self._ping_sent = now
            self.ping()
        self._set_timer()

    # The end

    def close(self) -> None:
        """Close the socket without a word; the owner is not told."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._runtime.watch(self._sock, 0, self._ready)
        self._sock.close()

    def _broken(self, cause: str) -> None:
        """Nothing more goes out; what arrived before that is still to be read."""
        self._ended = True
        self._out = bytearray()  # a new one: the exception in hand still refers to the old

        def read_the_rest() -> None:
            self.read()
            self._fail(cause)

        self._runtime.call_soon(read_the_rest)

    def _fail(self, cause: str, reason: int | None = None) -> None:
        if not self.closed:
            self.close()
            self._runtime.call_soon(lambda: self.owner.connection_closed(self, cause, reason))

    def _watch(self) -> None:
        if not self.closed:
            wanted = (0 if self._paused else selectors.EVENT_READ) | (selectors.EVENT_WRITE if self._out else 0)
            if wanted != self._watched:
                self._watched = wanted
                self._runtime.watch(self._sock, wanted, self._ready)

    def _ready(self, ready: int) -> None:
        if ready & selectors.EVENT_WRITE:
            self.flush()
            if self.takes_more() and not self.closed:
                self.owner.connection_writable(self)
        if ready & selectors.EVENT_READ:
            self.read()


def _cause(error: OSError) -> str:
    return f"the connection broke: {error.strerror or type(error).__name__}"
