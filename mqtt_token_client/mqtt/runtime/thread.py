"""The network thread: a selector and a timer queue that drive one connection or a thousand.

It sleeps until a socket is ready, a deadline has come, or another thread calls. What blocks (DNS, a TLS handshake, a
token request) runs on short-lived worker threads instead.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ...clock import monotonic
from ...forking import reset_after_fork
from ...logs import get_logger
from .base import LONGEST_SLEEP, current, no_thread, outcome_of
from .wake_up import WAKE_UP, close, wake_up_files

log = get_logger("mqtt_token_client.runtime")


_Result = TypeVar("_Result")

_MAX_WORKERS = 32
_FEW_TIMERS = 64
# After so many short turns in a row the thread rests before it waits again, and then finds several messages instead of
# one. This halves the processor time of a busy receiver, of one in asyncio even more, and delays nothing up to 1,250
# messages a second. Where one of the turns sends something and the answer is awaited, the rest is shorter, and a turn
# is short only if it began at once, as more had arrived during the one before.
_SHORT_TURNS = 16
_SHORT_TURN, _REST = 800e-6, 500e-6  # seconds, from one wait to the next
_AT_ONCE, _REST_AWAITED = 40e-6, 20e-6  # seconds; the first of waiting


class _Timer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class NetworkThread:
    """A Runtime: one thread with one selector and one queue of timers."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._crowded = _FEW_TIMERS
        self._sequence = itertools.count()
        self._calls: deque[Callable[[], None]] = deque()
        self._asleep = False
        self._short_turns = 0  # in a row
        self._turn = 0.0, 0.0  # when its wait began, and how long that took
        self._awaited = False  # the answer to what was sent in one of these turns, or since then
        self._running = True
        self._wake_reader, self._wake_writer = files = wake_up_files()
        # When nobody can use them any more: a late call_soon() would write into whatever file has the number by then.
        weakref.finalize(self, close, files).atexit = False
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain_wake_ups)
        self._workers = _Workers()
        self._jobs = 0  # given to workers, their result not handed back yet
        self._thread = threading.Thread(target=self._run, name="mqtt-token-network", daemon=True)
        self._thread.start()
        reset_after_fork(self)

    # From any thread

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback on the network thread, after those that were given before it."""
        self._calls.append(callback)
        if self._asleep:  # once a batch: a loop that is awake looks at the queue before it sleeps
            self._asleep = False
            try:  # noqa: SIM105 - contextlib.suppress() takes longer, and each message that comes alone waits for this
                self._wake_writer.write(WAKE_UP)
            except (OSError, ValueError):  # the thread has ended, or this is a forked child
                pass

    def stop(self) -> None:
        """End the thread once it has run what was given before, and handed back the results of jobs under way."""
        self.call_soon(self._stop)

    def after_fork(self) -> None:
        """In a child there is no such thread: close its copies of the files, or the connections of a parent that dies
        would stay open, and ignore what is given to it.
        """
        self._running, self._jobs = False, 0
        self._calls = deque(maxlen=0)
        self._timers.clear()
        for key in tuple((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]  # nothing is sent, and the parent's descriptor stays open
        self._selector.close()
        self._wake_writer.close()

    # On the network thread

    def call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        """Run a callback when :func:`~mqtt_token_client.clock.monotonic` reaches ``when``."""
        timer = _Timer(callback)
        if len(self._timers) >= self._crowded:  # with those that were cancelled, which may be due in days
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._crowded = 2 * len(self._timers) + _FEW_TIMERS
        heapq.heappush(self._timers, (when, next(self._sequence), timer))
        return timer

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        """Run a callback after so many seconds."""
        return self.call_at(monotonic() + seconds, callback)

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready)`` whenever a socket is ready for ``events``; 0 stops that."""
        try:
            watched = self._selector.get_key(sock).events
        except (KeyError, ValueError):
            watched = 0
        if events == watched:
            return
        if not events:
            self._selector.unregister(sock)
        elif watched:
            self._selector.modify(sock, events, callback)
        else:
            self._selector.register(sock, events, callback)

    def run_blocking(
        self, job: Callable[[], _Result], then: Callable[[_Result | None, Exception | None], None]
    ) -> None:
        """Run a job that blocks on a worker thread, then ``then(result, error)`` on this one."""

        def work() -> None:
            result, error = outcome_of(job)
            self.call_soon(lambda: done(result, error))

        def done(result: _Result | None, error: Exception | None) -> None:
            self._jobs -= 1
            then(result, error)

        self._jobs += 1
        try:
            self._workers.submit(work)
        except RuntimeError:  # of threading: the machine has no room for a thread
            self.call_soon(lambda: done(None, no_thread()))

    @property
    def on_thread(self) -> bool:
        """Whether the caller is on this thread."""
        return current.runtime is self

    def check_thread(self) -> None:
        """Assert that the caller is on this thread."""
        assert current.runtime is self, "called from a thread other than the network thread"

    def sends(self, awaited: bool) -> None:
        """Something is sent in this turn, and its answer perhaps awaited. Asserts that the caller is on this thread."""
        assert current.runtime is self, "called from a thread other than the network thread"
        if awaited:
            self._awaited = True

    def _stop(self) -> None:
        self._running = False

    def _drain_wake_ups(self, _ready: int) -> None:
        self._wake_reader.read(len(WAKE_UP))

    def _run(self) -> None:
        current.runtime = self
        while self._running or self._calls or self._jobs:
            for key, ready in self._wait():
                self._guard(key.data, ready)
            for _ in range(len(self._calls)):
                self._guard(self._calls.popleft())
            while self._timers and self._timers[0][0] <= monotonic():
                timer = heapq.heappop(self._timers)[2]
                if timer.callback is not None:
                    self._guard(timer.callback)
        self._selector.close()

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        now = time.monotonic()
        began, waited = self._turn
        if (waited < _AT_ONCE) if self._awaited else (now - began < _SHORT_TURN):
            self._short_turns += 1
        else:
            self._short_turns, self._awaited = 0, False
        if self._short_turns >= _SHORT_TURNS:
            time.sleep(_REST_AWAITED if self._awaited else _REST)
            now = time.monotonic()
        timeout = None
        if self._timers:
            timeout = min(max(0.0, self._timers[0][0] - monotonic()), LONGEST_SLEEP)
        self._asleep = True
        if self._calls:  # given between the last look at the queue and the line above
            timeout = 0.0
        try:
            return self._selector.select(timeout)
        finally:
            self._asleep = False
            self._turn = now, time.monotonic() - now

    @staticmethod
    def _guard(callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except BaseException:  # sys.exit() in a handler would end the thread for everybody
            log.exception("an error of this library, please report it; the network thread goes on")


class _Workers:
    """Threads for what blocks: at most 32 at once, each ends when nothing is left to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._alive = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job.

        Raises:
            RuntimeError: no thread could be started for it.
        """
        with self._lock:
            self._waiting.append(job)
            if self._alive == _MAX_WORKERS:
                return
            self._alive += 1
        try:
            threading.Thread(target=self._work, name="mqtt-token-worker", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._alive -= 1
                if job not in self._waiting:  # another worker has taken it
                    return
                self._waiting.remove(job)
            raise

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._alive -= 1
                    return
                job = self._waiting.popleft()
            job()


class _Shared:
    """The network thread of this process, and how many use it."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._thread: NetworkThread | None = None
        self._users = 0
        current.runtime, current.holds_lock = None, False  # it was the network thread that forked, or a signal handler

    def acquire(self) -> NetworkThread:
        """The network thread of this process, which is started for its first user."""
        with self._lock:
            if self._thread is None:
                self._thread = NetworkThread()
            self._users += 1
            return self._thread

    def release(self) -> None:
        """Give the network thread back; it ends with its last user."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._thread is not None:
                self._thread.stop()
                self._thread = None


shared = _Shared()
acquire_network_thread = shared.acquire
release_network_thread = shared.release
