"""A TCP proxy that adds a round-trip time to a loopback port."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .processes import free_port

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds


def _reset(one: socket.socket) -> None:
    """Close with RST, where close() alone sends FIN."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    one.close()


class _Direction:
    """The bytes in transit from one socket to the other, each piece with the time at which it is due."""

    def __init__(self, source: socket.socket, sink: socket.socket, opens: float) -> None:
        self.source = source
        self.sink = sink
        self.reading = True
        self.blocked = False
        self.ended = False
        self._opens = opens
        self._pieces: deque[tuple[float, bytes | None]] = deque()

    @property
    def due(self) -> float:
        return self._pieces[0][0] if self._pieces and not self.blocked else float("inf")

    def read(self, delay: float) -> bytes | None:
        """Read what has arrived; returns b"" at the end of the stream and None for a reset."""
        data: bytes | None
        try:
            data = self.source.recv(65_536)
            if hasattr(socket, "TCP_QUICKACK"):  # or a server that leaves Nagle's algorithm on waits for up to 40 ms
                self.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:
            data = None
        self.reading = bool(data)  # the end (empty) and a reset (None) take as long as the data
        self._pieces.append((max(time.monotonic(), self._opens) + delay, data))
        return data

    def write(self) -> None:
        """Send what is due.

        Raises:
            ConnectionResetError: a reset is due.
        """
        self.blocked = False
        while self.due <= time.monotonic():
            due, data = self._pieces.popleft()
            if data is None:
                raise ConnectionResetError
            try:
                if not data:
                    self.ended = True
                    self.sink.shutdown(socket.SHUT_WR)
                elif (sent := self.sink.send(data)) < len(data):
                    self._pieces.appendleft((due, data[sent:]))
            except BlockingIOError:
                self._pieces.appendleft((due, data))
                self.blocked = True
            except OSError:
                pass  # the other side has closed, which the opposite direction reads and forwards


@dataclass(eq=False)
class _Pair:
    """A connection: the direction from the client, and that from the server."""

    number: int
    ways: tuple[_Direction, _Direction]


class DelayProxy:
    """Forwards connections to a loopback port; each direction takes half a round trip.

    What a client sends in the first round trip after it was accepted is forwarded only then, as if its SYN had taken
    that time too.

    Args:
        target: the port.
        round_trip: seconds.

    Attributes:
        port: where it listens.
        round_trip: may be changed, for what is read from then on; infinite: nothing arrives, and neither side notices.
        connections: the number of accepted connections.
        watch: called on the proxy's thread when something happens on a connection: with its number, counted from 1,
            with "opened", "up" or "down", and with the received bytes before they are forwarded. It may call cut().
    """

    def __init__(self, target: int, round_trip: float = 0.02) -> None:
        self._listener: socket.socket | None = self._open()
        self.round_trip = round_trip
        self.connections = 0
        self.watch: Callable[[int, str, bytes], object] | None = None
        self._target = target
        self._pairs: list[_Pair] = []
        self._commands: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="delay proxy", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._pairs)

    def cut(self, number: int | None = None) -> bool:
        """Reset one connection, or all of them, now, on both sides; bytes in transit are lost.

        Returns:
            Whether there was one to reset.
        """
        chosen: list[_Pair] = []

        def cut() -> None:
            chosen.extend(pair for pair in self._pairs if number in (None, pair.number))
            for pair in chosen:
                self._reset(pair)
                self._end(pair)

        self._do(cut)
        return bool(chosen)

    def refuse(self) -> None:
        """Refuse new connections; open ones continue."""
        self._do(self._close_listener)

    def accept(self) -> None:
        """Accept connections again, on the same port."""
        self._do(self._open_listener)

    def close(self) -> None:
        """Reset every connection and stop."""
        if self._thread:
            self.refuse()
            self.cut()
            thread, self._thread = self._thread, None
            self._wake.close()
            thread.join()
            self._woken.close()

    def _do(self, command: Callable[[], object]) -> None:
        """Run a command on the proxy's thread, and wait for it."""
        if threading.current_thread() is self._thread:
            command()
            return
        done = threading.Event()
        self._commands.append((command, done))
        self._wake.send(b"!")
        done.wait()

    def _run(self) -> None:
        while True:
            directions = [direction for pair in self._pairs for direction in pair.ways]
            sources: list[socket.socket] = [one.source for one in directions if one.reading]
            sources += [self._woken, *([self._listener] if self._listener else [])]
            sinks = [one.sink for one in directions if one.blocked]
            wait = min((one.due for one in directions), default=float("inf")) - time.monotonic()
            # select() and not epoll, whose time-outs are whole milliseconds
            readable, writable, _ = select.select(sources, sinks, [], min(max(wait, 0.0), 60.0))
            if self._woken in readable:
                if not self._woken.recv(1):
                    return
                command, done = self._commands.popleft()
                command()
                done.set()
            if self._listener in readable:
                self._accept()
            for pair in list(self._pairs):
                self._forward(pair, readable, writable)

    def _forward(self, pair: _Pair, readable: list[socket.socket], writable: list[socket.socket]) -> None:
        try:
            for name, way in zip(("up", "down"), pair.ways, strict=True):
                if way.reading and way.source in readable:
                    data = way.read(self.round_trip / 2)
                    if data and self.watch:
                        self.watch(pair.number, name, data)
                if pair not in self._pairs:  # the watcher has cut it
                    return
                if way.sink in writable or way.due <= time.monotonic():
                    way.write()
        except ConnectionResetError:
            self._reset(pair)
        if all(way.ended for way in pair.ways):
            self._end(pair)

    def _accept(self) -> None:
        assert self._listener
        client, _ = self._listener.accept()
        self.connections += 1
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=1)
        except OSError:
            _reset(client)
            return
        for one in (client, server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opens = time.monotonic() + self.round_trip
        ways = (_Direction(client, server, opens), _Direction(server, client, opens))
        self._pairs.append(_Pair(self.connections, ways))
        if self.watch:
            self.watch(self.connections, "opened", b"")

    def _reset(self, pair: _Pair) -> None:
        for one in pair.ways:
            one.ended = True
            _reset(one.source)

    def _end(self, pair: _Pair) -> None:
        self._pairs.remove(pair)
        for one in pair.ways:
            one.source.close()

    def _open_listener(self) -> None:
        if not self._listener:
            self._listener = self._listen()

    def _close_listener(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None

    def _open(self) -> socket.socket:
        while True:
            self.port = free_port()
            try:
                return self._listen()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # another process has taken it meanwhile
                    raise

    def _listen(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", self.port), backlog=1024)
