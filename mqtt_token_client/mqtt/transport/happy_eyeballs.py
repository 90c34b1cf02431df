"""A TCP connection to whichever of a host's addresses answers first (RFC 8305, "Happy Eyeballs")."""

from __future__ import annotations

import os
import selectors
import socket
from collections import deque
from itertools import chain, zip_longest
from typing import Any, NamedTuple, cast

from ...clock import monotonic

_HEAD_START = 0.25  # seconds that an address has before the next one is tried too (section 5)
_AVOIDED = 600.0  # seconds in which an address that accepted TCP and nothing after it comes after the others

_avoided_until: dict[Any, float] = {}  # by host and port


class _Destination(NamedTuple):
    family: int
    address: tuple[Any, ...]


def connect(host: str, port: int, timeout: float) -> tuple[socket.socket, float]:
    """A connected socket that does not block, and when ``timeout`` is over, by
    :func:`~mqtt_token_client.clock.monotonic`.

    Args:
        host: a name or an address. A name is resolved first, which takes the time that the resolver allows itself.
        port: the TCP port.
        timeout: seconds to connect within, and to do what follows; they begin after that.

    Raises:
        OSError: the name is unknown, or no address answered in time; then it is the error of the last one to fail.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    now = monotonic()
    mixed = interleave([_Destination(family, address) for family, _, _, _, address in found])
    waiting = deque(sorted(mixed, key=lambda one: max(now, _avoided_until.get(one.address[:2], now))))
    deadline = now + timeout
    next_start = now
    problem: OSError = TimeoutError("timed out")
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                if monotonic() >= deadline:
                    raise TimeoutError("timed out")
                if waiting and monotonic() >= next_start:
                    try:
                        selector.register(_start(waiting.popleft()), selectors.EVENT_WRITE)
                    except OSError as error:  # such as no IPv6 on this machine
                        problem = error
                        continue
                    next_start = monotonic() + _HEAD_START
                until = min(deadline, next_start) if waiting else deadline
                for key, _ in selector.select(max(0.0, until - monotonic())):
                    sock = cast("socket.socket", key.fileobj)
                    selector.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return sock, deadline
                    sock.close()
                    problem = OSError(code, os.strerror(code))
                    next_start = monotonic()
            raise problem
        finally:
            for key in list(selector.get_map().values()):
                cast("socket.socket", key.fileobj).close()


def peer(sock: socket.socket) -> Any:
    """The address that a socket is connected to, for :func:`avoid`; None if it is not any more."""
    try:
        return sock.getpeername()[:2]
    except OSError:
        return None


def avoid(address: Any) -> None:
    """Try an address after the others for a while: it accepted TCP and then came to nothing, as where large packets are
    lost on the way to it. Any thread may call this.
    """
    now = monotonic()
    for old in [one for one, until in _avoided_until.copy().items() if until < now]:
        _avoided_until.pop(old, None)
    _avoided_until[address] = now + _AVOIDED


def interleave(destinations: list[_Destination]) -> list[_Destination]:
    """Take turns between the families, each in the resolver's order, beginning with that of the first (section 4)."""
    families: dict[int, list[_Destination]] = {}
    for destination in destinations:
        families.setdefault(destination.family, []).append(destination)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


def _start(destination: _Destination) -> socket.socket:
    sock = socket.socket(destination.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(destination.address)
    except BlockingIOError:
        pass
    except BaseException:
        sock.close()
        raise
    return sock
