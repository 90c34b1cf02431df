"""The options of a TCP connection to the broker."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

# Seconds: TCP repeats what a bad radio link loses for a while, and Linux allows no more.
_SHORTEST_KEEPALIVE, _LONGEST_KEEPALIVE = 15, 32_767


def set_options(sock: socket.socket, keepalive: int) -> None:
    """Send small packets at once, and give up a connection whose other end has gone without a FIN or RST.

    Args:
        sock: a TCP socket.
        keepalive: in about so many seconds; 0 leaves the operating system's default.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not keepalive:
        return
    seconds = min(max(keepalive, _SHORTEST_KEEPALIVE), _LONGEST_KEEPALIVE)
    for name, value in (
        ("TCP_KEEPIDLE", seconds),
        ("TCP_KEEPINTVL", seconds // 3),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", seconds * 1000),  # until what was sent is acknowledged (RFC 5482)
    ):
        if hasattr(socket, name):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def acknowledger(sock: socket.socket) -> Callable[[], None] | None:
    """What has TCP acknowledge at once all that has been read, where it can.

    TCP delays an acknowledgement by up to 40 ms, hoping to send it along with an answer, and a broker that sets no
    TCP_NODELAY holds its next small packet back until then (RFC 896). Linux forgets the option again and again, so it
    is set after each read that is not answered. That takes two to three microseconds.
    """
    if not hasattr(socket, "TCP_QUICKACK"):
        return None
    acknowledge = partial(sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    try:
        acknowledge()
    except OSError:  # not TCP
        return None
    return acknowledge
