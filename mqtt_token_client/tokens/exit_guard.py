"""ExitGuard: a process that ends waits for an answer that must not be lost."""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import threading
import time
from contextlib import suppress

from ..clock import monotonic

_LONGEST_WAIT = 60.0  # seconds
_POLL_INTERVAL = 0.02  # seconds
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]

_held: set[ExitGuard] = set()
_ending = False  # the process may end at any moment
_postponed: int | None = None  # the signal that ends the process once no guard is held


class ExitGuard:
    """Keeps the process from ending for a minute at most, while it is held: from when a refresh token may be used up
    until its successor is stored, and while the token of a new login is stored. Without it, a person would have to
    approve again. Guards may be nested.

    It holds up a normal exit, and the default action of the signals that :func:`postpone_signals` prepared.

    Args:
        needed: whether there is anything to lose.
    """

    def __init__(self, *, needed: bool) -> None:
        self._needed = needed

    def __enter__(self) -> ExitGuard:
        if self._needed:
            _held.add(self)
        return self

    @property
    def too_late(self) -> bool:
        """Whether the process ends without waiting for a guard that is held only now."""
        return self._needed and _ending  # read after it is held: whoever sets it looks for guards afterwards

    def release(self) -> None:
        """Let the process end. May be called more than once."""
        _held.discard(self)
        if _postponed is not None and not _held:
            os.kill(os.getpid(), _postponed)  # its handler runs on the main thread

    def __exit__(self, *_: object) -> None:
        self.release()


def postpone_signals() -> None:
    """From now on, let SIGTERM, SIGHUP and SIGINT wait for a guard that is held, where their default action would end
    the process at once.

    Like ``asyncio.Runner``, this replaces no handler of the application, nor a signal that is ignored, and does nothing
    on another thread than the main one, where Python allows no handler to be set. While no guard is held, the signal
    does what it would have done.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    with suppress(ValueError):  # in an interpreter that is not the main one, as in mod_wsgi
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end_when_released)


def _end_when_released(number: int, _frame: object) -> None:
    global _ending, _postponed
    _ending = True
    if _held and _postponed is None:
        # Not here: this may have interrupted the main thread anywhere, with any lock held. threading.Thread has one.
        _postponed = number
        with suppress(RuntimeError):  # no thread to be had: then it waits for as long as the guard is held
            _thread.start_new_thread(_end_at_last, (number,))
    if not _held:
        _end_now(number)


def _end_at_last(number: int) -> None:
    time.sleep(_LONGEST_WAIT)
    _held.clear()
    os.kill(os.getpid(), number)


def _end_now(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@atexit.register
def _wait_for_guards() -> None:
    global _ending
    _ending = True
    deadline = monotonic() + _LONGEST_WAIT
    while _held and monotonic() < deadline:
        time.sleep(_POLL_INTERVAL)  # the interpreter runs this when no thread could be joined any more


def _forget() -> None:
    global _ending, _postponed
    _held.clear()
    _ending, _postponed = False, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # the threads that hold the guards are the parent's
