"""An asyncio event loop as a Runtime: the core runs on the application's loop, without a network thread."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
from collections.abc import Callable
from socket import socket
from typing import Any, TypeVar

from ...clock import monotonic
from ...forking import reset_after_fork
from ...logs import get_logger
from .base import LONGEST_SLEEP, current, no_thread, outcome_of

log = get_logger("mqtt_token_client.runtime")

_Result = TypeVar("_Result")


class AsyncioRuntime:
    """The running event loop, which must have ``add_reader`` (asyncio's selector loop and uvloop have)."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._watched: dict[socket, tuple[int, int]] = {}  # descriptor and events
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Close a child's copies of the sockets, or the connections of a parent that dies would stay open."""
        for sock in self._watched:
            sock.close()
        current.runtime = None

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback on the loop. Any thread may call this method; once the loop is closed it does nothing."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            (self._loop.call_soon if self.on_thread else self._loop.call_soon_threadsafe)(self._run, callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        """Run a callback when :func:`~mqtt_token_client.clock.monotonic` reaches ``when``."""
        return _Timer(self._loop, when, lambda: self._run(callback))

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        """Run a callback after so many seconds."""
        return self.call_at(monotonic() + seconds, callback)

    def watch(self, sock: socket, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready)`` whenever a socket is ready for ``events``; 0 stops that."""
        descriptor, watched = self._watched.get(sock) or (sock.fileno(), 0)
        if events:
            self._watched[sock] = descriptor, events
        elif watched:
            del self._watched[sock]
        for event, add, remove in (
            (selectors.EVENT_READ, self._loop.add_reader, self._loop.remove_reader),
            (selectors.EVENT_WRITE, self._loop.add_writer, self._loop.remove_writer),
        ):
            if events & ~watched & event:
                add(descriptor, self._run, callback, event)
            elif watched & ~events & event:
                remove(descriptor)

    def run_blocking(
        self, job: Callable[[], _Result], then: Callable[[_Result | None, Exception | None], None]
    ) -> None:
        """Run a job that blocks in the loop's default executor, then ``then(result, error)`` on the loop."""

        def done(future: asyncio.Future[tuple[_Result | None, Exception | None]]) -> None:
            if not future.cancelled():  # by a loop that is being closed
                self._run(then, *future.result())

        try:
            self._loop.run_in_executor(None, outcome_of, job).add_done_callback(done)
        except RuntimeError:
            self.call_soon(lambda: then(None, no_thread()))

    @property
    def on_thread(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.get_ident() == self._thread

    def check_thread(self) -> None:
        """Assert that the caller is on the loop's thread."""
        assert threading.get_ident() == self._thread, "called from a thread other than the event loop's"

    def sends(self, awaited: bool) -> None:  # noqa: ARG002 - the event loop does not rest
        """Something is sent, which makes no difference here. Asserts that the caller is on the loop's thread."""
        self.check_thread()

    def _run(self, callback: Callable[..., None], *arguments: Any) -> None:
        current.runtime = self
        try:
            callback(*arguments)
        except Exception:
            log.exception("an error of this library, please report it; the event loop goes on")
        finally:
            current.runtime = None


class _Timer:
    """A callback that is due on our clock, which counts suspend. The loop's clock stands still during suspend, so a far
    deadline is looked at again from time to time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._when = when
        self._callback = callback
        self._schedule()

    def cancel(self) -> None:
        """Do not call it any more."""
        self._handle.cancel()

    def _schedule(self) -> None:
        self._handle = self._loop.call_later(min(max(0.0, self._when - monotonic()), LONGEST_SLEEP), self._look)

    def _look(self) -> None:
        if monotonic() < self._when:
            self._schedule()
        else:
            self._callback()
