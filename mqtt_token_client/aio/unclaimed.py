"""Unclaimed: messages that arrived before the program has said who processes them.

A broker that has kept messages for a client sends them at once when it connects, perhaps before ``messages()`` or
``subscribe()`` was called. So they are kept for some seconds, unacknowledged, before they count as unwanted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from paho.mqtt.matcher import MQTTMatcher

from ..mqtt.codec.message import Message
from .inbox import Inbox
from .own_loop import OwnLoop

KEPT_SECONDS = 5.0
_ENDED = 64


class Unclaimed:
    """The messages of one client without a consumer. Runs on the event loop.

    Args:
        own_loop: of the client.
        inbox: where they arrive.
        limit: how many messages may wait before those of QoS 0 are no longer kept.
        find: returns the inbox for a topic, None if there is none.
        unwanted: gets the messages that nobody wanted.

    Attributes:
        ended: topic filters that were given up a short time ago; a message for one of them is not kept.
    """

    def __init__(
        self,
        own_loop: OwnLoop,
        inbox: Inbox,
        limit: int,
        find: Callable[[str], Inbox | None],
        unwanted: Callable[[Message], None],
    ) -> None:
        self._own_loop = own_loop
        self._inbox = inbox
        self._limit = limit
        self._find = find
        self._unwanted = unwanted
        self.ended: deque[str] = deque(maxlen=_ENDED)
        self._kept: deque[tuple[float, int, Message]] = deque()  # until when, by the loop's clock, and its number
        self._timer: asyncio.TimerHandle | None = None
        inbox.ready = self._sort

    def _sort(self) -> None:
        now = self._own_loop.bind().time()
        while (message := self._inbox.take()) is not None:
            inbox = self._find(message.topic)
            if inbox is not None:  # it was made when the message was on its way
                inbox.insert(self._inbox.taken, message)
            elif self._worth_keeping(message):
                self._kept.append((now + KEPT_SECONDS, self._inbox.taken, message))
            else:
                self._unwanted(message)
        self._schedule()

    def _worth_keeping(self, message: Message) -> bool:
        if any(matches(name, message.topic) for name in self.ended):
            return False
        return message.qos > 0 or len(self._kept) < self._limit

    def claim(self, topic_filter: str, inbox: Inbox) -> None:
        """Put the messages of a topic filter into an inbox, where those follow that are still on their way."""
        inbox.before = self._inbox
        if topic_filter in self.ended:
            self.ended.remove(topic_filter)
        kept, self._kept = self._kept, deque()
        for until, number, message in kept:
            if matches(topic_filter, message.topic):
                inbox.insert(number, message)
            else:
                self._kept.append((until, number, message))

    def clear(self) -> None:
        """Forget the messages without an acknowledgement: the broker sends them again on the next connection."""
        self._inbox.clear()
        self._kept.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_again(self) -> None:
        """The event loop was closed: the next one has the whole time to claim what is kept."""
        self._timer = None
        until = self._own_loop.bind().time() + KEPT_SECONDS
        self._kept = deque((until, number, message) for _, number, message in self._kept)
        self._inbox.look_again()

    def _schedule(self) -> None:
        if self._kept and self._timer is None:
            self._timer = self._own_loop.bind().call_at(self._kept[0][0], self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._own_loop.bind().time()
        while self._kept and self._kept[0][0] <= now:
            self._unwanted(self._kept.popleft()[2])
        self._schedule()


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic filter, perhaps of a shared subscription ($share/group/filter), matches a topic."""
    matcher = MQTTMatcher()
    matcher[topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter] = True
    return any(matcher.iter_match(topic))
