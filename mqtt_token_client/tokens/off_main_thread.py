"""off_main_thread: calls a function where no signal handler can interrupt it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ..oneshot import OneShot

_Result = TypeVar("_Result")


def off_main_thread(function: Callable[[], _Result]) -> _Result:
    """Call a function and return its result: on a thread of its own if this is the main one.

    Python runs signal handlers on the main thread, so Ctrl-C and a handler that calls ``sys.exit()`` may raise an
    exception at any point there. Here it ends the wait for the function, not the function. If no thread can be started,
    the function is called on this one.

    Raises:
        BaseException: what the function raises.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    results = list[_Result]()
    errors = list[BaseException]()
    ended = OneShot()

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
            errors.append(error.with_traceback(None))  # the frames of this thread hold on to secrets
        ended.set()

    try:
        threading.Thread(target=run, name="token-renewal", daemon=True).start()
    except RuntimeError:  # too little memory, too many threads, or the interpreter is shutting down
        return function()
    ended.wait()
    for error in errors:
        raise error
    return results[0]
