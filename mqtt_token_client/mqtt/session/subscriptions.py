"""The topic filters that the application wants, and which of them the broker has confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ... import events
from ...errors import ClientClosed
from ..codec.packets import SUBACK, SUBSCRIBE, UNSUBACK, Suback, Unsuback
from ..codec.properties import read_properties
from ..codec.reason_codes import Action, action_for
from ..codec.topics import overlap, without_group
from .delivery import Outgoing
from .dispatch import Handler, Routes, Subscription, identifier_of
from .limits import Limits
from .packet_ids import PacketIds

if TYPE_CHECKING:
    from ..transport.connection import NetworkConnection

_RETAIN_HANDLING, _IF_NEW = 0x30, 0x10  # of the Subscription Options (MQTT 5 section 3.8.3.1)

Refusal = events.SubscriptionRefused | events.UnsubscriptionRefused


class Subscriptions:
    """The subscriptions of one session. Runs on the network thread, except :meth:`change`, and :meth:`make_changes`
    while the session is not open.

    Attributes:
        outdated: whether :meth:`send` may have something to send.
        routes: the handlers of each message.
        asked: the filters of each request that is not answered, by packet identifier, oldest first.
    """

    def __init__(self, packet_ids: PacketIds) -> None:
        self.outdated = False
        self.routes = Routes()
        self._broker = ""  # that accepted a connection last
        self._closed = ""  # why nothing can be changed; empty if it can
        self._ids = packet_ids
        self._changes: deque[Callable[[], None]] = deque()  # not made yet
        self._wanted: dict[str, Subscription] = {}
        self._unwanted: dict[str, bool] = {}  # UNSUBSCRIBE is due or not confirmed; whether it was refused for now
        # SUBSCRIBE with its subscriptions, UNSUBSCRIBE with None
        self.asked: dict[int, list[tuple[str, Subscription | None]]] = {}

    def change(self, change: Callable[[], None]) -> None:
        """Have a change made, before the next message is sent. May be called on any thread.

        Raises:
            ClientClosed: changes are refused.
        """
        if self._closed:
            raise ClientClosed(self._closed)
        self._changes.append(change)
        self.outdated = True

    def close(self, why: str) -> None:
        """Refuse changes from now on, for the reason ``why``."""
        self._closed = why

    def make_changes(self) -> None:
        """Make the changes, to be sent on the next connection if there is none, so that they do not pile up."""
        while self._changes:
            self._changes.popleft()()

    def send(
        self, connection: NetworkConnection[Outgoing], limits: Limits, *, alone: bool = False
    ) -> list[tuple[str, int]]:
        """Make the changes, and send SUBSCRIBE and UNSUBSCRIBE for them: if ``alone``, one filter only, once the one
        before is answered. Return the filters that the broker does not accept, as its CONNACK says, with the reason;
        they are forgotten.
        """
        self.outdated = False
        self.make_changes()
        if limits.identifiers:
            self._identify()
        rejected = self.remove_rejected(limits)
        for properties, wanted in self.to_subscribe(limits):
            if alone and self.asked:
                self.outdated = True
                return rejected
            now = wanted[:1] if alone else wanted
            if packet_id := self.ask([name for name, _ in now]):
                connection.write(connection.engine.subscribe(packet_id, now, properties))
            self.outdated |= len(now) < len(wanted)
        for unwanted in self.to_unsubscribe(limits):
            if alone and self.asked:
                self.outdated = True
                return rejected
            now_unwanted = unwanted[:1] if alone else unwanted
            if packet_id := self.ask(now_unwanted):
                connection.write(connection.engine.unsubscribe(packet_id, now_unwanted))
            self.outdated |= len(now_unwanted) < len(unwanted)
        return rejected

    def add(
        self,
        topic_filter: str,
        handler: Handler | None,
        options: int,
        properties: bytes = b"",
        *,
        identified: bool = False,
        beside: bool = False,
    ) -> None:
        """Subscribe to a filter, in place of an earlier subscription to it.

        Args:
            topic_filter: the filter.
            handler: gets the messages; None leaves them to the client's ``on_message``.
            options: the Subscription Options (MQTT 5 section 3.8.3.1); in MQTT 3.1.1 the QoS.
            properties: those of SUBSCRIBE, packed.
            identified: whether they have a Subscription Identifier.
            beside: whether the handlers of the earlier subscription stay.
        """
        chosen = _chosen_identifier(properties) if identified else 0
        before = self._wanted.get(topic_filter)
        handlers = before.handlers if before is not None and beside else ()
        if handler is not None and handler not in handlers:
            handlers = (*handlers, handler)
        added = Subscription(handlers, options, properties, chosen)
        if before is not None:
            added.identifier = chosen or (0 if before.identified else before.identifier)
            added.moving = added.identifier != before.identifier
        for name, other in self._wanted.items():
            if name != topic_filter and overlap(without_group(name), without_group(topic_filter)):
                added.overlaps = other.overlaps = True
        self._wanted[topic_filter] = added
        self._unwanted.pop(topic_filter, None)
        self.routes.rebuild(self._wanted)

    def _identify(self) -> None:
        """Give each subscription that overlaps another one an identifier of its own, so that copies can be told apart.
        The broker has some of them already, and is not to send their retained messages again.
        """
        changed = False
        asked = self._asked_last()
        for name, one in self._wanted.items():
            if not one.overlaps or one.identifier:
                continue
            changed = True
            if one.confirmed or asked.get(name) is one:
                handling = one.options & _RETAIN_HANDLING or _IF_NEW
                options = one.options & ~_RETAIN_HANDLING | handling
                one = self._wanted[name] = Subscription(one.handlers, options, one.properties, 0)
                one.overlaps = one.moving = True
            one.identifier = identifier_of(name)
        if changed:
            self.routes.rebuild(self._wanted)

    def remove(self, topic_filter: str, *, unsubscribe: bool = True) -> None:
        """Forget a filter, and unsubscribe from it: this process has subscribed to it, or an earlier one in the same
        session.
        """
        self._unwanted.pop(topic_filter, None)
        if unsubscribe:
            self._unwanted[topic_filter] = False
        if self._wanted.pop(topic_filter, None) is not None:
            self.routes.rebuild(self._wanted)

    def remove_rejected(self, limits: Limits) -> list[tuple[str, int]]:
        """Remove the filters that must not be sent to the broker; return them with the reason."""
        found = [
            (name, reason)
            for name, wanted in self._wanted.items()
            if not wanted.confirmed
            and (reason := limits.filter_violation(name, wanted.packed(limits), identified=wanted.identified))
        ]
        for name, _ in found:
            del self._wanted[name]
        if found:
            self.routes.rebuild(self._wanted)
        return found

    def to_subscribe(self, limits: Limits) -> list[tuple[bytes, list[tuple[str, int]]]]:
        """Return a SUBSCRIBE packet's properties, and its filters with their options, for all that is neither confirmed
        nor asked for already.
        """
        asked = self._asked_last()
        due: dict[bytes, list[str]] = {}
        for name, wanted in self._wanted.items():
            if not wanted.confirmed and not wanted.refused and asked.get(name) is not wanted:
                due.setdefault(wanted.packed(limits), []).append(name)
        return [
            (properties, [(name, self._wanted[name].options) for name in packet])
            for properties, names in due.items()
            for packet in limits.divide(names, properties)
        ]

    def to_unsubscribe(self, limits: Limits) -> list[list[str]]:
        """Return the filters of each UNSUBSCRIBE packet. Those that are too long for it wait for another connection."""
        asked = self._asked_last()
        due = [
            name
            for name, refused in self._unwanted.items()
            if not refused and (name not in asked or asked[name] is not None) and limits.fits(name)
        ]
        return list(limits.divide(due))

    def ask(self, names: list[str]) -> int:
        """Return the packet identifier for a SUBSCRIBE or UNSUBSCRIBE with these filters; 0 if all are in use, and then
        :meth:`send` is to be called again.
        """
        packet_id = self._ids.take()
        if packet_id:
            self.asked[packet_id] = [(name, self._wanted.get(name)) for name in names]
        else:
            self.outdated = True
        return packet_id

    def subscribed(self, packet_id: int, reasons: list[int]) -> Iterator[tuple[str, int]]:
        """SUBACK: yield the filters that the broker refused, with its reason; remove those that it never accepts."""
        for (name, asked), reason in zip(self._answered(packet_id), reasons, strict=False):
            if asked is None or self._wanted.get(name) is not asked:
                continue  # the application has changed it since
            if reason < 0x80:
                asked.confirmed, asked.moving = True, False
                continue
            if action_for(SUBACK, reason) is Action.GIVE_UP:
                del self._wanted[name]
                self.routes.rebuild(self._wanted)
            else:
                asked.refused = True
            yield name, reason

    def token_renewed(self) -> None:
        """Ask again for what was refused."""
        for wanted in self._wanted.values():
            wanted.refused = False
        self._unwanted = dict.fromkeys(self._unwanted, False)
        self.outdated = True

    def unsubscribed(self, packet_id: int, reasons: Sequence[int]) -> Iterator[tuple[str, int]]:
        """UNSUBACK: yield the filters that the broker has not removed, with its reason (MQTT 5 section 3.11.3). It is
        asked again with the next token or connection, unless it never does that. A filter with a later request waits
        for the answer to that.
        """
        answered = self._answered(packet_id)
        asked_again = self._asked_last().keys()
        for (name, _), reason in zip(answered, reasons or [0] * len(answered), strict=False):
            if name not in self._unwanted or name in asked_again:
                continue
            if reason < 0x80 or action_for(UNSUBACK, reason) is Action.GIVE_UP:
                del self._unwanted[name]
            else:
                self._unwanted[name] = True
            if reason >= 0x80:
                yield name, reason

    def connected(self, broker: str, *, session_present: bool) -> None:
        """A broker has accepted a connection. Without a session it has no filter, and another broker than before may
        lack some.
        """
        if not session_present:
            self._unwanted.clear()
        if not session_present or self._broker not in ("", broker):
            self.session_in_doubt()
        self._broker = broker

    def connection_lost(self) -> None:
        """Ask again for what was not answered."""
        for packet_id in self.asked:
            self._ids.free(packet_id)
        self.asked.clear()
        self.token_renewed()

    def session_in_doubt(self) -> None:
        """The broker may have forgotten every filter."""
        for wanted in self._wanted.values():
            wanted.confirmed = False

    def _asked_last(self) -> dict[str, Subscription | None]:
        """Return the last request for each filter, of those that are not answered."""
        return {name: asked for filters in self.asked.values() for name, asked in filters}

    def _answered(self, packet_id: int) -> list[tuple[str, Subscription | None]]:
        if packet_id in self.asked:  # otherwise it may be the identifier of a message
            self._ids.free(packet_id)
        return self.asked.pop(packet_id, [])


def _chosen_identifier(packed: bytes) -> int:
    """The Subscription Identifier among the packed properties of SUBSCRIBE."""
    identifier: int = read_properties(SUBSCRIBE, packed, 0, len(packed))[0]["subscription_identifier"]
    return identifier


def refusals(subscriptions: Subscriptions, packet: Suback | Unsuback) -> Iterator[Refusal]:
    """Have SUBACK and UNSUBACK taken note of, and yield what the broker refused."""
    if isinstance(packet, Suback):
        for name, reason in subscriptions.subscribed(packet.packet_id, packet.reasons):
            yield events.SubscriptionRefused(name, reason, reason_string=packet.text)
    else:
        for name, reason in subscriptions.unsubscribed(packet.packet_id, packet.reasons):
            yield events.UnsubscriptionRefused(name, reason, reason_string=packet.text)
