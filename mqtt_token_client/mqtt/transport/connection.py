"""One Network Connection to the broker: a socket, its codec, the bytes that wait to be written, and the keepalive."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from ...clock import monotonic
from ...errors import BrokerError, BrokerRefused, ProtocolError
from ...logs import get_logger
from ..codec.packets import Packet, Pingresp
from ..runtime.base import Runtime
from . import HIGH_WATER, ConnectionListener, Loss, Nobody, Unsent
from .keepalive import Keepalive
from .tcp import acknowledger
from .tls import broken_by, end_writing

if TYPE_CHECKING:
    from ..codec.codec import Codec

log = get_logger("mqtt_token_client.mqtt")

_READ_SIZE, _WRITE_SIZE = 65_536, 262_144  # bytes; to write HIGH_WATER would leave a message's end for another call
# The other connections get their turn after so many reads, or so many seconds; a read takes so many records together.
_READS_A_TURN = 16
_LONGEST_TURN = 0.005
_MOST_RECORDS = 64

_Item = TypeVar("_Item")


class NetworkConnection(Generic[_Item]):
    """A connected socket: packets come in, bytes go out, it stays alive or it fails.

    All of it runs on the runtime's thread.

    Attributes:
        owner: receives the notifications, until the connection is closed.
        runtime: drives it.
        keepalive: sends PINGREQ, on request too, and expects PINGRESP, which no listener sees while it does.
        closed, paused: whether the socket is closed, whether reading is paused.
        ended: whether nothing more is written, as DISCONNECT was or the connection is broken.
        sent, received: how many bytes the operating system has taken, how many have arrived, since the beginning.
        unsent: those that wait for the operating system to take them.
    """

    def __init__(self, runtime: Runtime, sock: socket.socket, engine: Codec, owner: ConnectionListener[_Item]) -> None:
        self.engine = engine
        self.owner = owner
        self.closed = self.paused = self.ended = False
        self.sent = self.received = self._watched = 0
        self.runtime, self._sock = runtime, sock
        self._pending: Callable[[], int] | None = getattr(sock, "pending", None)  # bytes that are decoded already
        self._acknowledge = acknowledger(sock)
        self.unsent = Unsent()
        self._marks: deque[tuple[float, _Item]] = deque()
        self.keepalive = Keepalive(runtime, self)
        self._watch()

    # Writing

    def takes_more(self) -> bool:
        """Whether more may be written without piling up."""
        return not (self.ended or self.closed) and len(self.unsent) < HIGH_WATER

    def write(self, data: bytes) -> None:
        """Add to what goes out at the next flush."""
        if not self.ended:
            self.unsent += data

    def write_item(self, data: bytes, item: _Item | None) -> bool:
        """The same, and notify the owner when ``item`` is written. Return whether more may be written."""
        if self.ended:
            if item is not None:
                self._marks.append((math.inf, item))  # it stays unwritten
            return False
        self.unsent += data
        waiting = len(self.unsent)
        if item is not None:
            self._marks.append((self.sent + waiting, item))
        return waiting < HIGH_WATER

    def end(self) -> None:
        """Send DISCONNECT, after which nothing follows [MQTT-3.14.4-1]; what arrives is still read."""
        self.write(self.engine.disconnect())
        self.ended = True
        self.keepalive.stop()
        self.flush()

    def end_writing(self) -> None:
        """Once DISCONNECT has gone out: have a broker close that leaves it to the client."""
        if self.ended and not self.unsent and not self.closed:
            with contextlib.suppress(OSError):  # of a connection that is broken, as reading it will show
                end_writing(self._sock)

    def unwritten(self) -> list[_Item]:
        """The items that the broker cannot have received, as not all of their bytes went out."""
        return [item for _, item in self._marks]

    def flush(self, awaited: bool = True) -> None:
        """Send what the socket takes of the data that waits; the rest follows when it is writable. ``awaited`` says
        whether somebody may wait for the answer.
        """
        if self.closed or not (self.unsent or (self._pending is not None and _unsent(self._sock, self.ended))):
            return
        self.runtime.sends(awaited)  # once for all that was written: for each packet it would cost some percent
        waited = self._watched & selectors.EVENT_WRITE
        try:
            while self.unsent:
                if len(self.unsent) <= _WRITE_SIZE:
                    sent = self._sock.send(self.unsent)
                else:
                    with memoryview(self.unsent) as view:
                        sent = self._sock.send(view[:_WRITE_SIZE])
                del self.unsent[:sent]
                self.sent += sent
                self.keepalive.last_out = monotonic()
            while self._pending is not None and _unsent(self._sock, self.ended):
                self._sock.send(b"")
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self._broken(f"the connection broke: {broken_by(error)}")
        if self._marks:
            written = []
            while self._marks and self._marks[0][0] <= self.sent:
                written.append(self._marks.popleft()[1])
            self.owner.connection_wrote(written)
        if waited or self.unsent or self._pending is not None:
            self._watch()
        if waited and not (self.unsent or self.ended):  # the socket is watched no more, so it does not report that
            self.runtime.call_soon(lambda: self.owner.connection_writable(self))

    # Reading

    def pause_reading(self) -> None:
        """Leave what arrives in the operating system's buffers: the broker has to wait."""
        self.paused = True
        self._watch()

    def resume_reading(self) -> None:
        self.paused = False
        self._watch()
        self._read_decoded()

    def read(self) -> None:
        """Read what has arrived and hand it to the owner."""
        self.runtime.check_thread()
        turn_ends, sent = 0.0, self.sent
        try:
            for _ in range(_READS_A_TURN):
                if self.closed or self.paused:
                    return
                data = self._sock.recv(_READ_SIZE)
                if self._pending is not None and data:
                    data = self._read_records(data)
                if not data:
                    self.fail("the broker closed the connection", by_broker=True)
                    return
                self.received += len(data)
                packets = self.engine.receive(data)
                if packets:
                    self.keepalive.last_in = monotonic()
                    self._arrived(packets)
                if self.engine.violation is not None:
                    raise self.engine.violation
                if len(data) < _READ_SIZE:
                    break
                turn_ends = turn_ends or monotonic() + _LONGEST_TURN
                if monotonic() > turn_ends:
                    break
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (BrokerError, OSError) as error:
            self.fail(error)
            return
        if self._acknowledge is not None and self.sent == sent and not self.closed:
            self._acknowledge()
        self._read_decoded()

    def _read_decoded(self) -> None:
        """Read soon what TLS or the WebSocket has decoded already, as that makes no socket readable."""
        if self._pending is not None and not self.closed:
            self._watch()  # a WebSocket may have found no room to answer a ping
            if self._pending():
                self.runtime.call_soon(self.read)

    def _read_records(self, data: bytes) -> bytes:
        """TLS and WebSocket return one record at a time, perhaps with one acknowledgement in it: they are taken
        together, so that the answers are sent together.
        """
        pieces, size = [data], len(data)
        try:
            while size < _READ_SIZE and len(pieces) < _MOST_RECORDS and (data := self._sock.recv(_READ_SIZE - size)):
                pieces.append(data)
                size += len(data)
        except (OSError, BrokerError):  # nothing is left; or the end of the connection, which the next call meets again
            pass
        return b"".join(pieces)

    def _arrived(self, packets: list[Packet]) -> None:
        waiting = len(self.unsent)
        try:
            if self.keepalive.unanswered:
                packets = self._take_answers(packets)
            if packets:
                self.owner.packets_arrived(self, packets)
        except BaseException:  # sys.exit() in a handler is one too
            log.exception("an error of this library, please report it; the connection is made again")
            self.fail("an internal error")
            return
        if waiting >= HIGH_WATER and self.unsent.piles_up(waiting, self.sent):
            self.fail("the broker does not read the answers to what it sends")
        self.flush()

    def _take_answers(self, packets: list[Packet]) -> list[Packet]:
        """Hand on what comes before each PINGRESP, and the PINGRESP to the keepalive; returns the rest."""
        start = 0
        for at, packet in enumerate(packets):
            if isinstance(packet, Pingresp):
                if at > start:
                    self.owner.packets_arrived(self, packets[start:at])
                if self.closed:
                    return []
                self.keepalive.answered()
                start = at + 1
        return [] if self.closed else packets[start:]

    def close(self) -> None:
        """Close the socket at once; the owner is not notified, of a failure just before that either."""
        self.runtime.check_thread()
        self.owner = Nobody()  # type: ignore[abstract]  # its methods do nothing
        if self.closed:
            return
        self.closed = True
        self.keepalive.stop()
        self.runtime.watch(self._sock, 0, self._ready)
        self._sock.close()

    def _broken(self, cause: str) -> None:
        """Nothing more goes out; what arrived before that is still read."""
        self.ended = True
        self.unsent = Unsent()  # a new one: the exception in hand still refers to the old

        def read_the_rest() -> None:
            before = self.received
            self.read()
            if self.received > before and not self.closed:
                self.runtime.call_soon(read_the_rest)
            else:
                self.fail(cause)

        self.runtime.call_soon(read_the_rest)

    def fail(self, cause: str | BrokerError | OSError, *, by_broker: bool = False) -> None:
        """Close the socket, and notify the owner soon. In MQTT 5, DISCONNECT goes out before that if the cause is that
        the broker violated the protocol (section 4.13.1).
        """
        if self.closed:
            return
        if isinstance(cause, ProtocolError) and self.engine.five and self.engine.connected:
            self.write(self.engine.disconnect(cause.reason))
            self.flush()
        owner = self.owner
        self.close()
        self.owner = owner  # unless close() is called before the notification
        reason = cause.reason if isinstance(cause, BrokerRefused) else None
        by_broker |= isinstance(cause, BrokerError | ConnectionError | ssl.SSLEOFError)
        by_broker &= not isinstance(cause, ProtocolError)
        text = f"the connection broke: {broken_by(cause)}" if isinstance(cause, OSError) else str(cause)
        loss = Loss(text, reason, by_broker)
        self.runtime.call_soon(lambda: self.owner.connection_closed(self, loss))

    def _watch(self) -> None:
        if not self.closed:
            writing = self.unsent or (self._pending is not None and _unsent(self._sock, self.ended))
            wanted = (0 if self.paused else selectors.EVENT_READ) | (selectors.EVENT_WRITE if writing else 0)
            if wanted != self._watched:
                self._watched = wanted
                self.runtime.watch(self._sock, wanted, self._ready)

    def _ready(self, ready: int) -> None:
        if ready & selectors.EVENT_WRITE:
            self.flush()
            if self.takes_more():
                self.owner.connection_writable(self)
        if ready & selectors.EVENT_READ:
            self.read()


def _unsent(sock: socket.socket, ended: bool) -> bool:
    """Whether a WebSocket has a control frame to send, such as the answer to a ping, which waits for no packet."""
    return not ended and getattr(sock, "unsent", False)
