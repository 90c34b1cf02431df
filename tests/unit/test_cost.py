"""What a message costs, in counts that no machine changes: whoever makes it dearer is told here.

The bounds lie closely above what was counted. Figures that depend on the machine are in the benchmarks.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mqtt_token_client.mqtt.transport.open import open_transport
from tests.unit import packets
from tests.unit.device import Device, Make, both
from tests.unit.network_thread import call
from tests.unit.scripted_broker import Peer

COUNT = 1000
PAYLOAD = b"x" * 64


class CountedSocket(socket.socket):
    """Counts the system calls that are made with it."""

    calls: Counter[str]

    def send(self, *arguments: Any) -> int:
        self.calls["send"] += 1
        return super().send(*arguments)

    def recv(self, *arguments: Any) -> bytes:
        self.calls["recv"] += 1
        return super().recv(*arguments)


@pytest.fixture
def system_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    calls: Counter[str] = Counter()

    def counted(*arguments: Any, **options: Any) -> CountedSocket:
        sock = CountedSocket(fileno=open_transport(*arguments, **options).detach())
        sock.setblocking(False)
        sock.calls = calls
        return sock

    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.manager.open_transport", counted)
    return calls


@pytest.fixture
def make(make_in_real_time: Make) -> Make:
    """What the network thread calls is counted."""
    return make_in_real_time


class Calls:
    """Counts the functions that a thread calls, those of Python and those in C."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self) -> None:
        sys.setprofile(self._profile)

    def end(self) -> None:
        sys.setprofile(None)

    def _profile(self, _frame: Any, event: str, _argument: Any) -> None:
        self.count += event in ("call", "c_call")


def network(device: Device, function: Callable[[], object]) -> None:
    """Do something on the network thread."""
    loop = device.client._runtime
    assert loop is not None
    call(loop, function)


@contextlib.contextmanager
def counted(device: Device) -> Iterator[Calls]:
    """What the network thread calls; what it is to do is ready for it all at once."""
    calls, ready = Calls(), threading.Event()
    network(device, calls.begin)

    def wait() -> None:
        ready.wait(10)

    loop = device.client._runtime
    assert loop is not None
    loop.call_soon(wait)
    yield calls
    ready.set()


def publish(device: Device, qos: int) -> None:
    for _ in range(COUNT):
        device.client.publish("pump/17/temperature", PAYLOAD, qos=qos)


def acknowledge(peer: Peer, messages: list[packets.Packet]) -> None:
    peer.send(b"".join(packets.acknowledgement(packets.PUBACK, message.packet_id) for message in messages))


@both
class TestManyMessagesAtOnce:
    def test_are_sent_by_few_system_calls(self, make: Make, system_calls: Counter[str], protocol: int) -> None:
        device = make(protocol)
        peer = device.start()
        system_calls.clear()
        network(device, lambda: publish(device, 0))
        peer.expect_messages(COUNT)
        assert system_calls["send"] <= 4  # 90 bytes a message, 64 KiB at once

    def test_are_acknowledged_by_few_system_calls(self, make: Make, system_calls: Counter[str], protocol: int) -> None:
        device = make(protocol)
        peer = device.start()
        device.client.subscribe("t/#")
        peer.expect_subscribe()
        system_calls.clear()
        data = b"".join(packets.publish(protocol == 5, "t/1", PAYLOAD, 1, number + 1) for number in range(COUNT))
        network(device, lambda: peer.send(data))
        for _ in range(COUNT):
            peer.expect(packets.PUBACK)
        assert system_calls["recv"] <= 8  # 64 KiB at once, as the network lets it through
        assert system_calls["send"] <= 8

    def test_go_on_after_their_acknowledgements_by_few_system_calls(
        self, make: Make, system_calls: Counter[str], protocol: int
    ) -> None:
        device = make(protocol, max_inflight=COUNT // 2)
        device.client._session._outbox._window.size = COUNT // 2
        peer = device.start()
        system_calls.clear()
        network(device, lambda: publish(device, 1))
        first = peer.expect_messages(COUNT // 2)
        network(device, lambda: acknowledge(peer, first))
        peer.expect_messages(COUNT // 2)
        assert system_calls["recv"] <= 4
        assert system_calls["send"] <= 8


@both
class TestAMessage:
    @pytest.mark.parametrize("qos", [0, 1])
    def test_is_accepted_by_few_calls(self, make: Make, protocol: int, qos: int) -> None:
        device, calls = make(protocol), Calls()
        publish(device, qos)
        calls.begin()
        publish(device, qos)
        calls.end()
        assert calls.count / COUNT <= 11

    @pytest.mark.parametrize(("qos", "most"), [(0, 19), (1, 16)])
    def test_is_sent_by_few_calls(self, make: Make, protocol: int, qos: int, most: int) -> None:
        device = make(protocol)
        device.client._session._outbox._window.size = COUNT
        peer = device.start()
        with counted(device) as calls:
            publish(device, qos)
        peer.expect_messages(COUNT)
        network(device, calls.end)
        assert calls.count / COUNT <= most

    def test_is_acknowledged_by_few_calls(self, make: Make, protocol: int) -> None:
        device = make(protocol)
        device.client._session._outbox._window.size = COUNT
        peer = device.start()
        publish(device, 1)
        messages = peer.expect_messages(COUNT)
        with counted(device) as calls:
            acknowledge(peer, messages)
        device.until(lambda: not device.client.stats.queued)
        network(device, calls.end)
        assert calls.count / COUNT <= 12

    @pytest.mark.parametrize(("qos", "most"), [(0, 12), (1, 19)])
    def test_that_comes_is_delivered_by_few_calls(self, make: Make, protocol: int, qos: int, most: int) -> None:
        device = make(protocol)
        peer = device.start()
        arrived: list[bytes] = []
        device.client.subscribe("t/#", lambda message: arrived.append(message.payload), qos=1)
        peer.expect_subscribe()
        with counted(device) as calls:
            for number in range(COUNT):
                peer.publish("t/1", PAYLOAD, qos, number + 1 if qos else 0)
        device.until(lambda: len(arrived) == COUNT)
        network(device, calls.end)
        assert calls.count / COUNT <= most

    def test_that_waits_takes_little_memory(self, make: Make, protocol: int) -> None:
        device = make(protocol, max_queued=10 * COUNT)
        publish(device, 1)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            publish(device, 1)
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert taken / COUNT <= 180  # bytes; the payload is the application's
