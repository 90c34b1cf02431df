"""Which of the messages that arrive are new.

QoS 2: by the packet identifier until PUBREL (MQTT 5 section 4.3.3). QoS 1: a resumed session sends again, with DUP and
the original identifier (section 4.4), what was unacknowledged when the old connection went; that includes messages
whose PUBACK was on its way. Such a message was delivered already: it is acknowledged again and not delivered twice.
"""

from __future__ import annotations

from collections import OrderedDict

from ..codec.message import Message

_REMEMBERED = 1024  # acknowledgements: a few round trips of traffic


class ReceivedIds:
    """What is known of the messages of one session."""

    def __init__(self) -> None:
        self._received: set[int] = set()  # QoS 2, PUBREL awaited
        self._doubtful: set[int] = set()  # those of a session that may be no more
        self._acknowledged: OrderedDict[int, int] = OrderedDict()  # QoS 1: identifier and fingerprint, oldest first
        self._identifiers_return = False

    def is_new(self, message: Message) -> bool:
        """Whether a message is to be delivered; it is to be acknowledged in any case."""
        if message.qos == 0:
            return True
        if message.qos == 2:
            known = message.packet_id in self._received
            if known and message.packet_id in self._doubtful and not message.duplicate:
                known = False  # what is sent again has DUP [MQTT-3.3.1-1]
            self._doubtful.discard(message.packet_id)
            self._received.add(message.packet_id)
            return not known
        return self._is_new_at_qos_1(message)

    def _is_new_at_qos_1(self, message: Message) -> bool:
        fingerprint = hash((message.topic, message.payload))
        known = self._acknowledged.pop(message.packet_id, None)
        if message.duplicate:
            # A broker that takes each identifier again at once may mean another message with the same words.
            if known == fingerprint and not self._identifiers_return:
                self._acknowledged[message.packet_id] = fingerprint
                return False
        elif known is not None:
            self._identifiers_return = True
        self._acknowledged[message.packet_id] = fingerprint
        if len(self._acknowledged) > _REMEMBERED:
            self._acknowledged.popitem(last=False)
        return True

    def released(self, packet_id: int) -> None:
        """PUBREL: the identifier may be used again."""
        self._received.discard(packet_id)
        self._doubtful.discard(packet_id)

    def session_in_doubt(self) -> None:
        """The broker may have started anew: an identifier that is known may come with another message."""
        self._doubtful = set(self._received)

    def session_lost(self) -> None:
        """The broker starts anew, and so do its identifiers."""
        self._received.clear()
        self._doubtful.clear()
        self._acknowledged.clear()
        self._identifiers_return = False
