"""The network thread's loop, run by the test on its own thread and on a clock that the test sets.

:class:`NetworkThread` itself does all of the work; it only never sleeps. Nothing depends on how fast the machine is or
which thread comes first, so the same steps have the same result each time.
"""

from __future__ import annotations

import contextlib
import selectors
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from mqtt_token_client.mqtt.runtime import thread as real
from mqtt_token_client.mqtt.runtime.base import current

_MOST_ROUNDS = 2_000  # of the loop without time passing; more means that the loop spins


@contextlib.contextmanager
def replaced(name: str, function: Callable[..., Any], replacement: Callable[..., Any]) -> Iterator[None]:
    """Replace a function of the library in every module that imported it by its name."""
    with contextlib.ExitStack() as stack:
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith("mqtt_token_client") and vars(module).get(name) is function:
                stack.enter_context(patch.object(module, name, replacement))
        yield


class _Idle(BaseException):
    """Nothing is left to do at this time."""


class _Workers(real._Workers):
    """Jobs wait until the loop has nothing else to do."""

    def submit(self, job: Callable[[], None]) -> None:
        self._waiting.append(job)

    def work(self) -> bool:
        if self._waiting:
            self._waiting.popleft()()
            return True
        return False


class SteppedThread(real.NetworkThread):
    """A loop without a thread, on a clock of its own.

    Attributes:
        now: the time; a test replaces :func:`~mqtt_token_client.clock.monotonic` by it.
        backwards: whether the last one of several ready sockets is served first.
        workers_busy: whether what blocks (a token request, DNS, a TLS handshake) takes long: it is done later.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.backwards = self.workers_busy = False
        self._rounds = 0
        super().__init__()
        self._thread.join()
        self._workers = self._later = _Workers()

    def turn(self) -> None:
        """Do everything that is due at this time."""
        self._rounds = 0
        try:
            super()._run()
        except _Idle:
            pass
        finally:
            current.runtime = None

    def next_timer(self) -> float | None:
        """When the next deadline comes."""
        return min((when for when, _, timer in self._timers if timer.callback is not None), default=None)

    @property
    def watched(self) -> int:
        """The number of watched sockets."""
        return len(self._selector.get_map()) - 1

    def _run(self) -> None:
        """Do nothing: there is no thread."""

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._selector.select(0)
        due = self.next_timer()
        idle = not (ready or self._calls or (due is not None and due <= self.now))
        if idle and not self._work_when_idle():
            raise _Idle
        self._rounds += 1
        assert self._rounds < _MOST_ROUNDS, "the network thread spins"
        return ready[::-1] if self.backwards else ready

    def _work_when_idle(self) -> bool:
        return not self.workers_busy and self._later.work()
