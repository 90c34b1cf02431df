"""Handlers on the event loop: functions and coroutine functions, one message of a subscription after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from mqtt_token_client import HandlerFailed, Message, MessagesDropped
from mqtt_token_client.aio import closings
from tests.unit.async_device import AsyncDevice, connected, ending, run, until, waiting
from tests.unit.packets import DISCONNECT, PUBACK
from tests.unit.scripted_broker import PATIENCE, Peer


async def acknowledged(peer: Peer) -> int:
    return (await asyncio.to_thread(peer.expect, PUBACK)).packet_id


async def expect_nothing(peer: Peer) -> None:
    await asyncio.to_thread(peer.expect_nothing, 0.02)


async def subscribed(peer: Peer) -> None:
    await asyncio.to_thread(peer.expect_subscribe)


def publish(peer: Peer, *identifiers: int, topic: str = "t") -> None:
    for identifier in identifiers:
        peer.publish(topic, b"%d" % identifier, 1, identifier)


class Handler:
    """A coroutine function that waits until it may go on, for each message."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.ended: list[int] = []
        self.gate = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        self.began.append(int(message.payload))
        await self.gate.wait()
        self.ended.append(int(message.payload))


def test_a_function_is_called_on_the_loop_and_its_messages_are_acknowledged() -> None:
    async def main() -> None:
        got: list[int] = []

        def handler(message: Message) -> None:
            assert asyncio.get_running_loop() is loop
            got.append(int(message.payload))

        loop = asyncio.get_running_loop()
        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, *range(1, 101))
            assert [await acknowledged(peer) for _ in range(100)] == list(range(1, 101))
            assert got == list(range(1, 101))

    run(main)


def test_a_coroutine_function_gets_one_message_after_the_other_and_each_is_acknowledged_when_it_returns() -> None:
    async def main() -> None:
        handler = Handler()
        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1, 2)
            await until(lambda: handler.began == [1])
            await expect_nothing(peer)
            assert handler.began == [1]
            handler.gate.set()
            assert [await acknowledged(peer) for _ in range(2)] == [1, 2]
            assert handler.ended == [1, 2]

    run(main)


def test_a_slow_handler_delays_its_own_subscription_only() -> None:
    async def main() -> None:
        slow, got = Handler(), list[int]()

        async def fast(message: Message) -> None:
            got.append(int(message.payload))

        async with connected() as (device, peer):
            device.client.subscribe("slow", slow)
            await subscribed(peer)
            device.client.subscribe("fast", fast)
            await subscribed(peer)
            publish(peer, 1, 2, topic="slow")
            publish(peer, *range(3, 10), topic="fast")
            await until(lambda: len(got) == 7)
            assert slow.began == [1]
            slow.gate.set()
            assert [await acknowledged(peer) for _ in range(9)] == list(range(1, 10))

    run(main)


class OfTheProgram(BaseException):
    """As those are by which a library ends a whole program."""


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError(), OfTheProgram()])
def test_what_a_handler_raises_is_reported_and_the_message_is_acknowledged(error: BaseException) -> None:
    async def main() -> None:
        async def handler(message: Message) -> None:
            if message.payload == b"1":
                raise error

        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1, 2)
            assert [await acknowledged(peer) for _ in range(2)] == [1, 2]
            event = await device.event(HandlerFailed)
            assert event.where == "the handler of t"
            assert event.error is error or str(event.error) == f"it raised {type(error).__name__}"

    run(main)


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_cancelled_error_is_reported_although_the_task_was_cancelled_for_an_earlier_message(kind: str) -> None:
    """A TaskGroup whose task has failed leaves the cancellation of its own task counted (Python 3.11 and 3.12)."""

    async def main() -> None:
        both = asyncio.Event()
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()

        async def first() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            assert task.cancelling()
            await both.wait()

        async def second() -> None:
            await given_up

        def handler(message: Message) -> Any:
            if message.payload == b"1":
                return first()
            if message.payload == b"2":
                return second() if kind == "coroutine function" else given_up.result()
            return None

        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1, 2, 3)
            await until(lambda: device.client.stats.received == 3 and waiting(device, "t") == 2)
            both.set()
            assert [await acknowledged(peer) for _ in range(3)] == [1, 2, 3]
            assert str((await device.event(HandlerFailed)).error) == "it raised CancelledError"

    run(main)


def test_a_handler_may_cancel_its_own_task_with_those_of_its_program() -> None:
    async def main() -> None:
        both = asyncio.Event()
        began: list[int] = []

        async def handler(message: Message) -> None:
            began.append(int(message.payload))
            await both.wait()
            if len(began) == 1:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1, 2)
            await until(lambda: device.client.stats.received == 2 and waiting(device, "t") == 1)
            both.set()
            assert await acknowledged(peer) == 1
            await expect_nothing(peer)
            assert began == [1]
            publish(peer, 3)
            assert [await acknowledged(peer) for _ in range(2)] == [2, 3]
            assert not [event for event in device.events if isinstance(event, HandlerFailed)]

    run(main)


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_on_message_gets_what_has_no_handler(kind: str) -> None:
    async def main() -> None:
        got: list[int] = []

        def function(message: Message) -> None:
            got.append(int(message.payload))

        async def coroutine_function(message: Message) -> None:
            await asyncio.sleep(0)
            got.append(int(message.payload))

        handlers: dict[str, Callable[[Message], Any]] = {
            "function": function,
            "coroutine function": coroutine_function,
        }
        async with connected(on_message=handlers[kind]) as (device, peer):
            device.client.subscribe("t")
            await subscribed(peer)
            publish(peer, 1, 2)
            assert [await acknowledged(peer) for _ in range(2)] == [1, 2]
            assert got == [1, 2]

    run(main)


def test_another_handler_for_the_filter_replaces_the_first_one() -> None:
    async def main() -> None:
        first, got = Handler(), list[int]()
        async with connected() as (device, peer):
            device.client.subscribe("t", first)
            await subscribed(peer)
            publish(peer, 1, 2)
            await until(lambda: first.began == [1] and waiting(device, "t") == 1)
            device.client.subscribe("t", lambda message: got.append(int(message.payload)))
            await subscribed(peer)
            first.gate.set()
            assert [await acknowledged(peer) for _ in range(2)] == [1, 2]
            assert (first.ended, got) == ([1], [2])

    run(main)


def test_unsubscribe_drops_what_waits() -> None:
    async def main() -> None:
        handler = Handler()
        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1, 2)
            await until(lambda: handler.began == [1] and waiting(device, "t") == 1)
            device.client.unsubscribe("t")
            await asyncio.to_thread(peer.expect_unsubscribe)
            assert await device.event(MessagesDropped) == MessagesDropped("t", 1)
            handler.gate.set()
            assert [await acknowledged(peer) for _ in range(2)] == [1, 2]
            assert handler.began == [1]

    run(main)


def test_disconnect_cancels_a_handler_whose_message_comes_again_on_the_next_connection() -> None:
    async def main() -> None:
        handler = Handler()
        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1, 2)
            await until(lambda: handler.began == [1] and waiting(device, "t") == 1)
            await device.end(peer)
            assert handler.ended == []
            handler.gate.set()
            second = await device.start(session_present=True)
            second.publish("t", b"1", 1, 1, dup=True)
            second.publish("t", b"2", 1, 2, dup=True)
            assert [await acknowledged(second) for _ in range(2)] == [1, 2]
            assert (handler.began, handler.ended) == ([1, 1, 2], [1, 2])
            await device.end(second)

    run(main)


@pytest.mark.parametrize("again", [False, True])
def test_disconnect_cancels_a_handler_whose_filter_was_unsubscribed_while_it_runs(again: bool) -> None:
    """``again`` is after another handler has taken its place."""

    async def main() -> None:
        handler = Handler()
        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1)
            await until(lambda: handler.began == [1])
            device.client.unsubscribe("t")
            await asyncio.to_thread(peer.expect_unsubscribe)
            if again:
                device.client.subscribe("t", handler)
                await subscribed(peer)
            await device.end(peer)
            await asyncio.sleep(0)
            handler.gate.set()
            await asyncio.sleep(0)
            assert handler.ended == []

    run(main)


def test_a_handler_may_disconnect_its_client() -> None:
    async def main() -> None:
        async with connected() as (device, peer):
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            async def handler(message: Message) -> None:
                await device.client.disconnect()
                ended.set_result(None)

            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1, 2)
            await ending(peer, ended)
            assert device.client.state == "closed"

    run(main)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_task_that_a_handler_waits_for_may_disconnect_its_client(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """More than once, as the ends of two blocks do."""
    monkeypatch.setattr(closings, "_LAST_STEPS", 0.01)

    async def main() -> None:
        async with connected() as (device, peer):
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            async def disconnect(count: int) -> None:
                try:
                    await device.client.disconnect()
                finally:
                    if count > 1:
                        await disconnect(count - 1)

            async def handler(message: Message) -> None:
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(disconnect(times))
                finally:
                    ended.set_result(None)

            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1)
            async with asyncio.timeout(PATIENCE):
                await ending(peer, ended)
            assert device.client.state == "closed"

    run(main)


def test_a_handler_that_ends_after_the_next_connection_began_gets_its_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disconnect() that is cancelled does not wait for it very long."""
    monkeypatch.setattr(closings, "_LAST_STEPS", 0.01)

    async def main() -> None:
        began, may_end, got = asyncio.Event(), asyncio.Event(), list[int]()

        async def handler(message: Message) -> None:
            got.append(int(message.payload))
            began.set()
            try:
                await may_end.wait()
            finally:
                await may_end.wait()

        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1)
            await began.wait()
            disconnecting = asyncio.create_task(device.client.disconnect())
            await asyncio.sleep(0)
            disconnecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending(peer, disconnecting)
            second = await device.start(session_present=True)
            second.publish("t", b"1", 1, 1, dup=True)
            await until(lambda: waiting(device, "t") == 1)
            may_end.set()
            assert await acknowledged(second) == 1
            publish(second, 2)
            assert await acknowledged(second) == 2
            assert got == [1, 1, 2]
            await device.end(second)

    run(main)


def test_messages_of_an_earlier_process_wait_for_the_handler() -> None:
    async def main() -> None:
        got: list[int] = []
        async with connected() as (device, peer):
            publish(peer, 1, 2)
            await until(lambda: device.client.stats.received == 2)
            device.client.subscribe("t", lambda message: got.append(int(message.payload)))
            await subscribed(peer)
            assert [await acknowledged(peer) for _ in range(2)] == [1, 2]
            assert got == [1, 2]

    run(main)


def test_a_handler_that_is_there_before_the_client_connects_gets_the_first_message() -> None:
    async def main() -> None:
        device, got = AsyncDevice(), list[int]()
        device.client.subscribe("t", lambda message: got.append(int(message.payload)))
        peer = await device.start(session_present=True)
        publish(peer, 1)
        await until(lambda: got == [1])
        await device.end(peer)
        device.broker.close()

    run(main)


class TestAHandlerWhoseTaskTheProgramCancels:
    @pytest.mark.parametrize("again", ["message", "connect"])
    @pytest.mark.parametrize("begun", [False, True])
    def test_gets_its_message_again(self, begun: bool, again: str) -> None:
        """``begun``: it was processing the message; ``again``: what makes it go on."""

        async def main() -> None:
            handler, cancelled = Handler(), list[asyncio.Task[Any]]()

            def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
                task = asyncio.Task(coroutine, loop=loop, **options)
                if coroutine.__qualname__ == "HandlerTask._run" and not cancelled:
                    cancelled.append(task)
                    if not begun:
                        task.cancel()
                return task

            async with connected() as (device, peer):
                device.client.subscribe("t", handler)
                await subscribed(peer)
                asyncio.get_running_loop().set_task_factory(factory)
                publish(peer, 1)
                await until(lambda: bool(handler.began if begun else cancelled))
                cancelled[0].cancel()
                await asyncio.wait(cancelled)
                await until(lambda: waiting(device, "t") == 1)
                await expect_nothing(peer)
                handler.gate.set()
                if again == "message":
                    publish(peer, 2)
                else:
                    assert await device.client.connect()
                    assert await acknowledged(peer) == 1
                    publish(peer, 2)
                assert await acknowledged(peer) == (1 if again == "message" else 2)
                await until(lambda: handler.ended == [1, 2])
                asyncio.get_running_loop().set_task_factory(None)

        run(main)

    def test_gets_it_in_the_next_run_if_asyncio_run_has_ended(self) -> None:
        device, handler = AsyncDevice(), Handler()
        peers: list[Peer] = []

        async def first() -> None:
            peers.append(await device.start())
            device.client.subscribe("t", handler)
            await subscribed(peers[0])
            publish(peers[0], 1, 2)
            await until(lambda: handler.began == [1] and waiting(device, "t") == 1)

        async def second() -> None:
            assert await device.client.connect()
            handler.gate.set()
            assert [await acknowledged(peers[0]) for _ in range(2)] == [1, 2]
            assert handler.ended == [1, 2]
            await device.end(peers[0])

        with contextlib.closing(device.broker):
            asyncio.run(first())
            handler.gate = asyncio.Event()  # that of the first loop cannot be used any more
            run(second)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_handler_that_ends_the_program_gets_its_message_in_the_next_run(error: type[BaseException]) -> None:
    device, got = AsyncDevice(), list[bytes]()
    peers: list[Peer] = []

    async def handler(message: Message) -> None:
        got.append(message.payload)
        if len(got) == 1:
            raise error

    async def first() -> None:
        peers.append(await device.start())
        device.client.subscribe("t", handler)
        await subscribed(peers[0])
        publish(peers[0], 1)
        await asyncio.sleep(PATIENCE)

    async def second() -> None:
        assert await device.client.connect()
        assert await acknowledged(peers[0]) == 1
        assert got == [b"1", b"1"]
        await device.end(peers[0])

    with contextlib.closing(device.broker):
        with pytest.raises(error):
            asyncio.run(first())
        run(second)


class TestAHandlerWhoseTaskNeverBegan:
    """Its task is cancelled before its first step: asyncio never enters the coroutine."""

    def test_gets_the_messages_of_the_next_connection(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                got: list[int] = []

                async def connect_and_disconnect_at_once() -> None:
                    assert await device.client.connect(0)
                    await device.client.disconnect()

                device.client.subscribe("t", lambda message: got.append(int(message.payload)))
                await subscribed(peer)
                await ending(peer, connect_and_disconnect_at_once())
                second = await device.start(session_present=True)
                publish(second, 1)
                assert await acknowledged(second) == 1
                assert got == [1]
                await device.end(second)

        run(main)

    def test_is_told_from_one_that_ended_before_it_was_known(self) -> None:
        """As an eager task does that never waits (Python 3.12)."""

        async def nothing() -> None:
            pass

        async def main() -> None:
            eager: list[object] = []
            ended = asyncio.create_task(nothing())
            await ended

            def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
                if coroutine.__qualname__ != "HandlerTask._run":
                    return asyncio.Task(coroutine, loop=loop, **options)
                with pytest.raises(StopIteration):
                    coroutine.send(None)
                eager.append(coroutine)
                return ended

            async with connected() as (device, peer):
                got: list[int] = []
                asyncio.get_running_loop().set_task_factory(factory)
                device.client.subscribe("t", lambda message: got.append(int(message.payload)))
                await subscribed(peer)
                for identifier in (1, 2):
                    publish(peer, identifier)
                    assert await acknowledged(peer) == identifier
                assert got == [1, 2]
                assert eager
                asyncio.get_running_loop().set_task_factory(None)

        run(main)


def test_a_handler_that_ends_after_the_next_connection_began_is_waited_for_by_the_next_disconnect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closings, "_LAST_STEPS", 0.01)

    async def main() -> None:
        began, ends, got = asyncio.Event(), [asyncio.Event(), asyncio.Event()], list[int]()

        async def handler(message: Message) -> None:
            may_end = ends[len(got)]
            got.append(int(message.payload))
            began.set()
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                await may_end.wait()

        async with connected() as (device, peer):
            device.client.subscribe("t", handler)
            await subscribed(peer)
            publish(peer, 1)
            await began.wait()
            disconnecting = asyncio.create_task(device.client.disconnect())
            await asyncio.sleep(0)
            disconnecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending(peer, disconnecting)
            second = await device.start(session_present=True)
            publish(second, 2)
            await until(lambda: waiting(device, "t") == 1)
            ends[0].set()
            await until(lambda: len(got) == 2)
            disconnecting = asyncio.create_task(device.client.disconnect())
            await asyncio.to_thread(second.expect, DISCONNECT)
            second.close()
            done, _ = await asyncio.wait([disconnecting], timeout=0.1)
            assert not done
            ends[1].set()
            await disconnecting

    run(main)
