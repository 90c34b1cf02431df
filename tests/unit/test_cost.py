"""What a message costs, in counts that do not depend on the machine: a change that costs more fails here.

The bounds lie closely above what was counted. Figures that depend on the machine are in the benchmarks.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import socket
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from mqtt_token_client.errors import ProtocolError
from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.codec.properties import pack_length
from mqtt_token_client.mqtt.runtime.base import Runtime
from mqtt_token_client.mqtt.transport.open import open_transport
from tests.unit import packets
from tests.unit.async_device import AsyncDevice
from tests.unit.codecs import connected
from tests.unit.device import Device, Make, both
from tests.unit.network_thread import call
from tests.unit.scripted_broker import Peer

COUNT = 1000
PAYLOAD = b"x" * 64


@pytest.fixture(autouse=True)
def _without_garbage_collection() -> Iterator[None]:
    """Whatever other tests have left behind is finalized on any thread, and its functions would be counted."""
    gc.disable()
    yield
    gc.enable()


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

    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.opening.open_transport", counted)
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


def network(device: Device | AsyncDevice, function: Callable[[], object]) -> None:
    """Do something on the network thread."""
    call(runtime_of(device), function)


def runtime_of(device: Device | AsyncDevice) -> Runtime:
    manager = device.client._core._manager
    assert manager is not None
    return manager.runtime


@contextlib.contextmanager
def counted(device: Device | AsyncDevice) -> Iterator[Calls]:
    """What the network thread calls; what it is to do is ready for it all at once."""
    calls, ready = Calls(), threading.Event()
    network(device, calls.begin)

    def wait() -> None:
        ready.wait(10)

    runtime_of(device).call_soon(wait)
    yield calls
    ready.set()


def publish(device: Device, qos: int) -> None:
    for _ in range(COUNT):
        device.client.publish("pump/17/temperature", PAYLOAD, qos=qos)


def acknowledge(peer: Peer, messages: list[packets.Packet], reason: int = 0) -> None:
    peer.send(b"".join(packets.acknowledgement(packets.PUBACK, message.packet_id, reason) for message in messages))


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
        device.client._core.session._outbox.window.size = COUNT // 2
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
        sees_the_lock = sys.version_info >= (3, 14)  # from then on RLock.__enter__ counts as a call
        assert calls.count / COUNT <= 9 + sees_the_lock

    @pytest.mark.parametrize("timeout", [None, 5, 5.0])
    def test_that_is_done_is_waited_for_without_another_call(
        self, make: Make, protocol: int, timeout: float | None
    ) -> None:
        delivery, calls = make(protocol).client.publish("t", PAYLOAD), Calls()
        delivery.finish()
        calls.begin()
        for _ in range(COUNT):
            delivery.wait(timeout)
        calls.end()
        assert calls.count <= COUNT * 1.01

    @pytest.mark.parametrize(("qos", "most"), [(0, 14), (1, 13)])
    def test_is_sent_by_few_calls(self, make: Make, protocol: int, qos: int, most: int) -> None:
        device = make(protocol)
        device.client._core.session._outbox.window.size = COUNT
        peer = device.start()
        with counted(device) as calls:
            publish(device, qos)
        peer.expect_messages(COUNT)
        network(device, calls.end)
        assert calls.count / COUNT <= most

    @pytest.mark.parametrize("subscribers", [True, False])
    def test_is_acknowledged_by_few_calls(self, make: Make, protocol: int, subscribers: bool) -> None:
        device = make(protocol)
        device.client._core.session._outbox.window.size = COUNT
        peer = device.start()
        publish(device, 1)
        messages = peer.expect_messages(COUNT)
        with counted(device) as calls:
            acknowledge(peer, messages, 0 if subscribers or protocol == 4 else 0x10)
        device.until(lambda: not device.client.stats.queued)
        network(device, calls.end)
        assert calls.count / COUNT <= 12

    @pytest.mark.parametrize(("qos", "most"), [(0, 12), (1, 18)])
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

    @pytest.mark.parametrize(("qos", "most"), [(0, 58), (1, 69), (2, 70)])
    def test_that_comes_alone_is_delivered_by_few_calls(self, make: Make, protocol: int, qos: int, most: int) -> None:
        """What each turn of the network thread costs, which a burst shares."""
        device = make(protocol)
        peer = device.start()
        arrived: SimpleQueue[bytes] = SimpleQueue()
        device.client.subscribe("t/#", lambda message: arrived.put(message.payload), qos=2)
        peer.expect_subscribe()
        calls, count = Calls(), 50
        network(device, calls.begin)
        for number in range(count):
            peer.publish("t/1", PAYLOAD, qos, number + 1 if qos else 0)
            assert arrived.get(timeout=10) == PAYLOAD
        network(device, calls.end)
        assert calls.count / count <= most

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


MIB = 1024 * 1024
PIECE = 65_536  # bytes that are read at once


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def peak(codec: Codec, data: Iterator[bytes]) -> int:
    """The largest number of bytes that are in use while a codec reads data, without the data itself."""
    tracemalloc.start()
    try:
        with contextlib.suppress(ProtocolError):  # after which the connection is closed
            for piece in data:
                codec.receive(piece)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def seconds(codec: Callable[[], Codec], data: bytes) -> float:
    """The shortest time of processor that a codec took to read data."""
    taken = []
    for _ in range(5):
        reader = codec()
        begun = time.thread_time()
        with contextlib.suppress(ProtocolError):
            for piece in pieces(data):
                reader.receive(piece)
        taken.append(time.thread_time() - begun)
    return min(taken)


def publish_with_properties(properties: bytes) -> bytes:
    body = b"\0\x01t" + pack_length(len(properties)) + properties
    return b"\x30" + pack_length(len(body)) + body


def user_property(size: int) -> bytes:
    """A user property of so many bytes, which is 5 at least."""
    return b"\x26\0\0" + (size - 5).to_bytes(2) + bytes(size - 5)


class TestALargePacket:
    @pytest.mark.parametrize("size", [5, 50, 1000])
    def test_takes_no_more_time_for_a_byte_of_its_properties_than_a_small_one(self, size: int) -> None:
        """Ten times as much takes less than twenty times as long; of a square it would be a hundred times."""
        some = max(4000 * 5 // size, 10)
        small, large = (publish_with_properties(user_property(size) * count) for count in (some, 10 * some))
        assert seconds(lambda: connected(5), large) < 20 * seconds(lambda: connected(5), small)

    @pytest.mark.parametrize("size", [5, 50, 1000, 60_000])
    def test_takes_memory_in_proportion_whatever_its_properties(self, size: int) -> None:
        packet = publish_with_properties(user_property(size) * (MIB // size))
        assert peak(connected(5, 2 * MIB), pieces(packet)) < 3 * MIB

    @both
    def test_of_the_largest_size_is_kept_twice_at_most(self, protocol: int) -> None:
        packet = packets.publish(protocol == 5, "t", bytes(8 * MIB - 10))
        assert peak(connected(protocol, 8 * MIB), pieces(packet)) < 2.5 * 8 * MIB

    @both
    @pytest.mark.parametrize("first", [0x20, 0x30, 0x32, 0x40, 0x90, 0xB0, 0xD0])
    def test_of_250_mb_is_not_kept(self, protocol: int, first: int) -> None:
        length = 250_000_000
        for codec in (Codec(protocol), connected(protocol)):
            codec.subscribe(1, [("a", 1)])
            head = bytes((first,)) + pack_length(length) + b"\0\x01t\0\1"
            assert peak(codec, itertools.chain([head], itertools.repeat(bytes(PIECE), length // PIECE))) < MIB

    @both
    @pytest.mark.parametrize("first", [0x90, 0xB0])
    def test_with_a_megabyte_of_codes_is_not_kept(self, protocol: int, first: int) -> None:
        codec = connected(protocol)
        codec.subscribe(1, [("a", 1)])
        codec.unsubscribe(1, ["a"])
        packet = bytes((first,)) + pack_length(MIB) + b"\0\1\0" + bytes(MIB)
        assert peak(codec, pieces(packet)) < MIB / 2

    @both
    def test_is_looked_at_when_it_is_complete_and_not_with_each_piece(self, protocol: int) -> None:
        """Each look copies all that has arrived."""
        codec, calls, zeros = connected(protocol), Calls(), bytes(PIECE)
        codec.receive(b"\x30" + pack_length(100 * PIECE + 3 + (protocol == 5)) + b"\0\x01t")
        if protocol == 5:
            codec.receive(b"\0")
        calls.begin()
        for _ in range(99):
            assert not codec.receive(zeros)
        calls.end()
        assert calls.count / 99 <= 4
        assert len(codec.receive(zeros)) == 1

    @both
    def test_that_is_skipped_takes_a_few_calls_for_each_piece(self, protocol: int) -> None:
        codec, calls, zeros = connected(protocol), Calls(), bytes(PIECE)
        codec.receive(b"\x30" + pack_length(250_000_000) + b"\0\x01t")
        calls.begin()
        for _ in range(3000):
            codec.receive(zeros)
        calls.end()
        assert calls.count / 3000 <= 7
