"""Doing something on the network thread from a test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mqtt_token_client.mqtt.runtime.base import Runtime

_Result = TypeVar("_Result")


def call(runtime: Runtime, function: Callable[[], _Result]) -> _Result:
    """Run a function on a runtime's thread, after all that it was given before; its result, or its exception."""
    outcome: Future[_Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised in the test
            outcome.set_exception(error)

    runtime.call_soon(run)
    return outcome.result(timeout=30)


def undisturbed(runtime: Runtime, function: Callable[[], None]) -> None:
    """Run a function on a runtime's thread, soon after, without a byte under way that wakes that thread later on.

    The byte that ``call_soon`` sends may come when the network thread has seen the call by itself.
    """
    sent = threading.Event()

    def look() -> None:
        runtime.call_later(0.01, function if sent.is_set() else look)

    call(runtime, look)
    sent.set()
