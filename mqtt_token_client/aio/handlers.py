"""HandlerTask: calls the handler of one subscription, one message after the other."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from ..mqtt.codec.message import Message
from ..mqtt.session.dispatch import Handler
from .inbox import Inbox
from .own_loop import OwnLoop

_TURN = 64  # messages; then the loop may do something else


class HandlerTask:
    """Calls a handler, a function or a coroutine function, for each message of an inbox, in a task that ends when there
    is no message. So a slow one delays its own subscription only. Runs on the event loop.

    Args:
        own_loop: of the client.
        inbox: has the messages.
        handler: is called for each of them; it may be replaced.
        failed: gets a message and what the handler raised.
    """

    def __init__(
        self, own_loop: OwnLoop, inbox: Inbox, handler: Handler, failed: Callable[[Message, BaseException], None]
    ) -> None:
        self.inbox = inbox
        self.handler = handler
        self._own_loop = own_loop
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self._stopped = True
        self._cancelled = False  # the task, by this object
        self._message: Message | None = None  # that is being processed
        inbox.ready = self._begin

    @property
    def runs(self) -> bool:
        """Whether its task is running, as far as it knows: that of a closed event loop never finishes."""
        return self._task is not None

    def start(self) -> None:
        """Process the messages that wait, and those that arrive."""
        self._stopped = False
        self._begin()

    def stop(self) -> asyncio.Task[None] | None:
        """Process no further message. Return the task, if it is another one than the caller's: it is cancelled."""
        self._stopped = True
        task = self._task
        if task is None or task is asyncio.current_task():
            return None
        self._cancelled = True
        task.cancel()
        return task

    def forget(self) -> None:
        """The event loop was closed: the task does nothing any more."""
        self._task = None
        self._put_back()

    def _begin(self) -> None:
        if self._task is None and not self._stopped:
            self._cancelled = False
            self._task = self._own_loop.bind().create_task(self._run(), name="mqtt-token-handler")
            self._task.add_done_callback(self._ended)  # also if it is cancelled before it begins

    async def _run(self) -> None:
        handled = 0
        current = asyncio.current_task()
        while not (self._stopped or self._cancelled) and (message := self.inbox.take()) is not None:
            self._message = message
            task: asyncio.Task[Any] | None = None  # as long as it cannot be cancelled
            try:
                result = self.handler(message)
                if result is not None and inspect.isawaitable(result):
                    assert current is not None
                    task, before = current, current.cancelling()  # what a handler has caught may count forever
                    await result
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise  # they end the event loop, or come after its end
            except BaseException as error:  # of the application, reported as an event
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > before:
                    raise  # the message is not acknowledged
                self._failed(message, error)
            self._message = None
            if message.pending_ack is not None:  # one of QoS 0 costs no call
                self.inbox.processed(message)
            handled += 1
            if handled % _TURN == 0 or (task is not None and task.cancelling() > before):
                await asyncio.sleep(0)  # where a handler's cancellation of its own task takes effect

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        failed = task.cancelled() or task.exception() is not None
        if failed and not self._cancelled:  # asyncio.run may be about to end: no time to begin another
            self._put_back()
            return
        self._message = None
        if not self.inbox.idle:
            self._begin()  # with what has arrived since, perhaps on the next connection

    def _put_back(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            self.inbox.put_back(self.inbox.taken, message)
        self.inbox.idle = True
