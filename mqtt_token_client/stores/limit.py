"""TimeLimit: calls functions that may hang, without hanging the caller."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import StoreError
from ..forking import reset_after_fork

_TURN_TIMEOUT = 30.0  # seconds to wait for the operation of another thread


class TimeLimit:
    """Lets one operation at a time call functions that may hang, each call in a thread that is abandoned if it does.
    While a call hangs, no operation starts, so there is never more than one such thread.

    Args:
        what: the subject of the error messages.
        seconds: the time limit of a call.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self.after_fork()
        reset_after_fork(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return TimeLimit, (self._what, self._seconds)

    def after_fork(self) -> None:
        """No call is under way, as in a child no other thread is."""
        self._turn = threading.Lock()
        self._abandoned: threading.Thread | None = None

    @contextmanager
    def operation(self) -> Iterator[Callable[..., Any]]:
        """Yield ``call(function, *arguments)``, which returns the result of the function.

        Raises:
            StoreError: a call raised an exception, did not return in time, or an earlier one still hangs. The message
                has only the type of the exception, as its text may contain a secret.
        """
        self._check()
        if not self._turn.acquire(timeout=_TURN_TIMEOUT):
            raise StoreError(f"{self._what} has been busy for {_TURN_TIMEOUT:g} s")
        try:
            self._check()
            yield self._call
        finally:
            self._turn.release()

    def _check(self) -> None:
        if self._abandoned is not None and self._abandoned.is_alive():
            raise StoreError(f"{self._what} still hangs in an earlier call")

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        outcome: queue.SimpleQueue[tuple[Any, str | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((function(*arguments), None))
            except BaseException as error:  # noqa: BLE001 - SystemExit too must not leave the caller waiting
                outcome.put((None, str(error) if isinstance(error, StoreError) else _named(error)))

        thread = threading.Thread(target=run, name="keyring-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # as the interpreter shuts down: the token must be stored before
            run()
        try:
            result, failed = outcome.get(timeout=self._seconds)
        except queue.Empty:
            self._abandoned = thread
            failed = f"no answer within {self._seconds:g} s"
        if failed is not None:
            raise StoreError(f"{self._what}: {failed}")
        return result


def _named(error: BaseException) -> str:
    """The class of an error and that of its cause; their texts may hold a secret."""
    name, cause = type(error).__name__, error.__cause__
    return name if cause is None else f"{name} ({type(cause).__name__})"
