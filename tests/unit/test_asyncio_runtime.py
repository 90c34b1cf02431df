"""asyncio as the runtime: what it runs and when, and the unchanged core on it, plain and with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import selectors
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar
from unittest.mock import patch

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import Connected, Delivery, Disconnected, Event, MqttTokenError, Rotated, TokenClient
from mqtt_token_client.clock import monotonic
from mqtt_token_client.mqtt.runtime import asyncio as asyncio_runtime
from mqtt_token_client.mqtt.runtime.asyncio import AsyncioRuntime
from mqtt_token_client.mqtt.runtime.base import current
from tests.unit.device import QUICK, Source
from tests.unit.packets import CONNECT, DISCONNECT, PINGREQ, PINGRESP_PACKET, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL
from tests.unit.scripted_broker import PATIENCE, Peer, ScriptedBroker
from tests.unit.stepped_time import wait_until

_Result = TypeVar("_Result")


def run(main: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run a coroutine in asyncio's debug mode. In the end nothing of it is left: no task, timer, descriptor, thread."""
    before = set(threading.enumerate())

    async def watched() -> _Result:
        loop: Any = asyncio.get_running_loop()
        descriptors = set(loop._selector.get_map())
        result = await asyncio.wait_for(main(), 30)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
        assert set(loop._selector.get_map()) == descriptors
        return result

    with asyncio.Runner(debug=True) as runner:
        runner.get_loop().slow_callback_duration = 10.0  # a busy machine is not what is tested
        result = runner.run(watched())
    assert wait_until(lambda: set(threading.enumerate()) <= before, PATIENCE), threading.enumerate()
    return result


@pytest.fixture(autouse=True)
def _nothing_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def called(give: Callable[[Callable[[], None]], object]) -> None:
    """Returns when a callback has been called."""
    done = asyncio.Event()
    give(done.set)
    await done.wait()


class TestCalls:
    def test_of_all_threads_run_on_the_loop_in_the_order_of_each(self) -> None:
        async def main() -> None:
            runtime, seen = AsyncioRuntime(), list[tuple[str, int]]()

            def give(thread: str) -> None:
                for number in range(100):
                    runtime.call_soon(lambda number=number: seen.append((thread, number)))  # type: ignore[misc]

            other = threading.Thread(target=give, args=("other",))
            other.start()
            give("own")
            assert seen == []
            await asyncio.to_thread(other.join)
            await called(runtime.call_soon)
            assert sorted(seen) == sorted((thread, number) for thread in ("other", "own") for number in range(100))
            assert [number for thread, number in seen if thread == "other"] == list(range(100))
            assert [number for thread, number in seen if thread == "own"] == list(range(100))

        run(main)

    def test_know_where_they_run(self) -> None:
        async def main() -> None:
            runtime, seen = AsyncioRuntime(), list[object]()
            runtime.call_soon(lambda: seen.append(current.runtime))
            await called(runtime.call_soon)
            assert seen == [runtime]
            assert current.runtime is None
            assert runtime.on_thread
            runtime.check_thread()
            assert not await asyncio.to_thread(lambda: runtime.on_thread)
            with pytest.raises(AssertionError, match="a thread other than the event loop's"):
                await asyncio.to_thread(runtime.check_thread)

        run(main)

    def test_that_raise_are_logged_and_the_loop_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            runtime = AsyncioRuntime()

            def fail() -> None:
                raise ValueError

            runtime.call_soon(fail)
            await called(runtime.call_soon)
            assert current.runtime is None

        run(main)
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert record.name == "mqtt_token_client.runtime"
        caplog.clear()

    def test_after_the_end_are_harmless(self) -> None:
        runtimes: list[AsyncioRuntime] = []

        async def main() -> None:
            runtimes.append(AsyncioRuntime())

        run(main)
        runtimes[0].call_soon(lambda: None)
        thread = threading.Thread(target=runtimes[0].call_soon, args=(lambda: None,))
        thread.start()
        thread.join()


class TestTimers:
    def test_run_in_order_at_their_time_and_not_once_they_are_cancelled(self) -> None:
        async def main() -> None:
            runtime, seen, done = AsyncioRuntime(), list[str](), asyncio.Event()
            now, loop = monotonic(), asyncio.get_running_loop()
            at_once = loop.time()
            # a busy machine may let a deadline pass before the next timer is set
            with patch.object(asyncio_runtime, "monotonic", lambda: now), patch.object(loop, "time", lambda: at_once):
                runtime.call_at(now + 0.04, lambda: seen.append("second"))
                runtime.call_at(now + 0.02, lambda: seen.append("first"))
                runtime.call_later(-5, lambda: seen.append("at once"))
                runtime.call_at(now + 0.03, lambda: seen.append("cancelled")).cancel()
                runtime.call_at(now + 0.05, done.set)
            await done.wait()
            assert monotonic() >= now + 0.05
            assert seen == ["at once", "first", "second"]

        run(main)

    def test_count_the_time_that_the_machine_sleeps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The clock of the event loop stands still meanwhile: a far deadline is looked at again."""
        monkeypatch.setattr(asyncio_runtime, "LONGEST_SLEEP", 0.02)
        now = [1000.0]
        monkeypatch.setattr(asyncio_runtime, "monotonic", lambda: now[0])

        async def main() -> None:
            runtime, done = AsyncioRuntime(), asyncio.Event()
            runtime.call_later(3600, done.set)
            cancelled = runtime.call_later(3600, lambda: pytest.fail("it was cancelled"))
            await asyncio.sleep(0.1)
            cancelled.cancel()
            now[0] = 4599.9
            await asyncio.sleep(0.1)
            assert not done.is_set()
            now[0] = 4600.0
            await done.wait()

        run(main)


class TestSockets:
    def test_are_reported_when_they_are_ready_for_what_is_asked(self) -> None:
        async def main() -> None:
            runtime, seen = AsyncioRuntime(), list[tuple[int, bytes]]()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            done = asyncio.Event()

            def ready(events: int) -> None:
                if events == selectors.EVENT_WRITE:
                    seen.append((events, b""))
                    runtime.watch(ours, selectors.EVENT_READ, ready)
                    return
                seen.append((events, ours.recv(10)))
                runtime.watch(ours, 0, ready)
                done.set()

            with ours, theirs:
                both = selectors.EVENT_READ | selectors.EVENT_WRITE
                runtime.watch(ours, both, ready)
                runtime.watch(ours, both, ready)  # as before
                while not seen:
                    await asyncio.sleep(0)
                theirs.send(b"data")
                await done.wait()
                theirs.send(b"more")
                await asyncio.sleep(0.02)
                runtime.watch(ours, 0, ready)  # it is not watched
            assert seen == [(selectors.EVENT_WRITE, b""), (selectors.EVENT_READ, b"data")]

        run(main)


class TestBlockingJobs:
    @pytest.mark.parametrize("raised", [None, OSError("of a job"), SystemExit("of a job")])
    def test_run_elsewhere_and_report_here(self, raised: BaseException | None) -> None:
        async def main() -> None:
            runtime = AsyncioRuntime()
            outcome: asyncio.Future[tuple[Any, Exception | None, bool]] = asyncio.Future()

            def job() -> bool:
                if raised is not None:
                    raise raised
                return runtime.on_thread

            runtime.run_blocking(job, lambda *result: outcome.set_result((*result, current.runtime is runtime)))
            result, error, here = await outcome
            assert here
            if raised is None:
                assert (result, error) == (False, None)
            else:
                assert result is None
                assert error is raised or "SystemExit" in str(error)

        run(main)

    def test_are_notified_that_no_thread_can_be_started(self) -> None:
        async def main() -> None:
            runtime = AsyncioRuntime()
            outcome: asyncio.Future[tuple[Any, Exception | None]] = asyncio.Future()
            with patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
                runtime.run_blocking(lambda: None, lambda *result: outcome.set_result(result))
                result, error = await outcome
            assert result is None
            assert isinstance(error, MqttTokenError)

        run(main)


class AsyncDevice:
    """A client whose core runs on the event loop, and its broker, which a worker thread plays."""

    def __init__(self, broker: ScriptedBroker, protocol: int, tls: ssl.SSLContext | None) -> None:
        self.broker = broker
        self.source = Source()
        self.runtime = AsyncioRuntime()
        self.closed = asyncio.Event()
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.client = TokenClient(
            broker.url,
            self.source,
            client_id="device",
            protocol=protocol,
            tls=tls,
            backoff=QUICK,
            on_event=self._events.put_nowait,
            on_message=lambda message: self.messages.put_nowait(message.payload),
        )

    async def event(self, kind: type[Event]) -> Event:
        """The next event of a kind."""
        while not isinstance(event := await self._events.get(), kind):
            pass
        return event

    async def answer(self, *, session_present: bool) -> Peer:
        """Accept a connection and CONNECT."""
        peer = await asyncio.to_thread(self.broker.accept)
        await asyncio.to_thread(peer.expect, CONNECT)
        peer.connack(session_present=session_present)
        return peer

    async def publish(self, payload: str, qos: int) -> Callable[[], Awaitable[None]]:
        """Publish, and return what waits for the acknowledgement."""
        delivered: asyncio.Future[Delivery] = asyncio.Future()
        self.client.publish("t", payload, qos=qos).add_done_callback(delivered.set_result)

        async def acknowledged() -> None:
            (await delivered).wait(0)

        return acknowledged

    async def disconnect(self, peer: Peer) -> None:
        self.runtime.call_soon(self.client.disconnect)
        await asyncio.to_thread(peer.expect, DISCONNECT)
        peer.close()
        await self.closed.wait()


@contextlib.asynccontextmanager
async def device(protocol: int, pki: Pki | None) -> AsyncIterator[AsyncDevice]:
    tls = server = None
    if pki is not None:
        tls = ssl.create_default_context(cafile=pki.ca)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(pki.server.certificate, pki.server.key)
    with contextlib.closing(ScriptedBroker(server)) as broker:
        device = AsyncDevice(broker, protocol, tls)
        core = device.client._core
        core._acquire, core._release = lambda: device.runtime, device.closed.set
        yield device


@pytest.fixture(params=["plain", "TLS"])
def authority(request: pytest.FixtureRequest, pki: Pki) -> Pki | None:
    return pki if request.param == "TLS" else None


@pytest.mark.parametrize("protocol", [4, 5])
class TestCore:
    def test_publishes_and_receives(self, protocol: int, authority: Pki | None) -> None:
        async def main() -> None:
            async with device(protocol, authority) as pump:
                pump.client.subscribe("command")
                pump.client.connect(timeout=0)
                peer = await pump.answer(session_present=False)
                await pump.event(Connected)
                await asyncio.to_thread(peer.expect_subscribe)
                for qos in range(3):
                    acknowledged = await pump.publish(f"at {qos}", qos)
                    packet = await asyncio.to_thread(peer.expect, PUBLISH)
                    assert (packet.payload, packet.qos) == (f"at {qos}".encode(), qos)
                    if qos == 1:
                        peer.acknowledge(PUBACK, packet.packet_id)
                    elif qos == 2:
                        peer.acknowledge(PUBREC, packet.packet_id)
                        await asyncio.to_thread(peer.expect, PUBREL)
                        peer.acknowledge(PUBCOMP, packet.packet_id)
                    await acknowledged()
                peer.publish("command", b"start", 1, 7)
                assert await pump.messages.get() == b"start"
                assert (await asyncio.to_thread(peer.expect, PUBACK)).packet_id == 7
                await pump.disconnect(peer)

        run(main)

    def test_moves_many_messages_with_full_buffers(self, protocol: int, authority: Pki | None) -> None:
        async def main() -> None:
            async with device(protocol, authority) as pump:
                pump.client.connect(timeout=0)
                peer = await pump.answer(session_present=False)
                waiting = [await pump.publish("x" * 50_000, 0) for _ in range(200)]
                for packet in await asyncio.to_thread(peer.expect_messages, 200):
                    assert len(packet.payload) == 50_000
                for acknowledged in waiting:
                    await acknowledged()
                await pump.disconnect(peer)

        run(main)

    def test_rotates_by_handover(self, protocol: int, authority: Pki | None) -> None:
        async def main() -> None:
            async with device(protocol, authority) as pump:
                pump.client.connect(timeout=0)
                first = await pump.answer(session_present=False)
                await pump.event(Connected)
                acknowledged = await pump.publish("in flight", 1)
                packet = await asyncio.to_thread(first.expect, PUBLISH)
                rotating = asyncio.create_task(asyncio.to_thread(pump.client.rotate))
                second = await asyncio.to_thread(pump.broker.accept)
                for _ in range(2):
                    await asyncio.to_thread(first.expect, PINGREQ)
                    first.send(PINGRESP_PACKET)
                assert (await asyncio.to_thread(second.expect, CONNECT)).password == b"the token of request 2"
                second.connack(session_present=True)
                first.close()
                event = await pump.event(Rotated)
                assert isinstance(event, Rotated)
                assert event.kind == "handover"
                again = await asyncio.to_thread(second.expect, PUBLISH)
                assert (again.packet_id, again.payload) == (packet.packet_id, b"in flight")
                second.acknowledge(PUBACK, again.packet_id)
                await acknowledged()
                await rotating
                await pump.disconnect(second)

        run(main)

    def test_comes_back_after_a_loss(self, protocol: int, authority: Pki | None) -> None:
        async def main() -> None:
            async with device(protocol, authority) as pump:
                pump.client.connect(timeout=0)
                peer = await pump.answer(session_present=False)
                await pump.event(Connected)
                acknowledged = await pump.publish("lost", 1)
                await asyncio.to_thread(peer.expect, PUBLISH)
                peer.close()
                await pump.event(Disconnected)
                peer = await pump.answer(session_present=True)
                peer.acknowledge(PUBACK, (await asyncio.to_thread(peer.expect, PUBLISH)).packet_id)
                await acknowledged()
                await pump.disconnect(peer)

        run(main)


def test_a_handler_cannot_wait_for_itself() -> None:
    async def main() -> None:
        async with device(5, None) as pump:
            waited: asyncio.Future[BaseException] = asyncio.Future()

            def handle(_message: object) -> None:
                try:
                    pump.client.publish("t", "x", qos=1).wait(5)
                except RuntimeError as error:
                    waited.set_result(error)

            pump.client.subscribe("command", handle)
            pump.client.connect(timeout=0)
            peer = await pump.answer(session_present=False)
            await asyncio.to_thread(peer.expect_subscribe)
            peer.publish("command", b"start")
            assert "would wait for itself" in str(await waited)
            peer.acknowledge(PUBACK, (await asyncio.to_thread(peer.expect, PUBLISH)).packet_id)
            await pump.disconnect(peer)

    run(main)


def test_costs_no_network_thread() -> None:
    async def main() -> None:
        async with device(5, None) as pump:
            pump.client.connect(timeout=0)
            peer = await pump.answer(session_present=False)
            await pump.event(Connected)
            assert not [thread for thread in threading.enumerate() if thread.name == "mqtt-token-network"]
            await pump.disconnect(peer)

    run(main)
