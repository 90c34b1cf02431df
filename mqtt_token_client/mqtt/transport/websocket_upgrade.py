"""The upgrade of a connection to a WebSocket: its opening handshake (RFC 6455 section 4)."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from itertools import islice

import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Event, RejectConnection, Request
from wsproto.utilities import RemoteProtocolError

from ...clock import ServerClock, monotonic, seconds_to_wait
from ...errors import BrokerRefused, BrokerUnreachable, ConfigurationError, ProtocolError
from ..codec.reason_codes import NOT_AUTHORIZED, Action
from .websocket import WebSocket

_PIECE = 65_536
_MOST_INTERIM = 20  # answers before the final one
_MALFORMED = "malformed"
_OTHER_PORT = "; perhaps this port does not speak WebSocket, or speaks it over TLS (wss://)"


def upgrade(
    sock: socket.socket, host: str, path: str, headers: Mapping[str, str], deadline: float, name: str
) -> WebSocket:
    """The WebSocket over a connection, after its opening handshake. It blocks, until ``deadline`` at most.

    Args:
        host: the Host header.
        headers: they carry the token, if there are any.
        deadline: by :func:`~mqtt_token_client.clock.monotonic`.
        name: the broker's URL, for errors.

    Raises:
        BrokerRefused: the token was rejected (HTTP 401 or 403), with the reason code of MQTT for that.
        BrokerUnreachable: no answer, or one that asks for a retry (HTTP 408, 429 and 5xx).
        ConfigurationError: any other answer: MQTT is not at this URL.
        ProtocolError: the answer is malformed.
        OSError: the connection broke.
    """
    protocol = WSConnection(ConnectionType.CLIENT)
    request = _request(protocol, host, path, headers)
    if request is None:
        raise ConfigurationError(
            "profile: a header for the WebSocket upgrade is not valid in HTTP (RFC 9110 section 5)"
        )
    sock.settimeout(max(0.001, deadline - monotonic()))
    sock.sendall(request)
    answers = islice(_answers(sock, protocol, deadline), _MOST_INTERIM + 1)
    answer = next((answer for answer in answers if not _is_interim(answer)), _MALFORMED)
    if answer is None:
        problem = "the connection was closed without an answer to the WebSocket upgrade"
        raise BrokerUnreachable(f"{name}: {problem}{_OTHER_PORT}")
    if isinstance(answer, RejectConnection):
        raise _refusal(answer, name, token_sent=bool(headers))
    if not isinstance(answer, AcceptConnection):
        problem = "the answer to the WebSocket upgrade is not valid (RFC 6455 section 4.2.2)"
        raise ProtocolError(f"{name}: {problem}{_OTHER_PORT}")
    if answer.subprotocol != "mqtt":
        raise ConfigurationError(f"{name}: the WebSocket there does not speak MQTT; check the URL's path")
    sock.setblocking(False)
    return WebSocket(sock, protocol)


# Errors of h11 quote the offending text, which may be a secret: ours are raised outside of any "except", so that h11's
# are not their context.


def _request(protocol: WSConnection, host: str, path: str, headers: Mapping[str, str]) -> bytes | None:
    try:
        extra = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        return protocol.send(Request(host=host, target=path, subprotocols=["mqtt"], extra_headers=extra))
    except (h11.LocalProtocolError, UnicodeError):
        return None


def _answers(sock: socket.socket, protocol: WSConnection, deadline: float) -> Iterator[Event | str | None]:
    """The answers as they arrive: a text for what is not valid HTTP, or not an answer to this request; None at the end
    of the connection.
    """
    while True:
        sock.settimeout(max(0.001, deadline - monotonic()))
        try:
            data = sock.recv(_PIECE)
        except ConnectionResetError:
            data = b""
        if not data:
            yield None
        elif not _receive(protocol, data):
            yield _MALFORMED
        yield from protocol.handshake.events()  # wsproto keeps the frames that follow for its own events()


def _receive(protocol: WSConnection, data: bytes) -> bool:
    try:
        protocol.receive_data(data)
    except (RemoteProtocolError, UnicodeError):
        return False
    return True


def _is_interim(answer: Event | str | None) -> bool:
    """Whether the final answer follows (RFC 9110 section 15.2), as after 103 (Early Hints) of a proxy."""
    return isinstance(answer, RejectConnection) and answer.status_code < 200


def _refusal(answer: RejectConnection, name: str, *, token_sent: bool) -> Exception:
    status = answer.status_code
    text = f"{name}: the WebSocket upgrade was answered with HTTP {status}"
    action = upgrade_action(status)
    if action is Action.NEW_TOKEN:
        if token_sent:
            return BrokerRefused(text, reason=NOT_AUTHORIZED)
        return ConfigurationError(f"{text}; it expects the token there: use a profile that puts it into a header")
    if action is Action.RETRY:
        return BrokerUnreachable(text, retry_after=_retry_after(answer))
    if 300 <= status < 400:
        return ConfigurationError(f"{text}, a redirect, which is not followed; set broker to the URL that it leads to")
    return ConfigurationError(f"{text}; check the URL's path: many brokers have /mqtt")


def _retry_after(answer: RejectConnection) -> float | None:
    headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
    clock = ServerClock()
    clock.learn(headers.get(b"date"))
    return seconds_to_wait(headers.get(b"retry-after"), clock)


def upgrade_action(status: int) -> Action:
    """What to do about this HTTP status in answer to the upgrade to a WebSocket (RFC 9110 section 15; RFC 6585
    section 4 for 429). Any status but 401, 403 and those that ask for a retry comes from something other than a broker.
    """
    if status in (401, 403):
        return Action.NEW_TOKEN
    return Action.RETRY if status >= 500 or status in (408, 425, 429) else Action.GIVE_UP
