"""OwnLoop: the event loop that a client works on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import ref

from ..errors import ConfigurationError
from ..loop_bridge import LoopBridge, bridge_to


class OwnLoop:
    """The event loop on which a client is used. It may be replaced by another one once it is closed, so that a program
    may call ``asyncio.run`` twice.
    """

    def __init__(self) -> None:
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._bridge: LoopBridge | None = None
        self._when_replaced: list[Callable[[], object]] = []

    def bind(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, which is the client's from now on.

        Raises:
            ConfigurationError: the client works on another loop.
            RuntimeError: no loop is running.
        """
        loop = asyncio.get_running_loop()
        last = None if self._loop is None else self._loop()
        if last is not loop:
            if last is not None and not last.is_closed():
                raise ConfigurationError("the client works on another event loop; make one client for each loop")
            replaced = self._loop is not None
            self._loop, self._bridge = ref(loop), bridge_to(loop)
            for function in self._when_replaced if replaced else ():
                function()
        return loop

    def when_replaced(self, function: Callable[[], object]) -> None:
        """Have a function called on each further loop: tasks, futures and timers of the last one are dead."""
        self._when_replaced.append(function)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the loop soon. Any thread may call this method; without a loop it does nothing."""
        if self._bridge is not None:
            self._bridge.call(function, *arguments)
