"""Messages: the messages of one topic filter, for ``async with`` and ``async for``."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from ..mqtt.codec.message import Message
from .inbox import Inbox
from .left_loops import LeftLoops, Taken, TaskRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from .inboxes import Inboxes

_TURN = 64  # messages that are there already; then the loop may do something else


class Messages:
    """The messages of one topic filter.

    ``async with`` subscribes; ``async for`` yields each :class:`Message`. A message of QoS 1 or 2 is acknowledged when
    the loop asks for the next one, so the broker sends no more than Receive Maximum before that. Several tasks may
    iterate: each message goes to one of them. The message at which a loop was left, as by ``break``, is acknowledged
    when its task begins another loop in the block, or any task if that one finished without an exception. If none
    does, while loops of other tasks go on, that happens after five seconds.

    Leaving the block unsubscribes; messages that still wait are acknowledged and dropped. If the block is left by an
    exception, as by Ctrl-C or a cancelled task, then the message that was being processed and those that wait are kept
    for five seconds, and so is the subscription. Whoever enters :meth:`AsyncTokenClient.messages` with the same filter
    by then gets them, that message first; if the client is disconnected by then, the broker keeps them for the next
    connection of this client identifier.

    The iteration ends when the client is disconnected. However the block is left after that, the broker keeps the
    subscription and what was not processed.
    """

    def __init__(self, inboxes: Inboxes, topic_filter: str, limit: int, subscribe: Callable[[Inbox], None]) -> None:
        self.topic_filter = topic_filter
        self.limit = limit
        self._inboxes = inboxes
        self._subscribe = subscribe
        self._inbox: Inbox | None = None
        self._iterators: WeakSet[_Iterator] = WeakSet()  # one that its loop has left is gone
        self._left: LeftLoops | None = None
        self._waiting: dict[asyncio.Future[None], None] = {}  # in their order
        self.ended = False  # then no further message is yielded

    async def __aenter__(self) -> Self:
        if self._inbox is not None:
            raise RuntimeError("messages() serves for one `async with`; call it again")
        inbox = self._inboxes.enter(self)
        try:
            self._subscribe(inbox)
        except BaseException:
            self._inboxes.remove(self.topic_filter)
            self._inboxes.left(self, keep=False)
            raise
        self._inbox = inbox
        self._left = LeftLoops(inbox.processed, self._iterators)
        inbox.ready = self.wake
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._inbox is not None
        assert self._left is not None
        if self._left.loop_is_closed:  # the block is collected, perhaps before its iterators: abandon() has them all
            return
        for number, message in self._taken():
            if kind is None:
                self._inbox.processed(message)
            else:
                self._inbox.put_back(number, message)
        self._inboxes.left(self, keep=kind is not None)
        self.end()

    def __aiter__(self) -> _Iterator:
        if self._inbox is None or self._left is None:
            raise RuntimeError(
                "use `async with client.messages(...) as messages`, then `async for message in messages`"
            )
        iterator = _Iterator(self, self._inbox, self._left)
        self._iterators.add(iterator)
        return iterator

    def _taken(self) -> list[Taken]:
        assert self._left is not None
        currents = [iterator.stop() for iterator in self._iterators]
        return [*self._left.take(), *(current for current in currents if current is not None)]

    def abandon(self) -> None:
        """The event loop was closed, and with it the tasks that iterate: put back what they have not processed."""
        self._waiting.clear()
        if self._inbox is not None:
            for number, message in self._taken():
                self._inbox.put_back(number, message)
        self.end()

    def end(self) -> None:
        """Yield no further message."""
        self.ended = True
        self.wake()

    def wake(self) -> None:
        """Have the iterators look for messages."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Return when there may be a message, or the end."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            await future
        finally:  # also when the task is cancelled, as by a timeout around each loop
            self._waiting.pop(future, None)


class _Iterator:
    """The iteration of one task."""

    def __init__(self, messages: Messages, inbox: Inbox, left: LeftLoops) -> None:
        self._messages = messages
        self._inbox = inbox
        self._left = left
        self._current: Message | None = None  # that is being processed
        self._number = 0  # of its arrival
        self._yielded = 0
        self._task: TaskRef | None = None  # whose loop this is

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        message, self._current = self._current, None
        if message is not None and message.pending_ack is not None:  # one of QoS 0 costs no call
            self._inbox.processed(message)
        if not self._yielded:
            self._task = self._left.begin()
        self._yielded += 1
        if self._yielded % _TURN == 0:
            await asyncio.sleep(0)
        while True:
            if self._messages.ended:
                raise StopAsyncIteration
            message = self._inbox.take()
            if message is not None:
                self._current, self._number = message, self._inbox.taken
                return message
            await self._messages.wait()

    def stop(self) -> Taken | None:
        """Return the current message, if there is one, and forget it."""
        message, self._current = self._current, None
        return None if message is None else (self._number, message)

    def __del__(self) -> None:
        if (taken := self.stop()) is not None:  # nothing else tells that `async for` was left
            self._left.add(taken, self._task)
