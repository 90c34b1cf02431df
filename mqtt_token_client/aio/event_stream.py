"""Events on the event loop: for ``on_event``, and for ``async for``."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import Self
from weakref import WeakSet

from .. import events
from ..errors import ConfigurationError
from ..logs import get_logger
from .own_loop import OwnLoop

log = get_logger("mqtt_token_client")

_KEPT = 1000  # events of one iterator; of more, the oldest are dropped


class EventStream:
    """The events from now on, for ``async for``; it ends when the client is disconnected. If nobody reads them, it
    keeps the last 1,000.
    """

    def __init__(self) -> None:
        self._events: deque[events.Event] = deque(maxlen=_KEPT)
        self._waiting: dict[asyncio.Future[None], None] = {}  # in their order
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> events.Event:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[future] = None
            try:
                await future
            finally:  # also when the task is cancelled, as by a timeout around each wait
                del self._waiting[future]
        return self._events.popleft()

    def put(self, event: events.Event) -> None:
        """Yield an event."""
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        """Yield those that are here, and no others."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        for future in self._waiting:
            if not (future.done() or future.get_loop().is_closed()):
                future.set_result(None)


class Events:
    """Brings the events of one client to its event loop.

    Args:
        own_loop: of the client.
        on_event: the application's function; None without one.

    Raises:
        ConfigurationError: ``on_event`` is a coroutine function, or no function.
    """

    def __init__(self, own_loop: OwnLoop, on_event: Callable[[events.Event], object] | None) -> None:
        if inspect.iscoroutinefunction(on_event):
            raise ConfigurationError("on_event must be a plain function; a coroutine iterates over events() instead")
        self._own_loop = own_loop
        self._on_event = on_event
        self._streams: WeakSet[EventStream] = WeakSet()

    def report(self, event: events.Event) -> None:
        """An event happened. May be called on any thread."""
        self._own_loop.call(self._report, event)

    def _report(self, event: events.Event) -> None:
        for stream in tuple(self._streams):
            stream.put(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                log.exception("on_event raised an exception; the event loop goes on")

    def stream(self) -> EventStream:
        """Return an iterator of the events from now on."""
        stream = EventStream()
        self._streams.add(stream)
        return stream

    def end(self) -> None:
        """The client is disconnected: let the iterators end."""
        for stream in tuple(self._streams):
            stream.end()
        self._streams.clear()
