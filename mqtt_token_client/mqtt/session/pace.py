"""How fast a backlog is sent: for links that are metered, and brokers with a rate limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from ...clock import monotonic
from ..runtime.base import Runtime, Timer, current
from .delivery import Outgoing, Stage

_BURST_SECONDS = 0.1  # of messages that may be sent at once, as timers are not exact


class DrainPace:
    """Limits the rate of the messages that waited when a connection was lost, or when the client started.

    Messages keep their order. So what is published in that time is sent when the backlog is, and then without a limit.
    Only a message that is not recorded may overtake those on disk: it has no limit, and says nothing about them.

    Args:
        rate: messages a second; None for no limit.
        wake: called when another message may be sent.
    """

    def __init__(self, rate: float | None, wake: Callable[[], None]) -> None:
        self._rate = rate
        self._wake = wake
        self._last = 0  # the number of the last message of the backlog
        self._is_over = True
        self._allowed = 1.0  # messages that may be sent, as of `_at`
        self._at = monotonic()
        self._timer: Timer | None = None  # calls wake()

    def connected(self, last_number: int) -> None:
        """There is a connection again: what waits, up to the message with this number, is a backlog."""
        self._last, self._is_over = last_number, False
        if self._timer is not None:  # disconnect() may have ended its network thread
            self._timer.cancel()
            self._timer = None

    def limit(self, due: Iterator[Outgoing]) -> Iterator[Outgoing]:
        """Return the messages that are due, in order, as far as they may be sent now. On the network thread."""
        return due if self._is_over or self._rate is None else self._limited(due, self._rate)

    def _limited(self, due: Iterator[Outgoing], rate: float) -> Iterator[Outgoing]:
        while self._may_send(rate):
            message = next(due, None)
            if message is None:
                return
            if message.stage is not Stage.RELEASED:  # PUBREL has a few bytes, and an order of its own
                self._allowed -= message.number <= self._last
                self._is_over = message.number >= self._last and message.disk is not None
            yield message
            if self._is_over:
                yield from due
                return

    def _may_send(self, rate: float) -> bool:
        now = monotonic()
        self._allowed = min(self._allowed + (now - self._at) * rate, max(1.0, rate * _BURST_SECONDS))
        self._at = now
        if self._allowed >= 1:
            return True
        runtime = cast(Runtime | None, current.runtime)
        if self._timer is None and runtime is not None:
            self._timer = runtime.call_later((1 - self._allowed) / rate, self._continue)
        return False

    def _continue(self) -> None:
        self._timer = None
        self._wake()
