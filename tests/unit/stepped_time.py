"""Time that passes only while a test waits, and only when everything else has nothing left to do.

In a :class:`SteppedTime` the test's thread runs the network thread's loop whenever it waits: for a packet, for an
event, on a condition of ``threading``, or in ``time.sleep()``. Worker threads and the application's threads are real;
time stands still until each of them waits too. Then the clock goes straight to the next deadline. So a wait costs no
time, none is cut short on a busy machine, and what takes a minute in the field takes a minute of this clock.

Sockets are real too. On Linux the kernel delivers what is sent over loopback before ``send()`` returns.
"""

from __future__ import annotations

import contextlib
import math
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from unittest.mock import patch

from mqtt_token_client import clock, oneshot
from mqtt_token_client.mqtt.runtime import thread as real
from mqtt_token_client.mqtt.runtime.base import current
from mqtt_token_client.mqtt.runtime.wake_up import WAKE_UP
from mqtt_token_client.mqtt.session import delivery
from mqtt_token_client.tokens import keeper
from tests.unit.stepped_loop import SteppedThread

_Result = TypeVar("_Result")

_LONGEST_WORK = 20.0  # real seconds that a thread may be busy, on a busy machine
_condition_wait = threading.Condition.wait
_sleep = time.sleep
_clock_gettime = time.clock_gettime
_wall_time = time.time
_monotonic = time.monotonic


class _Wait:
    """A thread that waits on a condition, until it is notified or a deadline has passed.

    It is itself what ``Condition.notify()`` releases: a lock would be held for a moment once more by whom it wakes.
    """

    def __init__(self, condition: Any, deadline: float) -> None:
        self.deadline = deadline
        self.over = False
        self.expired = False
        self._condition = condition
        self._blocked = threading.Lock()
        self._blocked.acquire()
        condition._waiters.append(self)

    def release(self) -> None:
        """End the wait."""
        self.over = True
        self._blocked.release()

    def block(self) -> None:
        """Wait in real time, until another thread ends the wait."""
        self._blocked.acquire()

    def expire(self) -> None:
        """End the wait because its deadline has passed, unless it was notified before."""
        if not self.over:
            self.expired = True
            self._condition._waiters.remove(self)
            self.release()


class Task:
    """Work of another thread, from when it was submitted until it is done."""

    def __init__(self, stepped: SteppedTime) -> None:
        self.wait: _Wait | None = None
        self._stepped = stepped
        stepped.tasks.add(self)

    @property
    def busy(self) -> bool:
        """Whether it is not waiting."""
        return self.wait is None or self.wait.over

    def run(self, function: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
        """Run it; called on the thread that does it."""
        here.task = self
        try:
            return function(*arguments, **options)
        finally:
            here.task = None

    def done(self, _: object = None) -> None:
        """Its result has been delivered."""
        self._stepped.tasks.discard(self)


class _Here(threading.local):
    task: Task | None = None


here = _Here()


class _Runtime(SteppedThread):
    """Blocking jobs run on real worker threads; they count as busy unless they wait on a condition."""

    def __init__(self, stepped: SteppedTime) -> None:
        super().__init__()
        self.now = _clock_gettime(clock._CLOCK)
        self._workers = real._Workers()
        self._stepped = stepped

    def run_blocking(
        self, job: Callable[[], _Result], then: Callable[[_Result | None, Exception | None], None]
    ) -> None:
        task = Task(self._stepped)

        def tell(result: _Result | None, error: Exception | None) -> None:
            task.done()
            then(result, error)

        super().run_blocking(lambda: task.run(job), tell)

    def _work_when_idle(self) -> bool:
        return False

    def wait_for_call(self, seconds: float) -> None:
        """Wait in real time until another thread calls."""
        self._asleep = True
        if not self._calls:
            self._selector.select(seconds)
        self._asleep = False

    def wake(self) -> None:
        with contextlib.suppress(ValueError):
            self._wake_writer.write(WAKE_UP)


class SteppedTime:
    """The clock of a test, the network thread that the test runs, and the threads that time waits for."""

    def __init__(self) -> None:
        self.tasks: set[Task] = set()
        self.runtime = _Runtime(self)
        self._driver = threading.get_ident()
        self.wall_offset = _wall_time() - self.now  # of the wall clock from `now`; a test sets the clock by it

    @property
    def now(self) -> float:
        """The reading of :func:`mqtt_token_client.clock.monotonic` and of :func:`time.monotonic`."""
        return self.runtime.now

    # For the test

    def until(self, happened: Callable[[], object], timeout: float) -> bool:
        """Run everything that is due, and let time pass, until a condition holds; False if ``timeout`` passed."""
        deadline = self.now + timeout
        while not self._settled(happened):
            if self.now >= deadline:
                return False
            self._pass_to(min(self._next_deadline(), deadline))
        return True

    def pass_time(self, seconds: float) -> None:
        """Let this much time pass, and run everything that becomes due."""
        self.until(lambda: False, seconds)

    def settle(self) -> None:
        """Run everything that is due now."""
        self._settled(lambda: False)

    def pass_to_next_deadline(self) -> None:
        """Let time pass until something is due."""
        self._pass_to(self._next_deadline())

    def close(self) -> None:
        """End the network thread. Work on other threads must have ended by then."""
        assert self.until(lambda: not self.tasks, 60.0), "a thread still waits"
        self.runtime.stop()
        self.runtime.turn()

    # What is due, and when

    def _settled(self, happened: Callable[[], object]) -> bool:
        """Run everything that is due now, until the condition holds; False if it never does."""
        limit = _monotonic() + _LONGEST_WORK
        while True:
            busy = self._is_busy
            self.runtime.turn()
            if happened():
                return True
            if self._is_busy:
                assert _monotonic() < limit, "a thread is busy for too long"
                self.runtime.wait_for_call(0.002)
            elif not busy:
                return False

    @property
    def _is_busy(self) -> bool:
        return any(task.busy for task in tuple(self.tasks))

    def _next_deadline(self) -> float:
        timer = self.runtime.next_timer()
        waits = [task.wait.deadline for task in tuple(self.tasks) if task.wait is not None]
        return min([*waits, math.inf if timer is None else timer])

    def _pass_to(self, when: float) -> None:
        assert when < math.inf, "nothing will ever happen"
        self.runtime.now = max(self.now, when)
        for task in tuple(self.tasks):
            if task.wait is not None and task.wait.deadline <= self.now:
                task.wait.expire()

    # Replacements of the real functions, for the library and the tests

    def _wait(self, condition: Any, timeout: float | None = None) -> bool:
        """Replaces ``threading.Condition.wait``, which ``threading``, ``queue`` and futures use to wait."""
        task = here.task
        driving = threading.get_ident() == self._driver and current.runtime is None
        if (task is None and not driving) or (timeout is not None and timeout <= 0):
            return _condition_wait(condition, timeout)
        seconds = math.inf if timeout is None else timeout
        wait = _Wait(condition, self.now + seconds)
        saved = condition._release_save()
        try:
            if task is None:
                self.until(lambda: wait.over, seconds)
                wait.expire()
            else:
                task.wait = wait
                self.runtime.wake()
                wait.block()
                task.wait = None
        finally:
            condition._acquire_restore(saved)
        return not wait.expired

    def _rest(self, seconds: float) -> None:
        """Replaces ``time.sleep``."""
        if current.runtime is self.runtime:  # a handler that takes its time
            self._pass_to(self.now + seconds)
        elif threading.get_ident() == self._driver:
            self.pass_time(seconds)
        elif here.task is not None:
            with (condition := threading.Condition()):
                condition.wait(seconds)
        else:
            _sleep(seconds)

    def _read(self, clock_id: int) -> float:
        return self.now if clock_id == clock._CLOCK else _clock_gettime(clock_id)


def _wait_for(
    add: Callable[[Callable[..., None]], object], forget: Callable[[Callable[..., None]], object], timeout: float
) -> bool:
    """Replaces what waits for a bare lock, by which nobody would let time pass."""
    event = threading.Event()

    def release(*_: object) -> None:
        event.set()

    add(release)
    try:
        return event.wait(None if timeout == math.inf else timeout)
    finally:
        forget(release)


_active: SteppedTime | None = None


def stepped() -> SteppedTime:
    """The stepped time that the test runs in."""
    assert _active is not None
    return _active


def task() -> Task | None:
    """Announce something that another thread is about to do, if the test runs in stepped time."""
    return None if _active is None else Task(_active)


@contextlib.contextmanager
def stepping() -> Iterator[SteppedTime]:
    """The shared network thread runs in stepped time."""
    global _active
    world = SteppedTime()
    with contextlib.ExitStack() as replacements:
        for where, name, replacement in (
            (real.shared, "_thread", world.runtime),
            (real.shared, "_users", 1),
            (threading.Condition, "wait", lambda condition, timeout=None: world._wait(condition, timeout)),
            (threading, "_time", lambda: world.now),
            (queue, "time", lambda: world.now),
            (time, "clock_gettime", world._read),
            (time, "time", lambda: world.now + world.wall_offset),
            (time, "monotonic", lambda: world.now),
            (time, "sleep", world._rest),
            (oneshot, "wait_for", _wait_for),
            (delivery, "wait_for", _wait_for),
            (keeper, "off_main_thread", lambda function: function()),  # the main thread is the one that drives
        ):
            replacements.enter_context(patch.object(where, name, replacement))
        _active = world
        try:
            yield world
            world.close()
        finally:
            _active = None


# In stepped time or in real time


def wait_until(happened: Callable[[], object], timeout: float) -> bool:
    """Wait for a condition; False if it does not hold within that time."""
    if _active is not None:
        return _active.until(happened, timeout)
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True


def wait_until_readable(sock: socket.socket, timeout: float) -> None:
    """Wait until a socket has something to read.

    Raises:
        TimeoutError: nothing has arrived within that time.
    """
    pending = getattr(sock, "pending", lambda: 0)  # what TLS has decoded already
    if _active is None:
        found = pending() or select.select([sock], [], [], max(timeout, 0))[0]
    else:
        found = _active.until(lambda: pending() or select.select([sock], [], [], 0)[0], timeout)
    if not found:
        raise TimeoutError("nothing has come")


def send(sock: socket.socket, data: bytes) -> None:
    """Send all of it, while the client reads."""
    sock.settimeout(10)
    if _active is None or isinstance(sock, ssl.SSLSocket):
        sock.sendall(data)
        return
    view = memoryview(data)
    while view:
        assert _active.until(lambda: select.select([], [sock], [], 0)[1], 10), "the client does not read"
        view = view[sock.send(view, socket.MSG_DONTWAIT) :]
