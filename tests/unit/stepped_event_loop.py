"""An asyncio event loop that never waits, on a clock that the test sets; see stepped_loop.py for the network thread."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Callable
from typing import Any

_MOST_ROUNDS = 2_000  # of the loop without time passing; more means that the loop spins


class _Idle(BaseException):
    """Nothing is left to do at this time."""


class _Selector(selectors.DefaultSelector):
    rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0:
            raise _Idle
        self.rounds += 1
        assert self.rounds < _MOST_ROUNDS, "the event loop spins"
        return ready


class SteppedEventLoop(asyncio.SelectorEventLoop):
    """Runs only while the test says so.

    Args:
        now: the time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._rounds = _Selector()
        super().__init__(self._rounds)
        self._now = now
        self._created: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._create)

    def time(self) -> float:
        """Return the time."""
        return self._now()

    def _create(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        self._created.append(task)
        return task

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Those that are not done, the oldest first; ``asyncio.all_tasks`` has another order each time."""
        self._created = [task for task in self._created if not task.done()]
        return self._created.copy()

    def close(self) -> None:
        """Close the loop, which holds on to no task any more."""
        self._created.clear()
        super().close()

    def turn(self) -> bool:
        """Do everything that is due at this time; return whether there was anything."""
        self._rounds.rounds = 0
        with contextlib.suppress(_Idle):
            self.run_forever()
        return self._rounds.rounds > 0

    def step(self) -> None:
        """Let each task that is ready run to its next ``await``."""
        self.call_soon(self.stop)
        self.run_forever()

    def next_timer(self) -> float | None:
        """When the next deadline comes."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return min((timer.when() for timer in timers if not timer.cancelled()), default=None)
