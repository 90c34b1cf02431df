"""Doing something on the network thread from a test."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mqtt_token_client.mqtt.loop import Loop

_Result = TypeVar("_Result")


def call(loop: Loop, function: Callable[[], _Result]) -> _Result:
    """Run a function on a loop's thread, after all that it was given before; its result, or its exception."""
    outcome: Future[_Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised in the test
            outcome.set_exception(error)

    loop.call_soon(run)
    return outcome.result(timeout=30)
