"""The Runtime protocol: what the core needs of whatever drives it."""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Protocol, TypeVar

from ...current import current as current
from ...errors import MqttTokenError

_Result = TypeVar("_Result")

# The clocks of selectors and event loops stand still while the machine sleeps: so many seconds late, at most, is a
# deadline seen that came in the meantime.
LONGEST_SLEEP = 60.0


class Timer(Protocol):
    """A callback that is scheduled for later."""

    def cancel(self) -> None:
        """Do not call it any more. Harmless once it has been called."""


class Runtime(Protocol):
    """Runs callbacks one at a time on one thread: on time, when a socket is ready, and for other threads.

    The core keeps no lock, as all of its state belongs to this thread. Times are readings of
    :func:`~mqtt_token_client.clock.monotonic`, in seconds. A callback that raises is logged, and the runtime goes on.
    """

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback after those that were given before it. Any thread may call this method; the others are for
        callbacks of this runtime only.
        """

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run a callback at a time, never before it."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run a callback after so many seconds."""

    def watch(self, sock: socket, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready)`` whenever a socket is ready for ``events`` (of :mod:`selectors`); 0 stops that."""

    def run_blocking(
        self, job: Callable[[], _Result], then: Callable[[_Result | None, Exception | None], None]
    ) -> None:
        """Run a job that blocks on another thread, then ``then(result, error)`` on this one."""

    @property
    def on_thread(self) -> bool:
        """Whether the caller is on this runtime's thread, and so must not wait for it."""

    def check_thread(self) -> None:
        """Assert that the caller is on this runtime's thread."""

    def sends(self, awaited: bool) -> None:
        """Something is sent, and somebody may wait for the answer if it is ``awaited``; also asserts what
        :meth:`check_thread` does.
        """


def coalesced(runtime: Runtime, function: Callable[[], None]) -> Callable[[], None]:
    """Return what requests that a function is called soon, once for all the requests that come before that. Any thread
    may request it, and a signal handler that interrupts a request.
    """
    calls = 0
    requested_after = -1  # so many calls, as long as that is how many there were

    def call() -> None:
        nonlocal calls
        calls += 1
        function()

    def request() -> None:
        nonlocal requested_after
        before = calls
        if requested_after != before:
            runtime.call_soon(call)
            requested_after = before  # only now: a signal handler that interrupts this requests a call of its own

    return request


def outcome_of(job: Callable[[], _Result]) -> tuple[_Result | None, Exception | None]:
    """The result of a job, or its exception."""
    try:
        return job(), None
    except Exception as error:  # noqa: BLE001 - handed on, to be reported
        return None, error
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a token source
        return None, MqttTokenError(
            f"the token source, or what else had to be waited for, raised {type(error).__name__}"
        )


def no_thread() -> MqttTokenError:
    """The error of a job for which no thread could be started."""
    return MqttTokenError("no thread could be started: too little memory, or too many threads")
