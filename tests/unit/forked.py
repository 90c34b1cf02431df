"""Running a function in a child process that was forked."""

from __future__ import annotations

import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")
_PATIENCE = 20.0  # seconds


def fork() -> int:
    """os.fork(), which newer Pythons warn of in a process that has threads: that is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def run_forked(function: Callable[[], _Result]) -> _Result:
    """The result of a function in a forked child, or its exception."""
    return start_forked(function)()


def start_forked(function: Callable[[], _Result]) -> Callable[[], _Result]:
    """Run a function in a forked child; returns the function that waits for its result, or raises its exception."""
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        try:
            outcome = _outcome(function)
            os.write(writing, pickle.dumps(outcome))
        finally:
            os._exit(0)
    os.close(writing)

    def wait() -> _Result:
        try:
            ready, _, _ = select.select([reading], [], [], _PATIENCE)
            if not ready:
                os.kill(child, signal.SIGKILL)
            data = os.read(reading, 65536)
        finally:
            os.close(reading)
            os.waitpid(child, 0)
        assert ready, "the child hangs"
        assert data, "the child ended without a result"
        result, error = pickle.loads(data)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    return wait


def _outcome(function: Callable[[], _Result]) -> tuple[_Result | None, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - raised in the parent
        return None, error
