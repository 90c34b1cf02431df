"""Calls that may hang, and must not hang their caller."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import StoreError

_TURN = 30.0  # seconds to wait for the operation of another thread


class TimeLimit:
    """Lets one operation at a time call what may hang, each call in a thread that is left behind when it does. While
    one hangs, nothing else is begun: there is never more than one such thread.

    Args:
        what: the subject of the error messages.
        seconds: for each call.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._turn = threading.Lock()
        self._left_behind: threading.Thread | None = None

    @contextmanager
    def operation(self) -> Iterator[Callable[..., Any]]:
        """Gives ``call(function, *arguments)``, which returns what the function does.

        Raises:
            StoreError: a call raised something, has not returned in time, or still hangs from another time. Of what
                it raised only the type is told: the text may hold a secret.
        """
        self._check()
        if not self._turn.acquire(timeout=_TURN):
            raise StoreError(f"{self._what} is busy for more than {_TURN:g} s")
        try:
            self._check()
            yield self._call
        finally:
            self._turn.release()

    def _check(self) -> None:
        if self._left_behind is not None and self._left_behind.is_alive():
            raise StoreError(f"{self._what} still hangs in an earlier call")

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        outcome: queue.SimpleQueue[tuple[Any, str | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((function(*arguments), None))
            except BaseException as error:  # noqa: BLE001 - SystemExit, too, is an answer
                outcome.put((None, str(error) if isinstance(error, StoreError) else type(error).__name__))

        thread = threading.Thread(target=run, name="keyring-call", daemon=True)
        thread.start()
        try:
            result, failed = outcome.get(timeout=self._seconds)
        except queue.Empty:
            self._left_behind = thread
            failed = f"no answer within {self._seconds:g} s"
        if failed is not None:
            raise StoreError(f"{self._what}: {failed}")
        return result
