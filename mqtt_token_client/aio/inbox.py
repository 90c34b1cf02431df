"""Inbox: the messages of one subscription, on their way from the network thread to the event loop.

Messages of QoS 1 and 2 are acknowledged once they are processed, so the broker's Receive Maximum limits how many of
them are here, and none is ever dropped. Of QoS 0, which the broker sends without a limit, the oldest are dropped when
there are too many.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator
from operator import itemgetter

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
        numbers: the order of arrival in all inboxes of the client.
        limit: how many messages of QoS 0 may wait.
        dropped: gets the number of messages that were dropped.

    Attributes:
        ready: called when there are messages after :meth:`take` has returned None.
        idle: whether it is called for the next message.
        taken: the number of the arrival of the message that :meth:`take` returned last.
        before: what waits there may have arrived earlier, and its ``ready`` brings that here; None without such an
            inbox.
    """

    def __init__(
        self,
        own_loop: OwnLoop,
        acks: AckBatch,
        numbers: Iterator[int],
        limit: int,
        dropped: Callable[[int], None],
    ) -> None:
        self.ready: Callable[[], object] = lambda: None
        self.idle = True
        self.taken = 0
        self.before: Inbox | None = None
        self._own_loop = own_loop
        self._acks = acks
        self._report_dropped = dropped
        self._numbers = numbers
        self._at_qos_0: deque[tuple[int, Message]] = deque(maxlen=limit)
        self._others: deque[tuple[int, Message]] = deque()
        self._remembered = 0  # the lowest number of a message that was not forgotten
        self._closed = False
        self._dropped = 0  # changed on the network thread
        self._reported = 0  # of those

    def put(self, message: Message) -> None:
        """A message has arrived."""
        if message.qos:
            self._others.append((next(self._numbers), message))
        else:
            if len(self._at_qos_0) == self._at_qos_0.maxlen:
                if self._dropped == self._reported:
                    self._own_loop.call(self._begin_to_report)
                self._dropped += 1
            self._at_qos_0.append((next(self._numbers), message))
        if self._closed:  # looked at last, as the loop may have closed it meanwhile
            self._own_loop.call(self.close)
        elif self.idle:
            self.idle = False
            self._own_loop.call(self._wake)

    def _wake(self) -> None:
        self.ready()

    def insert(self, number: int, message: Message) -> None:
        """A message has arrived that was elsewhere until now: it takes the place that its number gives it."""
        queue = self._others if message.qos else self._at_qos_0
        while True:
            index = bisect(queue, number, key=itemgetter(0))
            try:
                queue.insert(index, (number, message))
                break
            except IndexError:  # it is full, perhaps since a moment ago
                if self._dropped == self._reported:
                    self._begin_to_report()
                self._reported -= 1  # as the other number is the network thread's
                if index == 0:
                    return
                queue.popleft()
        if self.idle:
            self.idle = False
            self._own_loop.call(self._wake)

    def take(self) -> Message | None:
        """Remove the oldest message and return it; None if there is none."""
        queue, others = self._at_qos_0, self._others
        if others and not (queue and queue[0][0] < others[0][0]):
            queue = others
        if queue:
            before = self.before  # looked at second, as the network thread fills that one first
            if before is not None and (before._others or before._at_qos_0):  # noqa: SLF001 - of this class
                before.ready()
                return self.take()
            self.taken, message = queue.popleft()
            return message
        self.idle = True
        if not (self._at_qos_0 or self._others):
            return None
        self.idle = False  # one arrived just before that
        return self.take()

    def processed(self, message: Message) -> None:
        """Acknowledge a message that was taken."""
        self._acks.add(message)

    def put_back(self, number: int, message: Message) -> None:
        """A message that was taken was not processed: whoever takes the next one gets it."""
        if self._closed:
            self._acks.drop(message)
        elif message.qos and number >= self._remembered:
            self.insert(number, message)

    def clear(self) -> None:
        """Forget the messages without an acknowledgement: the broker sends them again on the next connection. That
        holds for those that were taken as well, whenever they are put back.
        """
        self._remembered = next(self._numbers)
        self._at_qos_0.clear()
        self._others.clear()
        self.idle = True

    def close(self) -> None:
        """Nobody wants the messages any more, nor those that are still on their way."""
        late, self._closed = self._closed, True  # before it looks: what is put into it after that calls this again
        count = 0
        while (message := self.take()) is not None:
            self._acks.drop(message)
            count += 1
        if count and not late:
            self._report_dropped(count)

    def look_again(self) -> None:
        """The event loop was closed, perhaps before it did what it was asked to do: ask the next one."""
        if self._dropped != self._reported:
            self._begin_to_report()
        self.idle = False
        self.ready()

    def _begin_to_report(self) -> None:
        self._own_loop.bind().call_later(_REPORT_AFTER, self._report)

    def _report(self) -> None:
        count = self._dropped - self._reported
        if count:
            self._reported += count
            self._report_dropped(count)
