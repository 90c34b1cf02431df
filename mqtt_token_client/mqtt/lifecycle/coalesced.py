"""Coalesced: many requests for one call."""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.base import Runtime


class Coalesced:
    """Calls a function soon, once for all the requests that come before that. Any thread may request it."""

    __slots__ = ("_function", "_requested", "_runtime")

    def __init__(self, runtime: Runtime, function: Callable[[], None]) -> None:
        self._runtime = runtime
        self._function = function
        self._requested = False

    def __call__(self) -> None:
        if not self._requested:
            self._requested = True
            self._runtime.call_soon(self._call)

    def _call(self) -> None:
        self._requested = False
        self._function()
