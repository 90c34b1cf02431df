"""Which of the messages that are received are new.

QoS 2: by the packet identifier until PUBREL (MQTT 5 section 4.3.3). A message that the broker has dropped between two
connections is never released, so on a later connection another message with its identifier is new, unless it has DUP.
QoS 1: a resumed session sends again, with DUP and the original identifier (section 4.4), what was unacknowledged when
the old connection was lost; that includes messages whose PUBACK was on its way. Such a message was handed over already:
it is acknowledged again and not handed over twice. Some brokers do the same with messages of QoS 2 whose PUBCOMP was on
its way, though PUBREL had released them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ..codec.message import Message

_REMEMBERED = 1024  # acknowledgements: a few round trips of traffic


class ReceivedIds:
    """The identifiers of the messages that one session has received. Runs on the network thread.

    Args:
        received: identifiers of QoS 2 that an earlier process received, and the broker has not released.

    Attributes:
        held: how many messages have not been acknowledged to the broker, which are remembered beside the others.
    """

    def __init__(self, received: Iterable[int] = ()) -> None:
        # QoS 2, PUBREL is awaited: identifier and fingerprint, 0 for those of an earlier process
        self.held = 0
        self._received: dict[int, int] = dict.fromkeys(received, 0)
        self._released: OrderedDict[int, int] = OrderedDict()  # since then, oldest first, on this connection
        self._released_before: OrderedDict[int, int] = OrderedDict()  # on the one before
        # those of an earlier connection; no fingerprint if the broker may have begun a new session since then
        self._left_over: dict[int, int | None] = dict.fromkeys(self._received)
        self._acknowledged: OrderedDict[int, int] = OrderedDict()  # QoS 1: identifier and fingerprint, oldest first
        self._identifiers_return = False
        self._in_doubt = False

    def is_new(self, message: Message) -> bool:
        """Whether to hand over a message; it is acknowledged in any case."""
        if message.qos != 1:
            return message.qos == 0 or self._is_new_at_qos_2(message)
        fingerprint = hash((message.topic, message.payload))
        known = self._acknowledged.pop(message.packet_id, None)
        if message.duplicate:
            # A broker that uses each identifier again at once may mean another message with the same content.
            if known == fingerprint and not self._identifiers_return:
                self._acknowledged[message.packet_id] = fingerprint
                return False
        elif known is not None and self._in_doubt:  # so it was a new session
            self._in_doubt = False
            self._acknowledged.clear()
        elif known is not None:
            self._identifiers_return = True
        self._acknowledged[message.packet_id] = fingerprint
        if len(self._acknowledged) > _REMEMBERED + self.held:
            self._acknowledged.popitem(last=False)
        return True

    def _is_new_at_qos_2(self, message: Message) -> bool:
        fingerprint = hash((message.topic, message.payload))
        known = message.packet_id in self._received
        if message.packet_id in self._left_over:  # the broker may have dropped that message, if it had expired
            left_over = self._left_over.pop(message.packet_id)
            known = message.duplicate or fingerprint == left_over  # what is sent again has DUP [MQTT-3.3.1-1]
        if not known:
            known = self._was_released(message, fingerprint)
        self._received[message.packet_id] = fingerprint
        return not known

    def _was_released(self, message: Message, fingerprint: int) -> bool:
        """Whether a broker sends a message of QoS 2 again that it released on the connection before."""
        before = self._released_before.pop(message.packet_id, None)
        if message.duplicate:
            return before == fingerprint and not self._identifiers_return
        if before is not None or message.packet_id in self._released:
            self._identifiers_return = True
        return False

    @property
    def received(self) -> frozenset[int]:
        """Those of QoS 2 that were received, and that the broker has not released."""
        return frozenset(self._received)

    def released(self, packet_id: int) -> bool:
        """PUBREL: the next message with this identifier is a new one. Return whether the identifier was known."""
        self._left_over.pop(packet_id, None)
        fingerprint = self._received.pop(packet_id, None)
        if fingerprint is None:
            return False
        self._released[packet_id] = fingerprint
        if len(self._released) > _REMEMBERED:
            self._released.popitem(last=False)
        return True

    def forget(self, packet_id: int) -> None:
        """A message was not processed after all: when it comes again, it is new."""
        self._acknowledged.pop(packet_id, None)
        self.released(packet_id)
        self._released.pop(packet_id, None)

    def connection_lost(self) -> None:
        """The broker may send again what was not finished."""
        self._released_before, self._released = self._released, OrderedDict()
        self._left_over = {**self._received, **self._left_over}  # what was in doubt still is

    def session_in_doubt(self) -> None:
        """The broker may have begun a new session: a known identifier may be another message's."""
        self._left_over = dict.fromkeys(self._received)
        self._in_doubt = True

    def session_lost(self) -> None:
        """The broker has a new session, so its packet identifiers start over."""
        self._received.clear()
        self._released.clear()
        self._released_before.clear()
        self._left_over.clear()
        self._acknowledged.clear()
        self._identifiers_return = self._in_doubt = False
