"""MQTT over a WebSocket, against a server that is played frame by frame over real sockets."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnreachable,
    ConfigurationError,
    MqttTokenError,
    ProtocolError,
)
from mqtt_token_client.mqtt.codec.reason_codes import Action
from mqtt_token_client.mqtt.transport.address import parse_broker
from mqtt_token_client.mqtt.transport.websocket import WebSocket, websocket_close
from mqtt_token_client.mqtt.transport.websocket_upgrade import upgrade, upgrade_action
from tests.unit.websocket_server import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WebSocketPeer,
    close_frame,
    frame,
)

NAME = "wss://b.example:443/mqtt"
SECRET = {"Authorization": "Bearer a-secret"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"


class Ends:
    """Both ends of a connection whose client asks for the upgrade on a thread of its own."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        theirs.settimeout(20)
        self.peer = WebSocketPeer(theirs)
        self._executor = ThreadPoolExecutor()

    def ask(self, headers: dict[str, str] | None = None, seconds: float = 20) -> Future[WebSocket]:
        deadline = monotonic() + seconds
        return self._executor.submit(upgrade, self.ours, "b.example", "/mqtt", headers or {}, deadline, NAME)

    def open(self, *more: bytes) -> WebSocket:
        asked = self.ask()
        self.peer.accept(*more)
        return asked.result(20)

    def close(self) -> None:
        self.ours.close()
        self.peer.close()
        self._executor.shutdown()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def refusal(asked: Future[WebSocket]) -> MqttTokenError:
    """The error of an upgrade, in which no secret is shown."""
    error = asked.exception(20)
    assert isinstance(error, MqttTokenError)
    assert "secret" not in "".join(traceback.format_exception(error))
    assert error.__context__ is None
    return error


def received(websocket: WebSocket, count: int = 1) -> bytes:
    """What comes next, so many bytes at least, or the end."""
    data = b""
    while len(data) < count:
        try:
            piece = websocket.recv(65_536)
        except BlockingIOError:
            assert select.select([websocket], [], [], 20)[0], "nothing comes"
            continue
        data += piece
        if not piece:
            break
    return data


def sent(websocket: WebSocket, data: bytes) -> None:
    while data:
        try:
            data = data[websocket.send(data) :]
        except BlockingIOError:
            assert select.select([], [websocket], [], 20)[1], "it takes nothing"


def filled(websocket: WebSocket, data: bytes, piece: int) -> int:
    """Send until it would block; how much it took."""
    taken = 0
    try:
        while True:
            taken += websocket.send(data[taken : taken + piece])
    except BlockingIOError:
        return taken


class TestUpgrade:
    def test_asks_for_mqtt_with_the_headers_and_offers_no_extension(self, ends: Ends) -> None:
        asked = ends.ask(SECRET)
        ends.peer.accept()
        assert isinstance(asked.result(20), WebSocket)
        assert ends.peer.request == "GET /mqtt HTTP/1.1"
        headers = ends.peer.headers
        assert len(headers.pop("sec-websocket-key")) == 24
        assert headers.pop("upgrade").lower() == "websocket"
        assert headers == {
            "host": "b.example",
            "connection": "Upgrade",
            "sec-websocket-version": "13",
            "sec-websocket-protocol": "mqtt",
            "authorization": "Bearer a-secret",
        }

    def test_leaves_a_socket_that_does_not_block(self, ends: Ends) -> None:
        websocket = ends.open()
        with pytest.raises(BlockingIOError):
            websocket.recv(1)
        assert websocket.fileno() == ends.ours.fileno()

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_with_a_token_in_the_headers_is_the_tokens_fault(self, ends: Ends, status: int) -> None:
        asked = ends.ask(SECRET)
        ends.peer.refuse(status, "X-Echo: Bearer a-secret")
        error = refusal(asked)
        assert isinstance(error, BrokerRefused)
        assert (error.reason, error.permanent) == (0x87, False)
        assert str(error) == f"{NAME}: the WebSocket upgrade was answered with HTTP {status}"

    @pytest.mark.parametrize(
        ("status", "says"),
        [
            (401, "; it expects the token there: use a profile that puts it into a header"),
            (403, "; it expects the token there: use a profile that puts it into a header"),
            (404, "; check the URL's path: many brokers have /mqtt"),
            (400, "; check the URL's path: many brokers have /mqtt"),
            (200, "; check the URL's path: many brokers have /mqtt"),
            (302, ", a redirect, which is not followed; set broker to the URL that it leads to"),
        ],
    )
    def test_rejected_otherwise_is_for_a_person_to_fix(self, ends: Ends, status: int, says: str) -> None:
        asked = ends.ask()
        ends.peer.refuse(status, "Location: wss://other.example/?a-secret")
        error = refusal(asked)
        assert isinstance(error, ConfigurationError)
        assert str(error) == f"{NAME}: the WebSocket upgrade was answered with HTTP {status}{says}"

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_put_off_is_the_brokers_trouble(self, ends: Ends, status: int) -> None:
        asked = ends.ask(SECRET)
        ends.peer.refuse(status)
        error = refusal(asked)
        assert isinstance(error, BrokerUnreachable)
        assert str(error) == f"{NAME}: the WebSocket upgrade was answered with HTTP {status}"

    @pytest.mark.parametrize("whole", [True, False], ids=["at once", "in pieces"])
    def test_after_interim_answers_is_one(self, ends: Ends, whole: bool) -> None:
        """RFC 9110 section 15.2: a client must skip those that it did not ask for."""
        asked = ends.ask()
        ends.peer.read_request()
        for interim in (EARLY_HINTS + CONTINUE,) if whole else (EARLY_HINTS, CONTINUE):
            ends.peer.sock.sendall(interim)
        ends.peer.accept(frame(BINARY, b"early"))
        assert received(asked.result(20), 5) == b"early"

    def test_after_interim_answers_is_rejected_by_the_final_one(self, ends: Ends) -> None:
        asked = ends.ask(SECRET)
        ends.peer.sock.sendall(EARLY_HINTS)
        ends.peer.refuse(503)
        assert str(refusal(asked)) == f"{NAME}: the WebSocket upgrade was answered with HTTP 503"

    def test_with_interim_answers_that_do_not_end_is_none(self, ends: Ends) -> None:
        asked = ends.ask(SECRET)
        ends.peer.read_request()
        ends.peer.sock.sendall(EARLY_HINTS * 25)
        assert isinstance(refusal(asked), ProtocolError)

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("lines", "seconds"),
        [
            ([], None),
            (["retry-after: 7"], 7),
            (["Retry-After: 1e9"], 3600),
            (["Retry-After: soon"], None),
            (["Retry-After: \xff"], None),
            (["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT"], 30),
        ],
    )
    def test_put_off_for_a_time_says_for_how_long(
        self, ends: Ends, status: int, lines: list[str], seconds: float | None
    ) -> None:
        """RFC 9110 section 10.2.3; a date counts on the server's own clock."""
        asked = ends.ask()
        ends.peer.refuse(status, *lines)
        error = refusal(asked)
        assert isinstance(error, BrokerUnreachable)
        assert error.retry_after == pytest.approx(seconds, abs=5)

    def test_to_something_that_does_not_confirm_mqtt_is_for_a_person_to_fix(self, ends: Ends) -> None:
        asked = ends.ask()
        ends.peer.accept(subprotocol=None)
        error = refusal(asked)
        assert isinstance(error, ConfigurationError)
        assert str(error) == f"{NAME}: the WebSocket there does not speak MQTT; check the URL's path"

    @pytest.mark.parametrize(
        "answer",
        [
            {"key": "another key"},
            {"subprotocol": "stomp"},
            {"extra": "Sec-WebSocket-Extensions: permessage-deflate\r\n"},
        ],
        ids=["accept key", "subprotocol", "extension"],
    )
    def test_answered_for_something_else_is_none(self, ends: Ends, answer: dict[str, str]) -> None:
        asked = ends.ask(SECRET)
        ends.peer.accept(**answer)
        assert isinstance(refusal(asked), ProtocolError)

    @pytest.mark.parametrize("garbage", [b"\x20\x02\x00\x00", b"a-secret\r\n\r\n", b"x" * 100_000])
    def test_answered_by_no_http_is_none(self, ends: Ends, garbage: bytes) -> None:
        asked = ends.ask(SECRET)
        ends.peer.read_request()
        ends.peer.sock.sendall(garbage)
        ends.peer.close()
        error = refusal(asked)
        assert isinstance(error, BrokerUnreachable | ProtocolError)

    def test_in_small_pieces_is_one(self, ends: Ends) -> None:
        class Crumbs:
            """Sends byte by byte."""

            def __init__(self, sock: socket.socket) -> None:
                self._sock = sock

            def sendall(self, data: bytes) -> None:
                for byte in data:
                    self._sock.sendall(bytes((byte,)))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._sock, name)

        ends.peer.sock = Crumbs(ends.peer.sock)  # type: ignore[assignment]  # as far as it is used
        assert received(ends.open(frame(BINARY, b"early")), 5) == b"early"

    def test_that_is_not_answered_ends_in_time(self, ends: Ends) -> None:
        asked = ends.ask(seconds=0.1)
        assert isinstance(asked.exception(20), TimeoutError)

    def test_that_is_closed_instead_is_the_brokers_trouble(self, ends: Ends) -> None:
        asked = ends.ask()
        ends.peer.read_request()
        ends.peer.close()
        error = refusal(asked)
        assert isinstance(error, BrokerUnreachable)
        says = "the connection was closed without an answer to the WebSocket upgrade; perhaps this port does not speak "
        assert str(error) == f"{NAME}: {says}WebSocket, or speaks it over TLS (wss://)"

    @pytest.mark.parametrize(
        "headers", [{"Authorization": "a-secret\r\nX: y"}, {"Authorization": "a-secret ü"}, {"a secret": "x"}]
    )
    def test_with_a_header_that_http_does_not_allow_is_not_sent(self, ends: Ends, headers: dict[str, str]) -> None:
        error = refusal(ends.ask(headers))
        assert isinstance(error, ConfigurationError)
        assert str(error) == "profile: a header for the WebSocket upgrade is not valid in HTTP (RFC 9110 section 5)"


def test_it_is_connected_to_the_address_of_its_socket(ends: Ends) -> None:
    assert ends.open().getpeername() == ends.ours.getpeername()


class TestSending:
    @pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 200_000])
    def test_is_one_masked_binary_frame_of_any_length(self, ends: Ends, size: int) -> None:
        websocket = ends.open()
        data = os.urandom(size)
        with ThreadPoolExecutor() as executor:
            arrived = executor.submit(ends.peer.next)
            sent(websocket, data)
            assert arrived.result(20) == (BINARY, data)

    def test_tells_to_the_byte_how_much_of_the_data_the_system_has(self, ends: Ends) -> None:
        websocket = ends.open()
        ends.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        data = os.urandom(3_000_000)
        counted = filled(websocket, data, 500_000)
        ends.ours.shutdown(socket.SHUT_WR)
        arrived = b"".join(iter(lambda: ends.peer.sock.recv(65_536), b""))
        whole, began = divmod(len(arrived), 500_000 + 14)  # 2 bytes, 8 of the length, 4 of the key
        assert 0 < counted < len(data)
        assert counted == whole * 500_000 + max(0, began - 14)

    def test_goes_on_after_a_pause_where_it_stopped(self, ends: Ends) -> None:
        websocket = ends.open()
        data = os.urandom(3_000_000)
        with ThreadPoolExecutor() as executor:
            sending = executor.submit(sent, websocket, data)
            arrived = b""
            while len(arrived) < len(data):
                arrived += ends.peer.recv(65_536)
            sending.result(20)
        assert arrived == data

    def test_after_the_broker_closed_says_why(self, ends: Ends) -> None:
        websocket = ends.open(close_frame(1001))
        with pytest.raises(BrokenPipeError) as raised:
            websocket.send(b"late")
        assert (raised.value.errno, raised.value.strerror) == (
            errno.EPIPE,
            "the broker closed the WebSocket: 1001 Going Away",
        )


class TestClosing:
    """By the client (RFC 6455 section 7.1.2)."""

    def test_sends_close_and_goes_on_reading_until_it_is_answered(self, ends: Ends) -> None:
        websocket = ends.open()
        websocket.send(b"last")
        websocket.shutdown(socket.SHUT_WR)
        assert ends.peer.next() == (BINARY, b"last")
        assert ends.peer.next() == (CLOSE, (1000).to_bytes(2))
        ends.peer.sock.sendall(frame(PING, b"late") + frame(BINARY, b"under way") + close_frame(1000))
        assert received(websocket, 9) == b"under way"
        with pytest.raises(BrokerError, match=r"^the WebSocket is closed$"):
            websocket.recv(1)
        ends.ours.shutdown(socket.SHUT_WR)
        assert ends.peer.next() is None

    def test_twice_sends_close_once(self, ends: Ends) -> None:
        """As where a client disconnects while a rotation ends the connection."""
        websocket = ends.open()
        websocket.shutdown(socket.SHUT_WR)
        websocket.shutdown(socket.SHUT_WR)
        ends.ours.shutdown(socket.SHUT_WR)
        assert [ends.peer.next(), ends.peer.next()] == [(CLOSE, (1000).to_bytes(2)), None]

    def test_after_the_broker_closed_sends_nothing_more(self, ends: Ends) -> None:
        websocket = ends.open(close_frame(1001))
        websocket.shutdown(socket.SHUT_WR)
        ends.ours.shutdown(socket.SHUT_WR)
        assert [ends.peer.next(), ends.peer.next()] == [(CLOSE, (1001).to_bytes(2)), None]


class TestReceiving:
    def test_frames_are_passed_on_as_a_stream_whatever_their_limits(self, ends: Ends) -> None:
        websocket = ends.open()
        ends.peer.sock.sendall(
            frame(BINARY, b"ab", fin=False)
            + frame(CONTINUATION, b"", fin=False)
            + frame(CONTINUATION, b"c")
            + frame(BINARY)
            + frame(BINARY, b"d")
        )
        assert received(websocket, 4) == b"abcd"

    def test_a_frame_is_passed_on_as_far_as_it_has_come(self, ends: Ends) -> None:
        websocket = ends.open()
        ends.peer.sock.sendall(frame(BINARY, b"x" * 100_000)[:1010])
        assert received(websocket, 1000) == b"x" * 1000

    def test_what_came_with_the_answer_to_the_upgrade_is_not_lost(self, ends: Ends) -> None:
        assert ends.open(frame(BINARY, b"early")).recv(3) == b"ear"

    def test_a_ping_is_answered_within_a_message_and_while_nothing_is_sent(self, ends: Ends) -> None:
        websocket = ends.open()
        ends.peer.sock.sendall(frame(BINARY, b"a", fin=False) + frame(PING, b"beat") + frame(CONTINUATION, b"b"))
        assert received(websocket, 2) == b"ab"
        assert ends.peer.next() == (PONG, b"beat")

    def test_a_ping_that_comes_within_a_frame_of_ours_is_answered_after_it(self, ends: Ends) -> None:
        websocket = ends.open()
        data = os.urandom(3_000_000)
        taken = filled(websocket, data, len(data))
        ends.peer.sock.sendall(frame(PING, b"first") + frame(PING, b"second") + frame(BINARY, b"x"))
        assert received(websocket) == b"x"
        with ThreadPoolExecutor() as executor:
            sending = executor.submit(sent, websocket, data[taken:] + b"the end")
            frames = [ends.peer.next(), ends.peer.next(), ends.peer.next()]
            sending.result(20)
        assert frames == [(BINARY, data), (PONG, b"second"), (BINARY, b"the end")]

    def test_a_pong_that_nobody_asked_for_is_passed_over(self, ends: Ends) -> None:
        assert received(ends.open(frame(PONG, b"?") + frame(BINARY, b"x"))) == b"x"

    @pytest.mark.parametrize(
        ("closing", "says"),
        [
            (close_frame(1000), "the broker closed the WebSocket: 1000 Normal Closure"),
            (close_frame(1011, b"no disk"), r"the broker closed the WebSocket: 1011 Internal Error \(no disk\)"),
            (close_frame(4001), "the broker closed the WebSocket: 4001"),
            (close_frame(4001, b"gone"), r"the broker closed the WebSocket: 4001 \(gone\)"),
            (frame(0x8), "the broker closed the WebSocket: 1005 No Status Rcvd"),  # RFC 6455 section 7.1.5
        ],
    )
    def test_the_close_code_is_reported_after_what_came_before_and_is_answered(
        self, ends: Ends, closing: bytes, says: str
    ) -> None:
        websocket = ends.open()
        ends.peer.sock.sendall(frame(BINARY, b"last") + closing + frame(BINARY, b"too late"))
        assert received(websocket, 4) == b"last"
        for _ in range(2):
            with pytest.raises(BrokerError, match=f"^{says}$") as raised:
                websocket.recv(1)
            assert not isinstance(raised.value, BrokerRefused)
        answer = ends.peer.next()
        assert answer is not None
        assert (answer[0], answer[1][:2]) == (0x8, closing[2:4])

    @pytest.mark.parametrize(
        ("code", "name"), [(1008, "Policy Violation"), (3000, "Unauthorized"), (3003, "Forbidden")]
    )
    def test_a_close_for_the_tokens_sake_is_a_refusal(self, ends: Ends, code: int, name: str) -> None:
        websocket = ends.open()
        ends.peer.sock.sendall(close_frame(code, b"expired"))
        says = rf"^the broker closed the WebSocket: {code} {name} \(expired\)$"
        with pytest.raises(BrokerRefused, match=says) as raised:
            received(websocket)
        assert (raised.value.reason, raised.value.permanent) == (0x87, False)

    def test_an_end_without_a_word_is_one_as_of_any_socket(self, ends: Ends) -> None:
        websocket = ends.open()
        ends.peer.sock.sendall(frame(BINARY, b"last"))
        ends.peer.close()
        assert received(websocket, 4) == b"last"
        assert received(websocket) == b""

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (frame(TEXT, b"hello") + frame(BINARY, b"late"), "the broker sent a text frame over the WebSocket"),
            (frame(CONTINUATION, b"x"), "the broker broke the WebSocket protocol: "),
            (b"\x82\x81\0\0\0\0x", "the broker broke the WebSocket protocol: .* masked"),
            (b"\xc2\x01x", "the broker broke the WebSocket protocol: "),
            (b"\x83\x01x", "the broker broke the WebSocket protocol: "),
        ],
        ids=["text", "continuation", "masked", "reserved bit", "reserved opcode"],
    )
    def test_anything_but_mqtt_ends_it(self, ends: Ends, data: bytes, says: str) -> None:
        websocket = ends.open()
        ends.peer.sock.sendall(data)
        with pytest.raises(BrokerError, match=f"^{says}"):
            received(websocket)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsproto", None)
    says = r"^broker: ws:// and wss:// need the extra: pip install 'mqtt-token-client\[websocket\]'$"
    with pytest.raises(ConfigurationError, match=says):
        parse_broker("wss://b.example/mqtt")
    assert parse_broker("mqtts://b.example").path is None


@pytest.mark.parametrize(
    ("code", "name", "action"),
    [  # RFC 6455 section 7.4.1 and the IANA registry
        (1000, "Normal Closure", Action.RETRY),  # EMQX, when the token expires: what matters is how near that is
        (1001, "Going Away", Action.RETRY),
        (1002, "Protocol error", Action.RETRY),
        (1003, "Unsupported Data", Action.RETRY),
        (1005, "No Status Rcvd", Action.RETRY),
        (1007, "Invalid frame payload data", Action.RETRY),
        (1008, "Policy Violation", Action.NEW_TOKEN),
        (1009, "Message Too Big", Action.RETRY),
        (1011, "Internal Error", Action.RETRY),
        (1012, "Service Restart", Action.RETRY),
        (1013, "Try Again Later", Action.RETRY),
        (1014, "Bad Gateway", Action.RETRY),
        (3000, "Unauthorized", Action.NEW_TOKEN),
        (3003, "Forbidden", Action.NEW_TOKEN),
        (3008, "Timeout", Action.RETRY),
        (4001, "", Action.RETRY),  # of an application
    ],
)
def test_the_name_of_a_close_code_and_what_to_do_about_it(code: int, name: str, action: Action) -> None:
    assert websocket_close(code) == (name, action)


@pytest.mark.parametrize(
    ("action", "statuses"),
    [
        (Action.NEW_TOKEN, [401, 403]),
        (Action.RETRY, [408, 425, 429, 500, 502, 503, 504, 599]),
        (Action.GIVE_UP, [200, 204, 301, 302, 400, 404, 405, 407, 426]),
    ],
)
def test_what_to_do_about_a_rejected_upgrade(action: Action, statuses: list[int]) -> None:
    assert {upgrade_action(status) for status in statuses} == {action}
