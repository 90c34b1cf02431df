"""Messages that publish() accepted and the broker has not acknowledged, in the order in which they were given.

It outlives every connection: what was sent and not acknowledged is sent again on the next one, before anything newer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from ...errors import ClientClosed, DeliveryFailed, MqttTokenError, OutboxFull
from ..codec.packets import CONNACK, PUBACK
from ..codec.reason_codes import Action, action_for, reason_name
from .delivery import Outgoing, Stage
from .flow import InflightWindow

_NEW, _SENT, _RELEASED = Stage  # a member of an Enum takes long to look up

HIGHEST_PACKET_ID = 65_535
# An MQTT 3.1.1 broker cannot tell how many messages of QoS 2 it takes at once; Mosquitto closes the connection at more
# than its max_inflight_messages, which is 20.
_UNTOLD_WINDOW_AT_QOS_2 = 20


class PacketIds:
    """The packet identifiers of one session: each in use once (MQTT 5 section 2.2.1); ``last`` is that before the first
    to be taken.
    """

    def __init__(self, last: int = 0) -> None:
        self._in_use: set[int] = set()
        self._last = last

    def take(self) -> int:
        """An identifier that nobody uses."""
        while True:
            self._last = self._last % HIGHEST_PACKET_ID + 1
            if self._last not in self._in_use:
                self._in_use.add(self._last)
                return self._last

    def free(self, packet_id: int) -> None:
        self._in_use.discard(packet_id)


class Outbox:
    """The queue of messages, and those that are in flight.

    ``put`` may be called from any thread; everything else runs on the network thread.

    Args:
        packet_ids: shared with whatever else takes identifiers in this session.
        max_queued: messages that may wait, in flight or not.
        max_inflight: messages of QoS 1 and 2 that may be unacknowledged at once, at most.
    """

    def __init__(self, packet_ids: PacketIds, *, max_queued: int, max_inflight: int) -> None:
        self._ids = packet_ids
        self._max_queued = max_queued
        self._window = InflightWindow(max_inflight)
        self._lock = threading.Lock()
        self._new: deque[Outgoing] = deque()
        self._again: deque[Outgoing] = deque()  # sent on an earlier connection, to be sent before anything new
        self._unconfirmed: list[Outgoing] | None = None  # of QoS 0, written; the broker may not have read them
        self._denied: list[Outgoing] = []  # by the broker, because the token had ended
        self._unsent = 0  # of those in flight, how many are among these
        self._inflight: dict[int, Outgoing] = {}  # in the order in which they were sent first
        self._given = self._done = 0  # messages; the network thread alone counts those that are done
        self._closed = False

    def __len__(self) -> int:
        return self._given - self._done

    @property
    def inflight(self) -> int:
        """Messages sent and not acknowledged."""
        return len(self._inflight)

    def open(self) -> None:
        """Take messages again after :meth:`close`."""
        with self._lock:
            self._closed = False

    def put(self, message: Outgoing) -> None:
        """Accept a message.

        Raises:
            OutboxFull: ``max_queued`` messages wait already.
            ClientClosed: it takes none now.
        """
        with self._lock:
            if self._closed:
                raise ClientClosed("publish: the client has been disconnected; call connect() again first")
            if self._given - self._done >= self._max_queued:
                raise OutboxFull(f"publish: {len(self)} messages wait already (max_queued); publish less, or wait")
            self._given += 1
            message.number = self._given
            self._new.append(message)

    def due(self, receive_maximum: int | None) -> Iterator[Outgoing]:
        """The messages to send now: until nothing waits, or as many are in flight as may be.

        ``receive_maximum`` is the broker's, None where it cannot tell.
        """
        window, new, inflight = self._window, self._new, self._inflight
        most = min(receive_maximum or HIGHEST_PACKET_ID, window.size)
        most_at_qos_2 = min(receive_maximum or _UNTOLD_WINDOW_AT_QOS_2, window.size)
        while waiting := self._sent_before() if self._again else new:
            message = waiting[0]
            if message.qos:
                if len(inflight) - self._unsent >= (most if message.qos == 1 else most_at_qos_2):
                    window.full()
                    return
                if message.packet_id:
                    self._unsent -= 1
                else:
                    message.packet_id = self._ids.take()
                    inflight[message.packet_id] = message
                if not window.timed:
                    window.sent(message.packet_id)
            waiting.popleft()
            yield message

    def _sent_before(self) -> deque[Outgoing]:
        """Those to be sent again, if any of them is not acknowledged meanwhile; otherwise the new ones."""
        while self._again and self._again[0].packet_id and self._again[0].packet_id not in self._inflight:
            self._again.popleft()
            self._unsent -= 1
        return self._again or self._new

    def written(self, messages: list[Outgoing]) -> int:
        """Messages of QoS 0 have gone out; tells how many are done by that."""
        if self._unconfirmed is not None:
            self._unconfirmed += messages
            return 0
        for message in messages:
            self._finish(message)
        return len(messages)

    def keep_written(self) -> None:
        """From now on, keep messages of QoS 0 that have gone out until :meth:`confirmed`."""
        if self._unconfirmed is None:
            self._unconfirmed = []

    def confirmed(self) -> int:
        """The broker has read them, or is about to; tells how many are done by that."""
        written, self._unconfirmed = self._unconfirmed or [], None
        return self.written(written)

    def acknowledged(self, packet_id: int, reason: int) -> Outgoing | None:
        """PUBACK, PUBCOMP, or a PUBREC that refuses: the message that is done, or None for an unknown identifier."""
        message = self._inflight.pop(packet_id, None)
        if message is None:
            return None
        self._ids.free(packet_id)
        if packet_id == self._window.timed:
            self._window.answered()
        refused = reason >= 0x80 and message.stage is not _RELEASED
        self._finish(message, _refusal(message, PUBACK, reason) if refused else None)
        return message

    def denied(self, packet_id: int) -> bool:
        """PUBACK or PUBREC with Not authorized, as the token has ended: the message waits for a new one, if there is
        such a message.
        """
        message = self._inflight.pop(packet_id, None)
        if message is None:
            return False
        self._ids.free(packet_id)
        self._window.forget(packet_id)
        message.packet_id, message.stage = 0, _NEW
        self._denied.append(message)
        return True

    def token_renewed(self) -> None:
        """What was denied may go out again, before anything that came later."""
        if self._denied:
            self._again = deque(sorted((*self._again, *self._denied), key=lambda one: one.number))
            self._denied.clear()

    def refused(self, message: Outgoing, reason: int) -> None:
        """The broker takes no such message, as it has told in CONNACK."""
        if message.packet_id:
            del self._inflight[message.packet_id]
            self._ids.free(message.packet_id)
            self._window.forget(message.packet_id)
        self._finish(message, _refusal(message, CONNACK, reason))

    def received(self, packet_id: int) -> None:
        """PUBREC: the broker has the message, PUBREL is due."""
        message = self._inflight.get(packet_id)
        if message is not None:
            message.stage = _RELEASED
            if packet_id == self._window.timed:
                self._window.answered()

    def connection_lost(self, unwritten: list[Outgoing]) -> None:
        """What was in flight is to be sent again, in the order in which it was given; and the messages of QoS 0 that
        were kept or did not go out whole.
        """
        at_qos_0 = [*(self._unconfirmed or ()), *unwritten]
        self._unconfirmed = None
        self._window.connection_lost()
        for message in at_qos_0:
            message.stage = _NEW  # DUP is for QoS 1 and 2 only [MQTT-3.3.1-2]
        waiting = (message for message in self._again if not message.packet_id)
        every = (*self._inflight.values(), *waiting, *at_qos_0, *self._denied)
        self._again = deque(sorted(every, key=lambda one: one.number))
        self._denied.clear()
        self._unsent = len(self._inflight)

    def session_lost(self) -> None:
        """The broker knows nothing of what it was sent: each message in flight starts anew."""
        for message in self._inflight.values():
            message.stage = _NEW

    def close(self) -> int:
        """Take no more messages, fail those that wait, and tell how many."""
        with self._lock:
            self._closed = True
        waiting = (message for message in self._again if not message.packet_id)
        abandoned = [*self._inflight.values(), *waiting, *self._denied, *self._new]
        for message in self._inflight.values():
            self._ids.free(message.packet_id)
        self._inflight.clear()
        self._again.clear()
        self._denied.clear()
        self._unsent = 0
        self._new.clear()
        for message in abandoned:
            self._finish(message, DeliveryFailed("the client was closed before the message was acknowledged"))
        return len(abandoned)

    def _finish(self, message: Outgoing, error: MqttTokenError | None = None) -> None:
        self._done += 1
        message.payload = b""  # whoever keeps the Delivery does not keep that
        message.finish(error)


def _refusal(message: Outgoing, packet: int, reason: int) -> DeliveryFailed:
    text = f"the broker takes no such message on {message.topic_name}: {reason_name(reason)} (0x{reason:02x})"
    return DeliveryFailed(text, reason=reason, permanent=action_for(packet, reason) is not Action.RETRY)
