"""Which packet makes the broker end the connection: a message or a topic filter that it does not accept.

MQTT 3.1.1 has no other way to reject one, and with MQTT 5 some brokers do so as well (EMQX: ``deny_action =
disconnect``). Sent again on each new connection, it would keep everything behind it from being sent.

    WATCHING    the ends are counted that the broker makes soon after a connection began, with the same packet the
                oldest one without an answer
    ISOLATING   there were three of them. A connection has to prove itself by an answer to PINGREQ first. Then one
                packet at a time is sent, and the next one when it is answered. If the broker ends two connections in a
                row with the same one on its way, that is the cause; it is given up. When all packets are answered that
                were there then, it is WATCHING again

A filter that is answered is not the cause: later ends with it on its way are counted from zero again.

A message that is answered as one of another QoS is the cause for certain. It is sent once more; if that happens again,
it is given up, and later ones at once. RabbitMQ 3.10 answers QoS 2 by PUBACK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ... import events
from ...errors import DeliveryFailed
from ..codec.reason_codes import UNSPECIFIED, reason_name
from ..transport import Loss
from ..transport.connection import NetworkConnection
from .delivery import Outgoing, Stage
from .limits import QOS_NOT_SUPPORTED
from .outbox import Outbox
from .reports import Blame
from .subscriptions import Subscriptions

_ENDS, _ENDS_ALONE = 3, 2
_ENDED_EACH_TIME = "the broker ended the connection each time it was sent"
_LARGE = 65_536  # bytes of a payload that a broker may find too large

# Codes of DISCONNECT that say something about a packet (MQTT 5 section 3.14.2.1). 0x87 may mean the token as well.
_ABOUT_A_PACKET = frozenset(
    (None, 0x80, 0x81, 0x82, 0x83, 0x87, 0x8F, 0x90, 0x94, 0x95, 0x99, 0x9A, 0x9B, 0x9E, 0xA1, 0xA2)
)


class Suspicion:
    """Finds the cause in one session. Runs on the network thread.

    Args:
        outbox: has the messages.
        subscriptions: have the filters.
        emit: gets events.

    Attributes:
        isolating: whether one packet at a time is to be sent.
    """

    def __init__(self, outbox: Outbox, subscriptions: Subscriptions, emit: Callable[[events.Event], None]) -> None:
        self.isolating = False
        self._outbox = outbox
        self._subscriptions = subscriptions
        self._emit = emit
        self._suspect: Outgoing | str | None = None  # a message or a filter
        self._reason: int | None = None  # of the last end, if the broker gave one
        self._ends = 0  # of connections in a row, with it
        self._connection: NetworkConnection[Outgoing] | None = None  # that PINGREQ was sent on
        self._proven = False  # it was answered
        self._misanswered: Outgoing | None = None  # at the last end
        self._misanswers = False  # the broker does that again and again
        self._last = 0  # the number of the last message that was there when isolating began

    def ended(self, loss: Loss) -> bool:
        """The broker has ended a connection soon after it began. Whether a packet may be the cause; call :meth:`found`
        once the session has noticed the loss.
        """
        if self._outbox.answers.wrong_for is not None:
            return True
        sent = [message for message in self._outbox.sent() if message.stage is Stage.SENT]
        oldest = min(sent, key=lambda message: message.number, default=None)
        asked = next((filters[0][0] for filters in self._subscriptions.asked.values()), None)
        suspect = asked or oldest
        if loss.reason not in _ABOUT_A_PACKET or suspect is None:
            self._suspect, self._ends = None, 0
            return False
        if suspect != self._suspect:
            self._suspect, self._ends = suspect, 0
        self._ends += 1
        self._reason = loss.reason
        return self.isolating or self._ends > 1

    def answered(self, packet_id: int) -> None:
        """SUBACK or UNSUBACK has arrived, and is not noted yet."""
        if any(name == self._suspect for name, _ in self._subscriptions.asked.get(packet_id, ())):
            self._suspect, self._ends = None, 0

    def found(self) -> Blame:
        """Whether the cause is found; it is given up then."""
        return Blame.FOUND if self._is_found() else Blame.SUSPECTED

    def _is_found(self) -> bool:
        answers = self._outbox.answers
        message, answers.wrong_for = answers.wrong_for, None
        if message is not None:
            return self._answered_twice(message)
        if not self.isolating:
            if self._ends >= _ENDS:
                self.isolating, self._ends, self._last = True, 0, self._outbox.queue.last_number
            return False
        suspect = self._suspect
        if suspect is None or self._ends < _ENDS_ALONE:
            return False
        self._suspect, self._ends = None, 0
        reason = UNSPECIFIED if self._reason is None else self._reason
        if isinstance(suspect, str):
            self._subscriptions.remove(suspect, unsubscribe=False)
            self._emit(events.SubscriptionRefused(suspect, reason, f"{_ENDED_EACH_TIME}; it is not asked for again"))
        else:
            self._give_up(suspect, reason, f"{_ENDED_EACH_TIME}; {_likely_causes(suspect)}")
        return True

    def _answered_twice(self, message: Outgoing) -> bool:
        before, self._misanswered = self._misanswered, message
        if message.done or not (self._misanswers or message is before):
            return False
        self._misanswers, self._misanswered = True, None
        hint = f"the broker does not answer it as a message of QoS {message.qos}; publish with another qos"
        self._give_up(message, QOS_NOT_SUPPORTED, hint)
        return True

    def _give_up(self, message: Outgoing, reason: int, hint: str) -> None:
        text = f"the broker rejected a message on {message.topic_name}: {reason_name(reason)}: {hint}"
        self._emit(events.DeliveryRefused(message.topic_name, reason, hint))
        self._outbox.fail_unsent(message, DeliveryFailed(text, reason=reason))

    def may_send(self, connection: NetworkConnection[Outgoing]) -> bool:
        """Whether the next packet may be sent on a connection; asked before each."""
        if self.isolating and self._connection is not connection:
            self._connection, self._proven = connection, False
            connection.keepalive.ping(self._prove)
        return not self.isolating or (self._proven and not self._outbox.sent() and not self._subscriptions.asked)

    def _prove(self) -> None:
        self._proven = True
        self._outbox.queue.wake()

    def due(self, connection: NetworkConnection[Outgoing], receive_maximum: int | None) -> Iterator[Outgoing]:
        """Yield what :meth:`Outbox.due` yields: while isolating one message, if it may be sent."""
        if not self.isolating:
            yield from self._outbox.due(receive_maximum)
        elif self.may_send(connection):
            for message in self._outbox.due(1):
                if message.number > self._last:  # what was there before is done
                    self.isolating = False
                yield message
                return
            if not self._subscriptions.outdated and not len(self._outbox.queue):  # everything is answered
                self.isolating = False


def _likely_causes(message: Outgoing) -> str:
    causes = ["this topic"]
    if len(message.payload) >= _LARGE:
        causes.insert(0, f"a payload of {len(message.payload)} bytes")
    if message.retain:
        causes.insert(0, "retain")
    if message.qos == 2:
        causes.insert(0, "qos=2")
    return f"it may not accept {' or '.join(causes)} from this client"
