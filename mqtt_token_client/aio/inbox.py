"""Inbox: the messages of one subscription, on their way from the network thread to the event loop.

Messages of QoS 1 and 2 are acknowledged once they are processed, so the broker's Receive Maximum limits how many of
them are here, and none is ever dropped. Of QoS 0, which the broker sends without a limit, the oldest are dropped when
there are too many.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

from ..mqtt.codec.message import Message
from .acks import AckBatch
from .own_loop import OwnLoop

_REPORT_AFTER = 1.0  # seconds: one event for all that are dropped in that time


class Inbox:
    """The messages of one subscription that are not processed yet. ``put`` is called on the network thread, everything
    else on the event loop.

    Args:
        own_loop: of the client.
        acks: acknowledges what is processed.
        limit: how many messages of QoS 0 may wait.
        dropped: gets the number of messages that were dropped.

    Attributes:
        ready: called when there are messages after :meth:`take` has returned None.
        taken: the number of the arrival of the message that :meth:`take` returned last.
    """

    def __init__(self, own_loop: OwnLoop, acks: AckBatch, limit: int, dropped: Callable[[int], None]) -> None:
        self.ready: Callable[[], object] = lambda: None
        self.taken = 0
        self._own_loop = own_loop
        self._acks = acks
        self._limit = limit
        self._report_dropped = dropped
        self._numbers = itertools.count()  # the order of arrival, as there are two queues
        self._at_qos_0: deque[tuple[int, Message]] = deque(maxlen=limit)
        self._others: deque[tuple[int, Message]] = deque()
        self._remembered = 0  # the lowest number of a message that was not forgotten
        self._idle = True
        self._closed = False
        self._dropped = 0  # changed on the network thread
        self._reported = 0  # of those

    def put(self, message: Message) -> None:
        """A message has arrived."""
        if message.qos:
            self._others.append((next(self._numbers), message))
        else:
            if len(self._at_qos_0) == self._limit:
                if self._dropped == self._reported:
                    self._own_loop.call(self._begin_to_report)
                self._dropped += 1
            self._at_qos_0.append((next(self._numbers), message))
        if self._closed:  # looked at last, as the loop may have closed it meanwhile
            self._own_loop.call(self.close)
        elif self._idle:
            self._idle = False
            self._own_loop.call(self._wake)

    def _wake(self) -> None:
        self.ready()

    def take(self) -> Message | None:
        """Remove the oldest message and return it; None if there is none."""
        queue, others = self._at_qos_0, self._others
        if others and not (queue and queue[0][0] < others[0][0]):
            queue = others
        if queue:
            self.taken, message = queue.popleft()
            return message
        self._idle = True
        if not (self._at_qos_0 or self._others):
            return None
        self._idle = False  # one arrived just before that
        return self.take()

    def processed(self, message: Message) -> None:
        """Acknowledge a message that was taken."""
        self._acks.add(message)

    def put_back(self, number: int, message: Message) -> None:
        """A message that was taken was not processed: whoever takes the next one gets it. Of several, the one with the
        highest number of its arrival is put back first.
        """
        if self._closed:
            self._acks.drop(message)
        elif message.qos and number >= self._remembered:
            self._others.appendleft((number, message))

    def clear(self) -> None:
        """Forget the messages without an acknowledgement: the broker sends them again on the next connection. That
        holds for those that were taken as well, whenever they are put back.
        """
        self._remembered = next(self._numbers)
        self._at_qos_0.clear()
        self._others.clear()
        self._idle = True

    def close(self) -> None:
        """Nobody wants the messages any more, nor those that are still on their way."""
        late, self._closed = self._closed, True  # before it looks: what is put into it after that calls this again
        count = 0
        while (message := self.take()) is not None:
            self._acks.drop(message)
            count += 1
        if count and not late:
            self._report_dropped(count)

    def _begin_to_report(self) -> None:
        self._own_loop.bind().call_later(_REPORT_AFTER, self._report)

    def _report(self) -> None:
        count = self._dropped - self._reported
        if count:
            self._reported += count
            self._report_dropped(count)
