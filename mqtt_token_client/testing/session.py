"""One client's session on the broker, which outlives its connections (MQTT 5 section 4.1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

from paho.mqtt.matcher import MQTTMatcher

from ..clock import monotonic
from ..mqtt.codec.packets import PUBREL
from . import packets
from .packets import Publish

_NO_LOCAL, _RETAIN_AS_PUBLISHED = 0x04, 0x08  # of the options of a subscription (MQTT 5 section 3.8.3.1)
_HIGHEST_PACKET_ID = 65_535
_EXPIRY = "message_expiry_interval"


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic filter matches a topic name (MQTT 5 section 4.7)."""
    matcher = MQTTMatcher()
    matcher[topic_filter] = True
    return next(matcher.iter_match(topic), False)


def _waited(message: Publish) -> float:
    return max(0.0, monotonic() - message.arrived_at)  # a clock that has jumped in a test may go back


def _is_expired(message: Publish) -> bool:
    """Whether the Message Expiry Interval has passed (MQTT 5 section 3.3.2.3.3)."""
    interval = message.properties.get(_EXPIRY)
    return interval is not None and _waited(message) >= max(interval, 1)  # 0 is for clients that are connected


class Session:
    """What the broker knows of a client. A connection gives it ``send``, and takes it away when it ends.

    Attributes:
        subscriptions: the filters with their options and identifiers.
        received: packet identifiers of messages of QoS 2 that the client has not released.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.subscriptions: dict[str, tuple[int, int]] = {}
        self.received: set[int] = set()
        self._protocol = 4
        self._send: Callable[[bytes], None] | None = None
        self._is_away = False
        self._largest = 0  # the client's Maximum Packet Size
        self._most = 0  # messages of QoS 1 and 2 that may be unacknowledged: the client's Receive Maximum
        self._waiting: deque[Publish] = deque()
        self._unacknowledged: dict[int, Publish | None] = {}  # by packet identifier; None once PUBREC has come
        self._numbers = count()

    def resume(
        self, protocol: int, send: Callable[[bytes], None], *, receive_maximum: int, maximum_packet_size: int
    ) -> None:
        """Go on with a connection, first with what was sent before and not acknowledged [MQTT-4.4.0-1]."""
        self._protocol, self._send, self._is_away = protocol, send, False
        self._most, self._largest = receive_maximum, maximum_packet_size
        for packet_id, message in list(self._unacknowledged.items()):
            if message is None:
                send(packets.acknowledge(PUBREL, packet_id))
            elif (packet := self._pack(message, duplicate=True)) is not None:
                send(packet)
            else:
                del self._unacknowledged[packet_id]
        self._send_waiting()

    def pause(self) -> None:
        """There is no connection to send on: messages wait, those of QoS 0 too unless the client is away."""
        self._send = None

    def deliver(self, message: Publish, publisher: str | None = None, *, retained: bool = False) -> None:
        """Send a message if a subscription matches, once, whatever the number of these (MQTT 5 section 3.3.4)."""
        matching = [
            (options, identifier)
            for topic_filter, (options, identifier) in self.subscriptions.items()
            if matches(topic_filter, message.topic) and not (options & _NO_LOCAL and publisher == self.client_id)
        ]
        if not matching:
            return
        qos = min(message.qos, max(options & 3 for options, _ in matching))
        if self._is_away and not qos:
            return
        keeps = retained or any(options & _RETAIN_AS_PUBLISHED for options, _ in matching)
        identifiers = tuple(identifier for _, identifier in matching if identifier)
        self._waiting.append(message._replace(qos=qos, retain=message.retain and keeps, identifiers=identifiers))
        self._send_waiting()

    @property
    def unacknowledged(self) -> int:
        """How many messages of QoS 1 and 2 were sent and are not acknowledged."""
        return len(self._unacknowledged)

    def leave(self) -> None:
        """The client is away for longer than a take-over: messages of QoS 0 do not wait for it."""
        self._is_away = True
        self._waiting = deque(message for message in self._waiting if message.qos)

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK or PUBCOMP."""
        self._unacknowledged.pop(packet_id, None)
        self._send_waiting()

    def half_acknowledged(self, packet_id: int) -> None:
        """PUBREC."""
        if packet_id in self._unacknowledged:
            self._unacknowledged[packet_id] = None
        if self._send is not None:
            self._send(packets.acknowledge(PUBREL, packet_id))

    def _send_waiting(self) -> None:
        while self._send is not None and self._waiting:
            if self._waiting[0].qos and len(self._unacknowledged) >= self._most:
                return
            message = self._waiting.popleft()
            if _is_expired(message):
                continue
            if message.qos:
                message = message._replace(packet_id=self._free_packet_id())
            if (packet := self._pack(message)) is None:
                continue
            if message.qos:
                self._unacknowledged[message.packet_id] = message
            self._send(packet)

    def _pack(self, message: Publish, *, duplicate: bool = False) -> bytes | None:
        """PUBLISH with the rest of the Message Expiry Interval [MQTT-3.3.2-6]; None if it is larger than the client
        accepts: such a message counts as delivered [MQTT-3.1.2-25].
        """
        if _EXPIRY in message.properties:
            left = max(0, message.properties[_EXPIRY] - int(_waited(message)))
            message = message._replace(properties={**message.properties, _EXPIRY: left})
        packet = packets.publish(self._protocol, message, duplicate=duplicate)
        return packet if len(packet) <= self._largest else None

    def _free_packet_id(self) -> int:
        numbers = (1 + number % _HIGHEST_PACKET_ID for number in self._numbers)
        return next(number for number in numbers if number not in self._unacknowledged)
