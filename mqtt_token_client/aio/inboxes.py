"""Inboxes: which inbox has the messages of which topic filter, and who processes them.

A block of ``messages()`` that an exception has left may be entered again, or the client is about to be disconnected. So
its inbox is kept for some seconds before the client unsubscribes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..errors import ConfigurationError
from ..mqtt.codec.message import Message
from ..mqtt.session.dispatch import Handler
from .acks import AckBatch
from .handlers import HandlerTask
from .inbox import Inbox
from .messages import Messages
from .own_loop import OwnLoop
from .reports import Reports
from .unclaimed import KEPT_SECONDS, Unclaimed, matches

_LIMIT = 1000  # messages of QoS 0 without a subscription of their own


class Inboxes:
    """The inboxes of one client. Runs on the event loop.

    Args:
        own_loop: of the client.
        acks: acknowledges what is processed.
        reports: gets what is dropped, and what handlers raise.
        unsubscribe: from a topic filter.
        on_message: processes the messages that no subscription has a handler for; None without one.

    Attributes:
        put: of the inbox for these.
    """

    def __init__(
        self,
        own_loop: OwnLoop,
        acks: AckBatch,
        reports: Reports,
        unsubscribe: Callable[[str], None],
        on_message: Handler | None,
    ) -> None:
        self._own_loop = own_loop
        self._acks = acks
        self._reports = reports
        self._unsubscribe = unsubscribe
        self._consumers: dict[str, HandlerTask | Messages] = {}
        self._removed: list[HandlerTask] = []  # whose handler may still run, or did when its event loop was closed
        self._ended: list[Messages] = []  # blocks without a subscription that are not left, as far as they know
        self._inboxes: dict[str, Inbox] = {}  # of the consumers, and of blocks that an exception has left
        self._left: dict[str, asyncio.TimerHandle | None] = {}  # those blocks; None while the client is disconnected
        self._connected = False
        self._numbers = itertools.count()
        default, unclaimed = self._new("", _LIMIT), self._new("", _LIMIT)
        self._default = None if on_message is None else self._task(default, on_message)
        self._unclaimed = Unclaimed(own_loop, unclaimed, _LIMIT, self._find, self._unwanted)
        own_loop.when_replaced(self._look_again)
        self.put = unclaimed.put if on_message is None else default.put

    # Consumers

    def handle(self, topic_filter: str, handler: Handler, limit: int) -> Inbox:
        """Have a handler process the messages of a topic filter, in place of an earlier one; return the inbox."""
        consumer = self._consumers.get(topic_filter)
        if isinstance(consumer, Messages):
            raise ConfigurationError(f"subscribe: messages({topic_filter!r}) processes these messages already")
        if consumer is not None:
            consumer.handler = handler
            return consumer.inbox
        inbox = self._open(topic_filter, limit)
        task = self._consumers[topic_filter] = self._task(inbox, handler)
        if self._connected:
            task.start()
        return inbox

    def enter(self, messages: Messages) -> Inbox:
        """A block of ``messages()`` is entered; return its inbox."""
        self._own_loop.bind()
        topic_filter = messages.topic_filter
        if topic_filter in self._consumers:
            raise ConfigurationError(f"messages: {topic_filter!r} has a handler, or is in use by another messages()")
        inbox = self._open(topic_filter, messages.limit)
        self._consumers[topic_filter] = messages
        return inbox

    def left(self, messages: Messages, *, keep: bool) -> None:
        """A block of ``messages()`` was left; ``keep`` the subscription for some seconds."""
        topic_filter = messages.topic_filter
        if self._consumers.get(topic_filter) is not messages:  # it was ended: what is here belongs to the next one
            self._ended = [ended for ended in self._ended if ended is not messages]
            return
        del self._consumers[topic_filter]
        if keep:
            self._keep(topic_filter)
        else:
            self._drop(topic_filter)

    def remove(self, topic_filter: str) -> None:
        """Nobody wants the messages of a topic filter any more."""
        consumer = self._consumers.pop(topic_filter, None)
        if isinstance(consumer, Messages):
            consumer.end()
            self._ended.append(consumer)
        elif consumer is not None:
            self._removed = [task for task in (*self._removed, consumer) if task.runs]
        timer = self._left.pop(topic_filter, None)
        if timer is not None:
            timer.cancel()
        inbox = self._inboxes.pop(topic_filter, None)
        if inbox is not None:
            self._unclaimed.ended.append(topic_filter)
            inbox.close()

    def _drop(self, topic_filter: str) -> None:
        self._unsubscribe(topic_filter)
        self.remove(topic_filter)

    def _keep(self, topic_filter: str) -> None:
        self._left[topic_filter] = None
        if self._connected:
            with suppress(RuntimeError):  # the block is collected after the end of its loop
                self._left[topic_filter] = self._own_loop.bind().call_later(KEPT_SECONDS, self._drop, topic_filter)

    def _open(self, topic_filter: str, limit: int) -> Inbox:
        timer = self._left.pop(topic_filter, None)
        if timer is not None:
            timer.cancel()
        if topic_filter not in self._inboxes:
            self._inboxes[topic_filter] = self._new(topic_filter, limit)
        inbox = self._inboxes[topic_filter]
        self._unclaimed.claim(topic_filter, inbox)
        return inbox

    def _new(self, topic_filter: str, limit: int) -> Inbox:
        def dropped(count: int) -> None:
            self._reports.dropped(topic_filter, count)

        return Inbox(self._own_loop, self._acks, self._numbers, limit, dropped)

    def _task(self, inbox: Inbox, handler: Handler) -> HandlerTask:
        return HandlerTask(self._own_loop, inbox, handler, self._reports.handler_failed)

    def _find(self, topic: str) -> Inbox | None:
        return next((inbox for name, inbox in self._inboxes.items() if matches(name, topic)), None)

    def _unwanted(self, message: Message) -> None:
        self._acks.drop(message)
        self._reports.unhandled(message.topic)

    # The connection

    def connected(self) -> None:
        """The client is being connected: process what arrives."""
        self._connected = True
        for topic_filter, timer in self._left.items():
            if timer is None:  # else it was connected, and the time goes on
                self._keep(topic_filter)
        for task in self._tasks():
            task.start()

    def stop(self) -> list[asyncio.Task[None]]:
        """Process no further message. Return the tasks in which handlers run: they are cancelled, except the one that
        calls this.
        """
        with suppress(ConfigurationError):  # on another loop than the client's, do what can be done
            self._own_loop.bind()
        self._connected = False
        cancelled = []
        for task in (*self._tasks(), *self._removed):
            running = task.stop()
            if running is not None:
                cancelled.append(running)
        for messages in self._end_blocks():
            messages.end()
        for topic_filter, timer in self._left.items():
            if timer is not None:
                timer.cancel()
            self._left[topic_filter] = None
        return cancelled

    def clear(self) -> None:
        """The client is disconnected: forget the messages, which the broker sends again on the next connection."""
        self._unclaimed.clear()
        for inbox in self._inboxes.values():
            inbox.clear()
        if self._default is not None:
            self._default.inbox.clear()

    def _end_blocks(self) -> list[Messages]:
        blocks = [consumer for consumer in self._consumers.values() if isinstance(consumer, Messages)]
        for messages in blocks:
            del self._consumers[messages.topic_filter]
            self._left[messages.topic_filter] = None
        return blocks

    def _look_again(self) -> None:
        """The event loop was closed, and another one has taken its place."""
        for task in (*self._tasks(), *self._removed):
            task.forget()
        ended, self._ended = self._ended, []
        for messages in (*self._end_blocks(), *ended):
            messages.abandon()
        for topic_filter in self._left:
            self._keep(topic_filter)
        self._unclaimed.look_again()
        for inbox in self._inboxes.values():
            inbox.look_again()
        if self._default is not None:
            self._default.inbox.look_again()

    def _tasks(self) -> Iterator[HandlerTask]:
        if self._default is not None:
            yield self._default
        for consumer in tuple(self._consumers.values()):
            if isinstance(consumer, HandlerTask):
                yield consumer
