"""One of a host's addresses answers, the others do not: over real sockets of both families, with a resolver's stub."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devtools.servers.processes import free_port
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.transport import happy_eyeballs
from mqtt_token_client.mqtt.transport.happy_eyeballs import _Destination, avoid, connect, interleave, peer

V4, V6 = "127.0.0.1", "::1"


class Host:
    """What listens at the addresses of one host, all on one port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._sockets: list[socket.socket] = []

    def listen(self, address: str, backlog: int = 10) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family)
        self._sockets.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((address, self.port))
        except OSError:
            pytest.skip(f"this machine does not have {address}")
        listener.listen(backlog)
        return listener

    def be_silent(self, address: str) -> None:
        """Have an address answer nobody: its queue of connections is full."""
        listener = self.listen(address, backlog=0)
        for _ in range(10):
            client = socket.socket(listener.family)
            self._sockets.append(client)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
            if not select.select([], [client], [], 0.02)[1]:  # over loopback it takes no time
                return
        pytest.skip("the queue of this operating system does not fill")

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``resolve(V6, V4)``: every name has these addresses, in this order."""

    def to(*addresses: str) -> None:
        def getaddrinfo(_host: str, port: int, **_options: Any) -> list[Any]:
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return to


def reached(host: Host, timeout: float = 30) -> str:
    """The address that was connected to."""
    sock, _ = connect("broker.test", host.port, timeout)
    with sock:
        assert sock.gettimeout() == 0
        return str(sock.getpeername()[0])


def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address is tried because the one before has had its head start."""
    monkeypatch.setattr(happy_eyeballs, "_HEAD_START", 1000.0)


@pytest.mark.parametrize(("dead", "alive"), [(V6, V4), (V4, V6), ("127.0.0.2", "127.0.0.3")])
def test_an_address_that_does_not_answer_costs_no_more_than_its_head_start(
    host: Host, resolve: Callable[..., None], dead: str, alive: str
) -> None:
    host.be_silent(dead)
    host.listen(alive)
    resolve(dead, alive)
    began = monotonic()
    assert reached(host) == alive
    assert 0.24 < monotonic() - began < 10


@pytest.mark.parametrize("order", [(V6, V4), (V4, V6)])
def test_where_all_answer_the_resolvers_first_is_taken(
    host: Host, resolve: Callable[..., None], order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    never(monkeypatch)
    for address in order:
        host.listen(address)
    resolve(*order)
    assert reached(host) == order[0]


def test_after_a_refusal_the_next_is_tried_at_once(
    host: Host, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    never(monkeypatch)
    host.listen("127.0.0.4")
    resolve("127.0.0.2", "127.0.0.3", "127.0.0.4")
    assert reached(host) == "127.0.0.4"


def test_an_address_that_this_machine_has_no_way_to_is_passed_over(
    host: Host, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    never(monkeypatch)
    host.listen(V4)
    resolve("255.255.255.255", V4)  # no TCP goes there
    assert reached(host) == V4


def test_many_silent_addresses_of_one_family_do_not_keep_the_other_waiting(
    host: Host, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [f"127.0.0.{number}" for number in range(2, 7)]
    for address in silent:
        host.be_silent(address)
    host.listen(V6)
    resolve(*silent, V6)
    monkeypatch.setattr(happy_eyeballs, "_HEAD_START", 0.2)
    assert reached(host, timeout=1.1) == V6  # of seven addresses it is the second


@pytest.mark.parametrize("order", [(V6, V4), (V4, V6), ("127.0.0.2", "127.0.0.3")])
def test_one_that_failed_after_tcp_comes_last_for_some_minutes(
    host: Host, resolve: Callable[..., None], order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    never(monkeypatch)
    for address in order:
        host.listen(address)
    resolve(*order)
    sock, _ = connect("broker.test", host.port, 30)
    avoid(peer(sock))
    sock.close()
    assert [reached(host), reached(host)] == [order[1], order[1]]
    now = monotonic()
    monkeypatch.setattr(happy_eyeballs, "monotonic", lambda: now + 3600.0)
    assert reached(host) == order[0]


def test_where_all_failed_after_tcp_they_take_turns(
    host: Host, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    never(monkeypatch)
    addresses = [f"127.0.0.{number}" for number in range(2, 5)]
    for address in addresses:
        host.listen(address)
    resolve(*addresses)
    found = []
    for _ in range(6):
        sock, _ = connect("broker.test", host.port, 30)
        found.append(sock.getpeername()[0])
        avoid(peer(sock))
        sock.close()
    assert found == addresses * 2


def test_a_socket_that_is_connected_to_nothing_is_no_reason_to_avoid_anything() -> None:
    with socket.socket() as sock:
        avoid(peer(sock))


def test_where_none_answers_it_ends_in_time(host: Host, resolve: Callable[..., None]) -> None:
    host.be_silent(V4)
    resolve(V4)
    with pytest.raises(TimeoutError, match=r"^timed out$"):
        connect("broker.test", host.port, 0.3)


def test_where_all_refuse_that_is_reported(host: Host, resolve: Callable[..., None]) -> None:
    resolve("127.0.0.2", "127.0.0.3")
    with pytest.raises(ConnectionRefusedError) as raised:
        connect("broker.test", host.port, 30)
    assert (raised.value.errno, raised.value.strerror) == (errno.ECONNREFUSED, "Connection refused")


def test_an_unknown_name_is_reported() -> None:
    with pytest.raises(socket.gaierror):
        connect("no-such-host.invalid", 1883, 30)


@pytest.mark.parametrize(
    ("families", "order"), [("664", "646"), ("4446", "4644"), ("44", "44"), ("6", "6"), ("6464", "6464"), ("", "")]
)
def test_families_take_turns_and_keep_their_order(families: str, order: str) -> None:
    found = [_Destination(int(family), (number,)) for number, family in enumerate(families)]
    mixed = interleave(found)
    assert "".join(str(one.family) for one in mixed) == order
    for family in (4, 6):
        assert [one for one in mixed if one.family == family] == [one for one in found if one.family == family]
