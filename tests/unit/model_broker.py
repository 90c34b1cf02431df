"""A broker that implements MQTT, as well or as badly as the test wants, and checks the rules that its client must obey.

Whatever a client must never do fails here at once: a packet before CONNACK, more unacknowledged messages than allowed,
a newer message before an older one, a second copy at QoS 2, a connection that is closed without a reason, or in a way
that fires the will. The test adds what it knows of the application. Everything runs on one thread, over socket pairs.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mqtt_token_client.errors import BrokerUnreachable
from tests.unit import packets
from tests.unit.packets import (
    AUTH,
    AUTHENTICATION_DATA,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Packet,
)

_AT_MOST_QOS_2_UNTOLD = 20  # unacknowledged, in MQTT 3.1.1, as Mosquitto closes the connection at more
_ROUNDING = 1e-6  # seconds
_PATIENCE = 3  # of the client that is asked for its token again and again
_CONTINUE = 0x18
_NOT_AUTHORIZED, _QUOTA_EXCEEDED = 0x87, 0x97
_IDENTIFIER_NOT_FOUND = 0x92
_NO_MESSAGE = -1  # in the place of a number
_TOKEN_ENDED = (_NOT_AUTHORIZED, 0x98, 0xA0)
_AROUND_EXPIRY = 2.0  # seconds


class Answer(Enum):
    """The answer to CONNECT and AUTH; for CLOSE and LATER there is none."""

    ACCEPT = "accept"
    FORGET = "accept, without the session"
    TOKEN = "refuse the token"
    TROUBLE = "refuse for the broker's own trouble"
    CLOSE = "close"
    LATER = "answer when the test says so"
    ASK = "ask for the token by AUTH, where there is an Authentication Method"


@dataclass(frozen=True)
class Sent:
    """A message that an application has published."""

    topic: str
    qos: int


@dataclass
class Session:
    """The server's session state (MQTT 5 section 4.1), and what follows from it for the client."""

    subscriptions: dict[str, int] = field(default_factory=dict)
    to_release: dict[int, int] = field(default_factory=dict)  # QoS 2, identifier to message: PUBREL is to come
    delivered: dict[int, int] = field(default_factory=dict)  # QoS 2, message to identifier
    arrived: set[int] = field(default_factory=set)  # messages of which a later copy must have DUP
    identifiers: dict[int, int] = field(default_factory=dict)  # in use by the client, for which message
    outgoing: dict[int, tuple[str, int, int, bool]] = field(default_factory=dict)  # topic, message, QoS, PUBREL sent
    last_id: int = 0
    known: bool = False  # to the client, which has sent something on the connection that began it


@dataclass(eq=False)
class Line:
    """One connection, as the broker sees it."""

    sock: socket.socket
    data: bytearray = field(default_factory=bytearray)
    unread: deque[tuple[float, Packet]] = field(default_factory=deque)  # when they came, at the latest
    connect: Packet | None = None
    came_at: float = 0.0  # CONNECT
    token: bytes = b""
    first_token: bytes = b""  # that of CONNECT
    asked: int = 0  # how often the broker has asked for the token
    answered: bool = False  # by CONNACK, with any code
    accepted: bool = False
    open: bool = True
    gone: bool = False  # the client has closed it
    said_goodbye: bool = False  # DISCONNECT came
    taken_over: bool = False
    dismissed: bool = False  # the broker has ended it
    stalled_at: float | None = None  # nothing has been read from the socket since then
    pinged_at: float | None = None  # PINGREQ that is not answered
    messages: set[int] = field(default_factory=set)  # published over it
    window: int = 0
    unacknowledged: dict[int, int] = field(default_factory=dict)
    owed: deque[tuple[Callable[[], None], bytes]] = field(default_factory=deque)  # acknowledgements held back
    receipts: dict[int, deque[int]] = field(default_factory=lambda: {1: deque(), 2: deque()})  # awaited, in this order

    def __repr__(self) -> str:
        return f"Line({self.token!r})"


class ModelBroker:
    """One broker for one client.

    Args:
        five: whether the client speaks MQTT 5.
        window: the client's own limit of unacknowledged messages.
        keepalive: the client's, in seconds.
        takeover_fires_will: whether a second connection makes this broker publish the will.
        now: the time.

    Attributes:
        sent: the messages that the application has published, by number; a payload begins with its number.
        expiry: when a token expires; the test's to say.
        closing: whether the application has asked the client to disconnect.
        received: the messages that came from the client, in order; a copy of QoS 0 or 1 as often as it came.
        confirmed: those that were acknowledged.
        refused: those that were refused, with the reason.
        lost: those of QoS 0 that a broken line has taken with it.
        handed_over: the messages that the client's application has got, and acknowledged if it does that itself; the
            test's to fill.
    """

    def __init__(
        self, *, five: bool, window: int, keepalive: float, takeover_fires_will: bool, now: Callable[[], float]
    ) -> None:
        self._five, self._window, self._takeover_fires_will, self._now = five, window, takeover_fires_will, now
        self._patience = min(keepalive, 15.0)  # of the client, for PINGRESP
        # Its behaviour, which the test sets.
        self.reachable = True
        self.attentive = True  # reads at once what has arrived
        self.acknowledges = True
        self.answers_pings = True
        self.lingers = False  # leaves a connection open for a while after another has taken over
        self.reuses_identifiers = False  # takes the lowest that is free, for a message of QoS 2
        self.receive_maximum: int | None = None
        self.answers: deque[Answer] = deque()  # to the next CONNECTs; then it accepts
        self.verdicts: deque[int] = deque()  # on the next messages and subscriptions of MQTT 5; then it takes them

        self.expiry: Callable[[bytes], float] = lambda token: math.inf
        self.closing = False
        self.sent: dict[int, Sent] = {}
        self.received: list[int] = []
        self.confirmed: set[int] = set()
        self.refused: dict[int, set[int]] = {}
        self.lost: set[int] = set()
        self.handed_over: set[int] = set()
        self.owed_at_qos_0: set[int] = set()  # messages that the client must deliver
        self.dialed = 0
        self.lines: list[Line] = []
        self.current: Line | None = None
        self.session: Session | None = None
        self._began_session: Line | None = None  # the line whose CONNACK reported it
        self._of_earlier_sessions: dict[int, int] = {}  # QoS 2, identifier to message
        self.was_given_up: Callable[[int], bool] = lambda _: False  # whether the client gave up this identifier
        self.bad_tokens: set[bytes] = set()
        self._denied: set[int] = set()  # may come again out of order
        self._last: dict[tuple[str, int], int] = {}  # message of a topic and QoS
        self._sockets: list[socket.socket] = []
        self._to_close: list[tuple[float, Line]] = []

    # What the test makes it do

    def open_transport(self, *_: Any, **__: Any) -> socket.socket:
        """Replaces the library's function."""
        self.dialed += 1
        if not self.reachable:
            raise BrokerUnreachable("the model broker is not to be reached")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.lines.append(Line(ours))
        self._sockets += [ours, theirs]
        return theirs

    def end(self) -> None:
        """Leave no socket open, on either side."""
        for sock in self._sockets:
            sock.close()

    def serve(self) -> bool:
        """Read what has arrived, and answer it if attentive; returns whether something has changed."""
        changed = self._take_in()
        for line in [line for due, line in self._to_close if due <= self._now()]:
            changed |= line.open
            self._close(line)
        if self.attentive:
            while [line for line in list(self.lines) if self.read(line)]:
                changed = True
        return changed

    def read(self, line: Line, count: int = 1_000_000) -> bool:
        """Process the next packets on a line; returns whether there was one."""
        some = False
        if line.taken_over:
            line.unread.clear()
        while line.open and line.unread and count and line.stalled_at is None:
            self._do(line, line.unread.popleft()[1])
            some, count = True, count - 1
        if line.gone and not line.unread:
            self._close(line)
        return some

    def acknowledge(self, count: int = 1_000_000) -> None:
        """Send acknowledgements that were held back, the oldest first."""
        line = self.current
        while line is not None and line.owed and count:
            self._acknowledge(line, *line.owed.popleft())
            count -= 1

    def answer(self, line: Line, answer: Answer) -> None:
        """Answer a CONNECT."""
        assert line.connect is not None
        if answer is Answer.LATER:
            return
        if answer is Answer.ASK and line.token != line.connect.password:
            line.asked += 1
            self._send(line, packets.auth(_CONTINUE))
            return
        if answer is Answer.CLOSE:
            self._close(line)
        elif answer in (Answer.TOKEN, Answer.TROUBLE):
            code = {Answer.TOKEN: (5, 0x87), Answer.TROUBLE: (3, 0x88)}[answer][self._five]
            line.answered = True
            if self._send(line, packets.connack(self._five, code)) and answer is Answer.TOKEN:
                self.bad_tokens.add(line.token)
            self._close(line)
        else:
            self._accept(line, line.connect, forget=answer is Answer.FORGET)

    @property
    def unanswered(self) -> Line | None:
        """A line whose CONNECT waits until the test answers it."""
        waiting = [line for line in self.lines if line.open and line.connect and not line.answered and not line.unread]
        return waiting[0] if waiting else None

    def cut(self, line: Line) -> None:
        """Break the line; what the broker has not read yet is lost."""
        self._take_in(line)
        self._close(line)

    def client_died(self, *, notices: bool, loses_unread: bool, recorded: Collection[int]) -> None:
        """The client's process has ended, and the next one knows what its journal has.

        Args:
            notices: whether the broker closes the connections now, and not when it comes to read their end.
            loses_unread: whether it does so before it has read what was sent.
            recorded: the messages of QoS 1 of which the journal knows that they were sent, and with which identifier.
        """
        for line in [line for line in self.lines if line.open]:
            line.dismissed = True
            self._take_in(line)
            if notices:
                (self.cut if loses_unread else self.close)(line)
        session = self.session
        if session is not None:
            session.known = False  # what the client knew of it may not have been on disk
            unknown = {n for n in session.arrived if self.sent[n].qos == 1 and n not in recorded}
            session.arrived -= unknown
            session.identifiers = {i: n for i, n in session.identifiers.items() if n not in unknown}

    def close(self, line: Line) -> None:
        """Close a connection without DISCONNECT, after reading everything."""
        self._read_all(line)
        self._close(line)

    def disconnect(self, line: Line, reason: int) -> None:
        """End a connection with a reason (MQTT 5)."""
        self._read_all(line)
        if line.open:
            received = self._send(line, packets.disconnect(reason))
            self._close(line)
            if received and reason in _TOKEN_ENDED and not self._expires_with_its_first_token(line):
                self.bad_tokens.add(line.token)

    def _expires_with_its_first_token(self, line: Line) -> bool:
        """Whether the token of CONNECT expires now, and another has taken its place: a broker that ends the connection
        for that says nothing about the other one.
        """
        return line.token != line.first_token and abs(self.expiry(line.first_token) - self._now()) < _AROUND_EXPIRY

    def restart(self) -> None:
        """Restart the broker, without any session."""
        for line in self.lines:
            if line.open:
                self.cut(line)
        self._end_session()

    def _end_session(self) -> None:
        if self.session is not None:
            self._of_earlier_sessions |= {identifier: number for number, identifier in self.session.delivered.items()}
            self.session = None

    def stall(self, line: Line, *, stalled: bool) -> None:
        """Stop reading a line's socket, or continue."""
        if not stalled:
            self._take_in(line)
            line.stalled_at = None
        elif line.stalled_at is None:
            line.stalled_at = self._now()

    def publish(self, number: int, topic: str, qos: int) -> bool:
        """Send a message to the client; returns whether it has subscribed to that topic."""
        session, line = self.session, self.current
        if session is None or topic not in session.subscriptions:
            return False
        qos = min(qos, session.subscriptions[topic])
        if not qos:
            if line is not None and self._send(line, packets.publish(self._five, topic, b"%d" % number)):
                self.owed_at_qos_0.add(number)
            return line is not None
        session.last_id += 1
        free = (identifier for identifier in range(1, session.last_id + 1) if identifier not in session.outgoing)
        identifier = next(free) if self.reuses_identifiers and qos == 2 else session.last_id
        session.outgoing[identifier] = (topic, number, qos, False)
        if line is not None:
            line.receipts[qos].append(identifier)
            self._send(line, packets.publish(self._five, topic, b"%d" % number, qos, identifier))
        return True

    # What arrives

    def _take_in(self, only: Line | None = None) -> bool:
        """Read the sockets and check what comes; connections end before others are asked for."""
        taken = False
        for line in [only] if only else self.lines:
            if line.open and not line.gone and (line.stalled_at is None or only):
                taken |= self._take_in_one(line)
        return taken

    def _take_in_one(self, line: Line) -> bool:
        taken = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = line.sock.recv(65_536)
                except ConnectionError:
                    data = b""
                taken = True
                line.data += data
                while (found := packets.split(line.data)) is not None:
                    first, body, size = found
                    del line.data[:size]
                    packet = packets.parse(first, body, self._five)
                    self._check(line, packet)
                    line.unread.append((self._now() if line.stalled_at is None else line.stalled_at, packet))
                if not data:
                    line.gone = True
                    self._check_end(line)
                    break
        return taken

    def _check(self, line: Line, packet: Packet) -> None:
        assert not line.said_goodbye, f"after DISCONNECT came {packet}"
        if line.connect is None:
            assert packet.kind == CONNECT, f"the first packet is no CONNECT: {packet}"
            line.connect, line.came_at = packet, self._now() if line.stalled_at is None else line.stalled_at
            self._check_connect(line, packet)
            return
        if line is self._began_session and line.accepted and self.session is not None:
            self.session.known = True
        leaves = packet.kind == DISCONNECT and self.closing
        assert line.accepted or leaves or (packet.kind == AUTH and line.asked), f"before CONNACK came {packet}"
        if packet.kind == PUBLISH:
            self._check_publish(line, packet)
        elif packet.kind in (SUBSCRIBE, UNSUBSCRIBE):
            assert packet.packet_id not in line.unacknowledged, f"the identifier is a message's: {packet}"
        elif packet.kind == PINGREQ and line.pinged_at is None:
            line.pinged_at = self._now()
        elif packet.kind == DISCONNECT:
            planned = self.closing or self._takeover_fires_will
            assert planned or line is not self.current, "the client has ended a connection that it could have kept"
            assert packet.reason == 0
            line.said_goodbye = True

    def _check_connect(self, line: Line, packet: Packet) -> None:
        assert packet.protocol == (5 if self._five else 4)
        line.token = line.first_token = self._token(packet)
        assert len([one for one in self.lines if one.open and one.connect and not one.gone and not one.dismissed]) <= 2
        first = self.current
        if first is not None and first is not line and self._takeover_fires_will:
            self._take_in(first)
            assert first.gone or first.said_goodbye or first.dismissed, "a planned rotation fires the will"

    def _token(self, packet: Packet) -> bytes:
        token: bytes = packet.properties.get(AUTHENTICATION_DATA, packet.password or b"")
        assert token not in self.bad_tokens, "a token is presented that was refused"
        return token

    def _check_publish(self, line: Line, packet: Packet) -> None:
        number = _number(packet.payload)
        sent, session = self.sent[number], self.session
        assert (packet.topic, packet.qos) == (sent.topic, sent.qos)
        again = number in line.messages and number not in self._denied
        assert not again, f"message {number} comes twice over one connection"
        line.messages.add(number)
        if not packet.qos:
            assert not packet.dup, f"message {number} of QoS 0 has DUP"
            return
        if session is None or line is not self.current:  # taken over meanwhile
            return
        if number not in self._denied:
            assert packet.dup or number not in session.arrived, f"message {number} comes again without DUP"
        session.arrived.add(number)
        taken = session.identifiers.get(packet.packet_id, number)
        assert taken == number, f"message {number} comes with the identifier of message {taken}"
        session.identifiers[packet.packet_id] = number
        line.unacknowledged[packet.packet_id] = number
        window = line.window if self._five or packet.qos == 1 else min(line.window, _AT_MOST_QOS_2_UNTOLD)
        assert len(line.unacknowledged) <= window, f"more than {window} messages are unacknowledged"

    def _check_end(self, line: Line) -> None:
        """Check that the client had a reason to close the connection."""
        if self.closing or line.dismissed or line.said_goodbye or line.connect is None or line.asked > _PATIENCE:
            return
        since = min((at for at in (line.pinged_at, line.stalled_at) if at is not None), default=self._now())
        if not line.answered:
            since, patience = line.came_at, 15.0
        else:
            patience = self._patience
        assert self._now() - since >= patience - _ROUNDING, "the client has dropped a connection for no reason"

    # What is done about it

    def _do(self, line: Line, packet: Packet) -> None:
        if packet.kind == CONNECT:
            self.answer(line, self.answers.popleft() if self.answers else Answer.ACCEPT)
        elif packet.kind == AUTH:
            self._do_auth(line, packet)
        elif packet.kind == PUBLISH:
            self._do_publish(line, packet)
        elif packet.kind == PUBREL:
            self._do_pubrel(line, packet.packet_id)
        elif packet.kind in (SUBSCRIBE, UNSUBSCRIBE):
            self._do_subscribe(line, packet)
        elif packet.kind == PINGREQ:
            if self.answers_pings:
                line.pinged_at = None
                self._send(line, packets.PINGRESP_PACKET)
        elif packet.kind == DISCONNECT:
            if not self.lingers:
                self._close(line)
        else:
            self._do_receipt(line, packet)

    def _do_auth(self, line: Line, packet: Packet) -> None:
        answer = self.answers.popleft() if self.answers else Answer.ACCEPT
        if not line.answered:
            assert packet.reason == _CONTINUE
            self.answer(line, answer)
            return
        token = self._token(packet)
        if answer is Answer.ASK:
            line.asked += 1
            self._send(line, packets.auth(_CONTINUE))
        elif answer in (Answer.ACCEPT, Answer.FORGET):
            line.token, line.asked = token, 0
            self._send(line, packets.auth(0))
        elif answer is Answer.TOKEN:
            line.token = token
            self.disconnect(line, _NOT_AUTHORIZED)
        elif answer is Answer.TROUBLE:
            self.disconnect(line, 0x8C)

    def _do_publish(self, line: Line, packet: Packet) -> None:
        number, identifier, session = _number(packet.payload), packet.packet_id, self.session
        assert session is not None
        if packet.qos == 0:
            self._receive(number)
        elif session.to_release.get(identifier) == number:
            self._owe(line, PUBREC, identifier, 0, number)
        else:
            assert identifier not in session.to_release, f"message {number} comes with an identifier that is in use"
            reason = self._verdict()
            if reason >= 0x80:
                self.refused.setdefault(number, set()).add(reason)
                if reason in (_NOT_AUTHORIZED, _QUOTA_EXCEEDED):
                    self._denied.add(number)
            else:
                self._receive(number)
                if packet.qos == 2:
                    assert number not in session.delivered, f"message {number} of QoS 2 is delivered twice"
                    session.delivered[number] = identifier
                    session.to_release[identifier] = number
            self._owe(line, PUBACK if packet.qos == 1 else PUBREC, identifier, reason, number)

    def _receive(self, number: int) -> None:
        sent = self.sent[number]
        if number not in self.received and number not in self.refused:
            before = self._last.get((sent.topic, sent.qos), -1)
            assert before < number, f"message {number} comes after message {before}"
            self._last[sent.topic, sent.qos] = number
        self.received.append(number)

    def _do_pubrel(self, line: Line, identifier: int) -> None:
        session = self.session
        assert session is not None
        numbers = [number for number, known in session.delivered.items() if known == identifier]
        if not numbers and not session.known and identifier in self._of_earlier_sessions:
            # No error during recovery (MQTT 5 section 3.7.2.1): the client continues the session before.
            reason = _IDENTIFIER_NOT_FOUND if self._five else 0
            self._owe(line, PUBCOMP, identifier, reason, self._of_earlier_sessions[identifier])
            return
        if not numbers and self._five and self.was_given_up(identifier):
            self._owe(line, PUBCOMP, identifier, _IDENTIFIER_NOT_FOUND, _NO_MESSAGE)
            return
        assert numbers, f"PUBREL with the identifier {identifier}, which the broker has received nothing with"
        number = session.to_release.pop(identifier, numbers[-1])
        self._owe(line, PUBCOMP, identifier, 0, number)

    def _owe(self, line: Line, kind: int, identifier: int, reason: int, number: int) -> None:
        def sent() -> None:
            if kind == PUBREC and reason < 0x80:
                return
            if reason < 0x80 or kind == PUBCOMP:
                self.confirmed.add(number)
            line.unacknowledged.pop(identifier, None)
            if self.session is not None:
                self.session.identifiers.pop(identifier, None)
                if reason in (_NOT_AUTHORIZED, _QUOTA_EXCEEDED):
                    self.session.arrived.discard(number)

        self._answer_in_turn(line, sent, packets.acknowledgement(kind, identifier, reason))

    def _do_subscribe(self, line: Line, packet: Packet) -> None:
        session = self.session
        assert session is not None
        reasons = []
        for name, options in packet.filters.items():
            verdict = self._verdict()
            reasons.append(verdict if verdict >= 0x80 else options & 3)
            if packet.kind == UNSUBSCRIBE or verdict >= 0x80:
                session.subscriptions.pop(name, None)
            else:
                session.subscriptions[name] = options & 3
        if packet.kind == SUBSCRIBE:
            answer = packets.suback(self._five, packet.packet_id, reasons)
        else:
            answer = packets.unsuback(self._five, packet.packet_id, len(packet.filters))
        self._answer_in_turn(line, lambda: None, answer)

    def _do_receipt(self, line: Line, packet: Packet) -> None:
        session = self.session
        assert session is not None
        assert packet.packet_id in session.outgoing, f"the broker does not await this: {packet}"
        topic, number, qos, released = session.outgoing[packet.packet_id]
        expected = PUBACK if qos == 1 else PUBCOMP if released else PUBREC
        assert packet.kind == expected, f"{packet} for a message of QoS {qos}"
        assert number in self.handed_over, f"message {number} is acknowledged before the application is done with it"
        if expected != PUBCOMP:
            assert line.receipts[qos].popleft() == packet.packet_id, f"message {number} is acknowledged out of turn"
        if packet.kind == PUBREC:
            session.outgoing[packet.packet_id] = (topic, number, qos, True)
            self._send(line, packets.acknowledgement(PUBREL, packet.packet_id))
        else:
            del session.outgoing[packet.packet_id]

    def _verdict(self) -> int:
        return self.verdicts.popleft() if self.verdicts and self._five else 0

    def _answer_in_turn(self, line: Line, when_sent: Callable[[], None], data: bytes) -> None:
        line.owed.append((when_sent, data))
        while line.owed and self.acknowledges:
            self._acknowledge(line, *line.owed.popleft())

    def _acknowledge(self, line: Line, when_sent: Callable[[], None], data: bytes) -> None:
        self._take_in(line)  # what the client sent without knowing of it
        when_sent()
        self._send(line, data)

    def _accept(self, line: Line, connect: Packet, *, forget: bool) -> None:
        if self.current is not None:
            self._take_over(self.current, in_vain=line.gone)
        if forget or connect.clean or self.session is None:
            self._end_session()
            self.session, self._began_session = Session(), line
            present = False
        else:
            present = True
        line.answered = line.accepted = True
        self.current = line
        properties = {packets.RECEIVE_MAXIMUM: self.receive_maximum} if self._five and self.receive_maximum else {}
        line.window = min(self._window, self.receive_maximum or 65_535) if self._five else self._window
        self._send(line, packets.connack(self._five, session_present=present, properties=properties))
        for identifier, (topic, number, qos, released) in self.session.outgoing.items():
            if released:
                self._send(line, packets.acknowledgement(PUBREL, identifier))
            else:
                again = packets.publish(self._five, topic, b"%d" % number, qos, identifier, dup=True)
                line.receipts[qos].append(identifier)
                self._send(line, again)

    def _take_over(self, first: Line, *, in_vain: bool) -> None:
        """The broker ends the first connection [MQTT-3.1.4-3]; what came within the last second may stay unread. If the
        client has given up the second one before, that is a loss like any other.
        """
        self._take_in(first)
        while first.unread and (first.said_goodbye or self._now() - first.unread[0][0] >= 1.0):
            self._do(first, first.unread.popleft()[1])
        if in_vain:
            self._lose_unread(first)
        if not first.gone:
            first.unread.clear()
        if self._five:
            self._send(first, packets.disconnect(0x8E))
        first.taken_over = first.dismissed = True
        if self.lingers:
            self._to_close.append((self._now() + 1.0, first))
        else:
            self._close(first)

    def _read_all(self, line: Line) -> None:
        self._take_in(line)
        line.stalled_at = None
        self.read(line)

    def _send(self, line: Line, data: bytes) -> bool:
        """Send a packet; returns whether the client is there to read it."""
        with contextlib.suppress(ConnectionError):
            if line.open:
                line.sock.sendall(data)
                return True
        return False

    def _close(self, line: Line) -> None:
        self._lose_unread(line)
        line.unread.clear()
        line.open, line.dismissed = False, True
        line.sock.close()
        if line is self.current:
            self.current = None

    def _lose_unread(self, line: Line) -> None:
        at_qos_0 = (packet for _, packet in line.unread if packet.kind == PUBLISH and not packet.qos)
        self.lost.update(_number(packet.payload) for packet in at_qos_0)


def _number(payload: bytes) -> int:
    return int(payload.split(maxsplit=1)[0])
