"""What a broker can do to an attempt, at each moment of each kind of it: it is reported, and no message is lost.

The broker here serves as MQTT wants it, but for one moment: there it waits until the test lets one thing happen.
"""

from __future__ import annotations

import contextlib
import queue
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from mqtt_token_client import (
    Backoff,
    Connected,
    ConnectFailed,
    Credentials,
    Delivery,
    Disconnected,
    Event,
    Rotated,
    RotationFailed,
    Token,
    TokenRefused,
    TokenRenewed,
    Will,
)
from mqtt_token_client.mqtt.codec.codec import Codec
from tests.unit import packets
from tests.unit.device import Make
from tests.unit.packets import (
    AUTH,
    AUTHENTICATION_DATA,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    Packet,
)
from tests.unit.scripted_broker import PATIENCE, Peer, ScriptedBroker
from tests.unit.stepped_time import stepped

METHOD = "OAUTH2-JWT"
CONTINUE, RE_AUTHENTICATE = 0x18, 0x19
ROUNDS = 2  # times in a row that it happens on a second connection
LONGEST = 0.01  # seconds of back-off
DEADLINES = {
    "QUIET": "handover._QUIET_TIME",
    "SETTLE": "handover._SETTLE_TIME",
    "HEAD_START": "handover._HEAD_START",
    "HEAD_START_NEAR": "handover._HEAD_START_NEAR",
    "DRAIN": "handover._DRAIN_TIME",
    "END": "reconnect.END_TIME",
    "AUTH": "reauthenticate._AUTH_TIME",
    "CONNACK": "connect._CONNACK_TIME",
}
SHORT, LONG = 0.02, 60.0  # deadlines: one that is to pass, and one that is not

# The moments. On the connection that the attempt opens:
ON_ACCEPT = "on accept"
NO_CONNACK = "instead of CONNACK"
NO_CONNACK_ALONE = "instead of CONNACK with the first gone"
WITH_CONNACK = "with CONNACK"
AFTER_CONNACK = "after CONNACK"
BEFORE_LAST_WORDS = "after CONNACK but before the last words of the first"
# On the first connection:
OPENING, SETTLING, HOLDING, ENDING, DRAINING = "opening", "settling", "holding", "ending", "draining"
AUTHENTICATING, CONTINUING = "authenticating", "continuing"

# What happens there:
CLOSE, RESET, SILENCE, NAGGING, NO_AUTH = "close", "RST", "silence", "AUTH again and again", "AUTH that refuses"
CODES = {"token": (5, 0x87), "broker": (3, 0x88), "ours": (2, 0x85)}  # in CONNACK of 3.1.1 and of 5
REASONS = {"token": 0x87, "broker": 0x8B, "ours": 0x82}  # in DISCONNECT
CONNACKS, DISCONNECTS = ([f"{kind} of {whose}" for whose in CODES] for kind in ("CONNACK", "DISCONNECT"))
LENGTH = "a length of five bytes"
SHORT_CONNACK = "a short CONNACK"
GARBAGE = {
    LENGTH: b"\x20\xff\xff\xff\xff\x01",
    "random bytes": random.Random(7).randbytes(300),
    "an early PUBLISH": b"\x30\x06\x00\x01t\x00hi",
    SHORT_CONNACK: b"\x20\x01\x00",
    "an HTTP answer": b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" + bytes(99),
    "half an HTTP answer": b"HTTP/1.0 400\r\n\r\n",
}


@dataclass(frozen=True)
class Case:
    kind: str  # connect, handover, reconnect, re-authentication, fallback (to a handover, as AUTH had no answer)
    protocol: int
    moment: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.protocol}-{self.moment}-{self.what}"

    @property
    def rotates(self) -> bool:
        """Whether there is a first connection."""
        return self.kind != "connect"

    @property
    def in_place(self) -> bool:
        return self.kind in ("re-authentication", "fallback")

    @property
    def ambiguous(self) -> bool:
        """Whether the client may not have seen that it was accepted."""
        return self.moment == WITH_CONNACK and self.what in (RESET, LENGTH)

    @property
    def spares_first(self) -> bool:
        """Whether the first connection is still up after it has happened."""
        if self.moment in (AUTHENTICATING, CONTINUING):
            return self.what in (SILENCE, NAGGING)
        return self.kind in ("handover", "fallback") and self.moment in (ON_ACCEPT, NO_CONNACK)


class Way:
    """How a token gets into CONNECT; each attempt asks for leave first."""

    def __init__(self, method: bool) -> None:
        self.asked_at: list[float] = []
        self.let = 0
        self._method = method
        self._leave = threading.Semaphore(0)

    @property
    def waits(self) -> bool:
        """Whether an attempt asks for leave."""
        return len(self.asked_at) > self.let

    def give_leave(self) -> None:
        self.let += 1
        self._leave.release()

    def open(self) -> None:
        """Let every attempt go on."""
        self._leave.release(100)

    def place(self, token: Token, client_id: str) -> Credentials:
        self.asked_at.append(time.monotonic())
        assert self._leave.acquire(timeout=2 * PATIENCE)
        secret = token.value.encode()
        return Credentials(None, None, token, METHOD, secret) if self._method else Credentials(client_id, secret, token)


class WilfulBroker(ScriptedBroker):
    """Serves as a broker does, but for one moment. All of it runs in :meth:`turn`, which the test calls."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.moment = ""  # where to wait for the test
        self.stopped: list[Peer] = []  # the connections on which it has come to that
        self.acknowledges = True
        self.answers_auth = True
        self.opened = 0
        self.open: list[Peer] = []  # the oldest first
        self.log: list[tuple[Peer, Packet]] = []
        self.read: queue.Queue[bytes] = queue.Queue()  # what the client has read
        self._case = case
        self._unanswered: list[tuple[Peer, int]] = []
        self._welcomed: list[Peer] = []
        self._struck: list[Peer] = []  # serve no longer
        self._nagging: list[Peer] = []
        self._left: list[Peer] = []  # by the client, with DISCONNECT

    def turn(self) -> bool:
        """Serve what there is to serve; whether there was something."""
        ready = select.select([self._listener, *(peer._sock for peer in self.open)], [], [], 0)[0]
        # The newest first, to see a CONNECT that was sent too early; but a broker that is silent is not waited for.
        order = [*self.open] if self._case.what == SILENCE else self.open[::-1]
        for peer in order:
            if peer in self.open and peer._sock in ready:
                self._serve(peer)
        if self._listener in ready:
            self.opened += 1
            self.open.append(self.accept())
            self.open[-1]._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.moment == ON_ACCEPT:
                self.stopped.append(self.open[-1])
        return bool(ready)

    @property
    def accepted(self) -> int:
        return len(self._welcomed)

    def welcome(self, peer: Peer, *, end_others: bool = True) -> bytes:
        """The CONNACK that accepts, for the caller to send."""
        if end_others:
            self._end_others(peer)
        self._welcomed.append(peer)
        return packets.connack(peer.five, session_present=self.accepted > 1)

    def of(self, kind: int) -> list[tuple[Peer, Packet]]:
        return [(peer, packet) for peer, packet in self.log if packet.kind == kind]

    def acknowledge_all(self) -> None:
        self.acknowledges = True
        for peer, packet_id in self._unanswered:
            if peer in self.open and peer not in self._struck:
                with contextlib.suppress(OSError):  # the client has left it meanwhile
                    peer.acknowledge(PUBACK, packet_id)
        self._unanswered.clear()

    def strike(self, peer: Peer, what: str) -> None:
        """Let it happen."""
        data = self.welcome(peer) if self.moment == WITH_CONNACK else b""
        data += self._bytes(peer, what)
        if what == NAGGING:
            self._nagging.append(peer)
        elif what != SILENCE or self.moment not in (AUTHENTICATING, CONTINUING):  # no answer to AUTH, but all others
            self._struck.append(peer)
        with contextlib.suppress(OSError):  # the client did not wait
            if data:
                peer.send(data)
            if what in DISCONNECTS:
                peer._sock.shutdown(socket.SHUT_WR)
            elif what in (CLOSE, RESET):
                if what == RESET:
                    peer._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._forget(peer)
        if self.moment == BEFORE_LAST_WORDS:
            self._end_others(peer)

    def _bytes(self, peer: Peer, what: str) -> bytes:
        if what in CONNACKS:
            return packets.connack(peer.five, CODES[what.rpartition(" ")[2]][peer.five])
        if what in DISCONNECTS:
            return packets.disconnect(REASONS[what.rpartition(" ")[2]])
        auth = {NAGGING: packets.auth(CONTINUE), NO_AUTH: packets.auth(0x87)}
        return auth.get(what, b"") or GARBAGE.get(what, b"")

    def _serve(self, peer: Peer) -> None:
        while True:
            packet = peer.packet(pings=True)
            if packet is None:
                self._forget(peer)
                return
            assert peer not in self._left, "a packet after DISCONNECT"
            answers_connack = peer in self._struck and self._case.what == SHORT_CONNACK
            allowed = (CONNECT, AUTH, DISCONNECT) if answers_connack else (CONNECT, AUTH)
            assert peer in self._welcomed or packet.kind in allowed, "another packet before CONNACK"
            self.log.append((peer, packet))
            with contextlib.suppress(OSError):  # the client does not wait for the answer
                self._answer(peer, packet)
            if packets.split(peer._data) is None:
                return

    def _answer(self, peer: Peer, packet: Packet) -> None:
        if peer in self._struck and packet.kind not in (PUBLISH, AUTH):
            return
        match packet.kind:
            case packets.CONNECT:
                self._connect(peer)
            case packets.AUTH:
                self._authenticate(peer, packet)
            case packets.PUBLISH:
                self._unanswered.append((peer, packet.packet_id))
                if self.acknowledges:
                    self.acknowledge_all()
            case packets.PINGREQ:
                count = sum(one is peer for one, _ in self.of(PINGREQ))
                if self.moment == (SETTLING if count == 1 else HOLDING):
                    self.stopped.append(peer)
                else:
                    peer.send(packets.PINGRESP_PACKET)
            case packets.DISCONNECT:
                self._left.append(peer)
                if self.moment == ENDING:
                    self.stopped.append(peer)
                else:
                    self._forget(peer)

    def _connect(self, peer: Peer) -> None:
        others = [one for one in self.open if one is not peer]
        if self._case.kind == "reconnect":
            ended = [*self._left, *self._struck, *self._nagging]
            assert all(one in ended for one in others), "CONNECT before DISCONNECT"
        if self.moment == NO_CONNACK_ALONE:
            self._end_others(peer)
            for other in others:
                while (packet := other.packet()) is not None:
                    self.log.append((other, packet))
                self._forget(other)
        if self.moment in (NO_CONNACK, NO_CONNACK_ALONE, WITH_CONNACK):
            self.stopped.append(peer)
            return
        connack = self.welcome(peer, end_others=self.moment not in (BEFORE_LAST_WORDS, DRAINING))
        peer.send(connack)
        if self.moment in (AFTER_CONNACK, BEFORE_LAST_WORDS, DRAINING):
            self.stopped.append(others[0] if self.moment == DRAINING else peer)
            self.until_read(connack)

    def until_read(self, data: bytes) -> None:
        """Wait until the client has read this by itself."""
        while self.read.get(timeout=PATIENCE) != data:
            pass

    def _authenticate(self, peer: Peer, packet: Packet) -> None:
        if peer in self._nagging:
            count = sum(one is peer for one, _ in self.of(AUTH))
            assert count < 10, "the client answers AUTH forever"
            peer.send(packets.auth(CONTINUE))
        elif self.moment == (AUTHENTICATING if packet.reason == RE_AUTHENTICATE else CONTINUING):
            self.stopped.append(peer)
        elif self.moment == CONTINUING:
            peer.send(packets.auth(CONTINUE))
        elif self.answers_auth and peer not in self._struck:
            peer.send(packets.auth(0))

    def _end_others(self, peer: Peer) -> None:
        """As one that is taken over."""
        for other in self.open:
            if other is not peer:
                with contextlib.suppress(OSError):
                    if other.five:
                        other.send(packets.disconnect(0x8E))
                    other._sock.shutdown(socket.SHUT_WR)

    def _forget(self, peer: Peer) -> None:
        self.open.remove(peer)
        peer.close()


class Play:
    """A client at that broker, the messages that it is given, and what has to hold whatever happens."""

    def __init__(self, make: Make, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        self.case = case
        self.broker = WilfulBroker(case)
        self.way = Way(case.in_place)
        self.told_at: list[tuple[Event, float]] = []
        self._monkeypatch = monkeypatch
        self._given: list[bytes] = []
        self._deliveries: list[Delivery] = []
        self._set_deadlines()
        self._watch_reading()
        self.device = make(
            case.protocol,
            broker=self.broker,
            profile=self.way,
            backoff=Backoff(initial=LONGEST / 2, maximum=LONGEST, stable_after=60.0),
            will=Will("gone", b"") if case.kind == "reconnect" else None,
            on_event=self._on_event,
        )
        self.client = self.device.client

    def _on_event(self, event: Event) -> None:
        self.told_at.append((event, time.monotonic()))
        self.device.on_event(event)

    def _set_deadlines(self) -> None:
        silent = self.case.what == SILENCE
        self.set_deadline("QUIET", LONG)
        self.set_deadline("SETTLE", SHORT if silent and self.case.moment == SETTLING else LONG)
        for name in ("HEAD_START", "HEAD_START_NEAR"):
            self.set_deadline(name, SHORT if silent and self.case.moment in (SETTLING, HOLDING) else LONG)
        self.set_deadline("END", SHORT if silent and self.case.moment == ENDING else LONG)
        self.set_deadline("DRAIN", SHORT if silent and self.case.moment == DRAINING else LONG)
        self.set_deadline("AUTH", SHORT if silent or self.case.kind == "fallback" else LONG)
        self.set_deadline("CONNACK", SHORT if silent or self.case.what in GARBAGE else LONG)

    def set_deadline(self, name: str, seconds: float) -> None:
        self._monkeypatch.setattr(f"mqtt_token_client.mqtt.lifecycle.{DEADLINES[name]}", seconds)

    def _watch_reading(self) -> None:
        receive, broker = Codec.receive, self.broker

        def watched(engine: Codec, data: bytes) -> object:
            try:
                return receive(engine, data)
            finally:
                broker.read.put(data)

        self._monkeypatch.setattr(Codec, "receive", watched)

    def until(self, happened: Callable[[], object], *, letting: bool = True) -> None:
        """Have the broker serve until something happens; attempts may go on meanwhile, or not."""
        deadline = time.monotonic() + PATIENCE
        stepped().settle()
        while not happened():
            assert time.monotonic() < deadline, f"it did not happen: {self.device.events}"
            if letting and self.way.waits:
                self.way.give_leave()
            elif not self.broker.turn():
                stepped().pass_to_next_deadline()
            stepped().settle()

    def give(self, text: str) -> None:
        self._given.append(b"%d: %s" % (len(self._given), text.encode()))
        self._deliveries.append(self.client.publish("t", self._given[-1], qos=1))

    def reported(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self.device.events if isinstance(event, kinds)]

    def start(self) -> Peer:
        """The first connection, with a message in flight."""
        self.client.connect(timeout=0)
        self.until(lambda: self.reported(Connected))
        self.until(lambda: self.client.stats.connects)
        self.broker.acknowledges = False
        self.give("before")
        self.until(lambda: self.client.stats.inflight and self.broker.of(PUBLISH))
        self.broker.moment = self.case.moment
        self.broker.answers_auth = self.case.kind != "fallback"
        return self.broker.open[0]

    def serves_on(self, peer: Peer) -> None:
        """Messages go both ways over this connection, whatever waits to be tried on another."""
        self.until(lambda: self.broker.of(PUBLISH)[-1][1].payload == self._given[-1], letting=False)
        self.give("on the first")
        self.broker.acknowledge_all()
        peer.publish("t", b"down", 1, 7)
        self.until(lambda: all(delivery.done for delivery in self._deliveries), letting=False)
        self.until(lambda: any(one is peer for one, _ in self.broker.of(PUBACK)), letting=False)
        assert self.broker.of(PUBLISH)[-1][0] is peer
        assert self.client.state == "connected"
        assert not self.reported(Disconnected)
        self.broker.acknowledges = False

    def end(self, connections: int = 1) -> None:
        """It is connected in the end, by so many connections at least; all that was given is delivered, and nothing is
        left behind.
        """
        self.broker.moment, self.broker.answers_auth = "", True
        self.until(lambda: self.broker.opened >= connections and self._rests())
        self.give("in the end")
        self.broker.acknowledge_all()
        self.until(lambda: all(delivery.done for delivery in self._deliveries))
        self.until(self._rests)
        assert not any(delivery.error for delivery in self._deliveries)
        self._check_order()
        self._check_delays()
        stats, broker = self.client.stats, self.broker
        assert (stats.queued, stats.inflight, stats.delivered) == (0, 0, len(self._given))
        assert stats.rotations == len(self.reported(Rotated))
        assert stats.renewals == len(self.reported(TokenRenewed)) == self.device.source.requests
        unseen = ROUNDS if self.case.ambiguous else 0
        assert broker.accepted - unseen <= stats.connects <= broker.accepted

    def _rests(self) -> bool:
        return self.client.state == "connected" and len(self.broker.open) == 1 and not self.way.waits

    def _check_order(self) -> None:
        """As they came first, and over each connection, the messages came as they were given; again only with DUP."""
        seen: list[bytes] = []
        over: dict[int, list[bytes]] = {}
        for peer, message in self.broker.of(PUBLISH):
            assert message.dup or message.payload not in seen
            over.setdefault(id(peer), []).append(message.payload)
            if message.payload not in seen:
                seen.append(message.payload)
        assert seen == self._given
        assert all(payloads == sorted(payloads, key=self._given.index) for payloads in over.values())

    def _check_delays(self) -> None:
        """Each failure says when it is tried again, and that is when it is tried again."""
        at_once: list[type[Event]] = []
        for event, told_at in self.told_at:
            if isinstance(event, TokenRefused | RotationFailed | ConnectFailed | Disconnected):
                assert 0.0 <= event.retry_in <= LONGEST
                later = [asked_at for asked_at in self.way.asked_at if asked_at > told_at]
                if later and event.retry_in:
                    assert later[0] >= told_at + event.retry_in - 0.001
                if not event.retry_in:
                    at_once.append(type(event))
        assert len(at_once) == len(set(at_once)), "another attempt followed at once, again and again"


Begin = Callable[[Case], Play]


@pytest.fixture
def begin(make: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    plays: list[Play] = []

    def begin_one(case: Case) -> Play:
        plays.append(Play(make, case, monkeypatch))
        return plays[-1]

    yield begin_one
    for play in plays:
        play.way.open()


@pytest.fixture(autouse=True)
def _longest_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delay is the whole of its bound: none is next to nothing by chance."""
    monkeypatch.setattr("random.uniform", lambda _, bound: bound)


def on_the_second() -> Iterator[Case]:
    kinds = [(kind, protocol) for kind in ("connect", "handover", "reconnect") for protocol in (4, 5)]
    for kind, protocol in [*kinds, ("fallback", 5)]:
        only_5 = [*DISCONNECTS, NAGGING, NO_AUTH] if protocol == 5 else []
        happenings = {
            ON_ACCEPT: [CLOSE, RESET, LENGTH],
            NO_CONNACK: [*CONNACKS, CLOSE, RESET, SILENCE, *GARBAGE, *only_5],
            WITH_CONNACK: [CLOSE, RESET, LENGTH, *only_5],
            AFTER_CONNACK: [CONNACKS[0], CLOSE, RESET, LENGTH, *only_5],
        }
        if kind in ("handover", "fallback"):
            happenings[NO_CONNACK_ALONE] = [*CONNACKS, CLOSE, RESET, SILENCE, LENGTH, *only_5]
            happenings[BEFORE_LAST_WORDS] = happenings[AFTER_CONNACK]
        for moment, each in happenings.items():
            yield from (Case(kind, protocol, moment, what) for what in each)


def on_the_first() -> Iterator[Case]:
    for kind, protocol, moments in (
        ("handover", 4, [OPENING, SETTLING, HOLDING, DRAINING]),
        ("handover", 5, [OPENING, SETTLING, HOLDING, DRAINING]),
        ("reconnect", 4, [OPENING, ENDING]),
        ("reconnect", 5, [OPENING, ENDING]),
        ("re-authentication", 5, [OPENING, AUTHENTICATING, CONTINUING]),
    ):
        for moment in moments:
            each = [CONNACKS[0], CLOSE, RESET, LENGTH]
            each += [SILENCE] * (moment != OPENING) + [*DISCONNECTS, NAGGING, NO_AUTH] * (protocol == 5)
            each += CONNACKS[1:] * (kind == "re-authentication")
            yield from (Case(kind, protocol, moment, what) for what in each)


def cases(every: Iterator[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in every])


@cases(on_the_second())
def test_a_connection_that_fails_is_reported_and_tried_again_and_nothing_is_lost(begin: Begin, case: Case) -> None:
    play = begin(case)
    broker, client = play.broker, play.client
    accepted = case.moment in (WITH_CONNACK, AFTER_CONNACK, BEFORE_LAST_WORDS)
    first = None
    if case.rotates:
        first = play.start()
        client.rotate()
    else:
        play.give("before")
        broker.moment, broker.acknowledges = case.moment, False
        client.connect(timeout=0)
    telling = (Disconnected, ConnectFailed) if accepted else (TokenRefused, RotationFailed, ConnectFailed)
    requests = play.device.source.requests
    for number in range(ROUNDS):
        play.until(lambda: len(broker.stopped) > number)  # noqa: B023 - called within the round
        if number == ROUNDS - 1:
            play.set_deadline("CONNACK", LONG)
        play.give("during")
        broker.strike(broker.stopped[number], case.what)
        if number == ROUNDS - 1:
            broker.moment = ""
        play.until(lambda: len(play.reported(*telling)) > number, letting=False)  # noqa: B023
        if first is not None and case.spares_first:
            play.serves_on(first)
            play.give("before")
    either = case.kind == "reconnect" and case.moment == ON_ACCEPT  # as the opening itself may fail, or what follows
    attempts = ROUNDS + 1 + case.rotates
    play.end(attempts)

    refused = play.reported(TokenRefused)
    others = play.reported(*((RotationFailed,) if case.spares_first else (ConnectFailed, RotationFailed)[: 1 + either]))
    losses, rotations = play.reported(Disconnected), play.reported(Rotated)
    if accepted and not case.ambiguous:
        assert not others
        assert len(losses) == ROUNDS
        assert len(rotations) == case.rotates
    elif accepted:
        assert len(losses) + len(others) >= ROUNDS
    elif case.what == CONNACKS[0]:
        assert len(refused) == ROUNDS
        assert not others
        assert play.device.source.requests >= requests + ROUNDS
    else:
        assert len(refused) + len(others) == ROUNDS
    if not accepted:
        assert len(losses) + len(rotations) == case.rotates
        assert either or len(rotations) == case.spares_first
    if case.kind == "fallback":  # the first of them was AUTH, and further ones may be
        assert attempts < len(play.way.asked_at) <= attempts + 1 + ROUNDS
    else:
        assert len(play.way.asked_at) == attempts
    assert broker.opened == attempts
    tokens = [packet.password or packet.properties.get(AUTHENTICATION_DATA) for _, packet in broker.of(CONNECT)]
    if case.what == CONNACKS[0] and not accepted:
        assert len(set(tokens)) == len(tokens)


@cases(on_the_first())
def test_a_current_connection_that_is_lost_in_a_rotation_is_reported_and_the_new_one_gets_everything(
    begin: Begin, case: Case
) -> None:
    play = begin(case)
    broker = play.broker
    first = play.start()
    play.client.rotate()
    if case.moment == OPENING:
        play.until(lambda: play.way.waits, letting=False)
        broker.stopped.append(first)
    play.until(lambda: broker.stopped, letting=case.moment != OPENING)
    assert broker.stopped == [first]
    play.give("during")
    broker.strike(first, case.what)
    broker.moment = ""
    if case.moment == OPENING:
        play.until(lambda: play.reported(Disconnected), letting=False)
    planned = case.moment in (ENDING, DRAINING) or case.what == SILENCE or case.spares_first
    if case.spares_first:
        play.until(lambda: play.way.waits, letting=False)
        play.serves_on(first)
    if planned:
        play.until(lambda: play.reported(Rotated))
    else:
        play.until(lambda: len(play.reported(Connected)) == 2)
    play.end()

    assert len(play.reported(Rotated)) == planned
    assert len(play.reported(Disconnected)) == (not planned)
    assert not play.reported(RotationFailed, ConnectFailed)
    if case.kind == "re-authentication":
        assert len(play.way.asked_at) <= 3
    else:
        assert len(play.way.asked_at) == broker.opened == 2
        assert not play.reported(TokenRefused)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("whose", [None, *CODES])
@pytest.mark.parametrize("kind", ["connect", "handover", "reconnect"])
def test_connack_that_comes_a_byte_at_a_time_is_read_as_any_other(
    begin: Begin, kind: str, protocol: int, whose: str | None
) -> None:
    case = Case(kind, protocol, NO_CONNACK, "a byte at a time")
    play = begin(case)
    broker = play.broker
    if case.rotates:
        play.start()
        play.client.rotate()
    else:
        broker.moment = NO_CONNACK
        play.client.connect(timeout=0)
    play.until(lambda: broker.stopped)
    peer = broker.stopped[0]
    broker.moment = ""
    code = CODES[whose][protocol == 5] if whose else 0
    answer = packets.connack(False, code) if code else broker.welcome(peer)
    if protocol == 5:  # lengths of two bytes each: of the packet, and of its properties, a Reason String
        answer = b"\x20\xa1\x01" + answer[2:4] + b"\x9d\x01" + b"\x1f\x00\x9a" + 154 * b"x"
    for byte in answer:
        peer.send(bytes((byte,)))
        broker.until_read(bytes((byte,)))
    failed = RotationFailed if kind == "handover" else ConnectFailed
    expected = {None: Rotated if case.rotates else Connected, "token": TokenRefused}.get(whose, failed)
    play.until(lambda: play.reported(expected))
    connections = 1 + case.rotates + bool(code)
    play.end(connections)
    assert broker.opened == connections
