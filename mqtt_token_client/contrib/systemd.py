"""Reports a client's state to systemd by the protocol of sd_notify(3): a datagram to the socket in ``NOTIFY_SOCKET``.

    with TokenClient.from_config("/etc/pump.toml") as client, notify_systemd(client):
        ...

The service is ready when the broker has accepted the first connection. The watchdog (``WatchdogSec=``) is fed
while the network thread runs and a token is valid or being renewed; otherwise systemd restarts the service.
``mqtt-token service`` writes the unit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from ..description import describe
from ..events import Connected, Disconnected, Event

if TYPE_CHECKING:
    from ..core import ClientCore

_LONGEST_STATUS = 200  # characters


class Client(Protocol):
    """A TokenClient or an AsyncTokenClient."""

    _core: ClientCore


@contextlib.contextmanager
def notify_systemd(client: Client) -> Iterator[None]:
    """Report a client's state to systemd until the block ends; do nothing in a process that systemd did not start.

    Args:
        client: connected by now, or later.
    """
    address, core = os.environ.get("NOTIFY_SOCKET", ""), client._core  # noqa: SLF001 - of this library
    if not address:
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        service = _Service(sock, core)
        core.listeners.append(service.on_event)
        service.begin()
        try:
            yield
        finally:
            service.end()


class _Service:
    def __init__(self, sock: socket.socket, core: ClientCore) -> None:
        self._sock = sock
        self._core = core
        self._interval = _watchdog_interval()
        self._watched: object = None  # the runtime that has the timer
        self._ended = False

    def begin(self) -> None:
        if self._core.connected:
            self._send("READY=1")
        self._watch()

    def end(self) -> None:
        self._ended = True
        self._send("STOPPING=1")

    def on_event(self, event: Event) -> None:
        if self._ended:
            return
        state = ["READY=1"] if isinstance(event, Connected) else []
        if isinstance(event, Connected | Disconnected) or event.log_level > logging.INFO:
            text = " ".join(describe(event).split())
            state.append(f"STATUS={text[:_LONGEST_STATUS]}")
        if state:
            self._send("\n".join(state))
        self._watch()

    def _watch(self) -> None:
        """Have the runtime that drives the client now report in time, unless it does already."""
        runtime = self._core.runtime
        if self._interval is None or runtime is None or runtime is self._watched:
            return
        self._watched = runtime
        interval = self._interval

        def tick() -> None:
            if self._ended:
                return
            if self._core.runtime is not runtime:
                if self._watched is runtime:  # it may run on for another client, and drive this one again later
                    self._watched = None
                return
            if self._core.provider.healthy:
                self._send("WATCHDOG=1")
            runtime.call_later(interval, tick)

        runtime.call_soon(tick)

    def _send(self, state: str) -> None:
        with contextlib.suppress(OSError):  # systemd is busy, or gone; the next report comes soon
            self._sock.send(state.encode())


def _watchdog_interval() -> float | None:
    """Seconds between two reports: half of what the unit allows (sd_watchdog_enabled(3)); None without a watchdog."""
    allowed, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000
