"""A client that is used on a second event loop: nothing that the first one was to do may be missing there.

Loops are closed here without an end of their tasks, as by a program that has its own loop, or while a client stays
connected from one asyncio.run to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mqtt_token_client import Event, Message, MessagesDropped, Token, TokenError
from mqtt_token_client.aio import inbox, inboxes, unclaimed
from mqtt_token_client.aio.acks import AckBatch
from mqtt_token_client.aio.messages import Messages
from mqtt_token_client.aio.own_loop import OwnLoop
from mqtt_token_client.tokens import on_loop
from tests.unit.async_device import AsyncDevice, run, until, waiting
from tests.unit.packets import PUBACK, PUBLISH, UNSUBSCRIBE
from tests.unit.scripted_broker import PATIENCE, Peer


def run_and_leave(main: Callable[[], Awaitable[None]]) -> list[object]:
    """Run a coroutine function on a loop that is closed with its tasks pending. Returns these, to be kept: asyncio
    complains when the garbage collector finds them.
    """
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    try:
        loop.run_until_complete(asyncio.wait_for(main(), 2 * PATIENCE))
        return list(asyncio.all_tasks(loop))
    finally:
        loop.close()


class Client:
    """A client that stays connected from one loop to the next."""

    def __init__(self) -> None:
        self.device = AsyncDevice()
        self.left: list[object] = []
        self.peer: Peer

    def first(self, main: Callable[[AsyncDevice, Peer], Awaitable[None]]) -> None:
        """Connect and do something on a loop that is closed afterwards."""

        async def connected() -> None:
            self.peer = await self.device.start()
            await main(self.device, self.peer)

        self.left = run_and_leave(connected)

    def second(self, main: Callable[[AsyncDevice, Peer], Awaitable[None]]) -> None:
        """Do something on the next loop, after ``connect()``, and disconnect."""

        async def goes_on() -> None:
            assert await self.device.client.connect()
            await main(self.device, self.peer)
            await self.device.end(self.peer)

        run(goes_on)

    def collect(self) -> None:
        """Let the garbage collector find what the first loop has left."""
        while self.left:
            self.left.pop()._log_destroy_pending = False  # type: ignore[attr-defined]
        gc.collect()


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.device.broker.close()
    asyncio.run(client.device.client.disconnect(timeout=0))  # after a failure
    for task in client.left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def acknowledged(peer: Peer, *identifiers: int) -> None:
    assert [(await asyncio.to_thread(peer.expect, PUBACK)).packet_id for _ in identifiers] == list(identifiers)


class TestAHandler:
    def test_whose_task_was_pending_gets_its_message_again(self, client: Client) -> None:
        got: list[bytes] = []
        waits = True

        async def handler(message: Message) -> None:
            got.append(message.payload)
            if waits:
                await asyncio.sleep(1000)

        async def first(device: AsyncDevice, peer: Peer) -> None:
            device.client.subscribe("t", handler)
            await asyncio.to_thread(peer.expect_subscribe)
            peer.publish("t", b"1", 1, 1)
            peer.publish("t", b"2", 1, 2)
            await until(lambda: got == [b"1"] and waiting(device, "t") == 1)

        async def second(device: AsyncDevice, peer: Peer) -> None:
            peer.publish("t", b"3", 1, 3)
            await acknowledged(peer, 1, 2, 3)
            assert got == [b"1", b"1", b"2", b"3"]

        client.first(first)
        waits = False
        client.second(second)

    def test_of_a_removed_filter_leaves_no_message_unacknowledged_though_its_task_is_collected(
        self, client: Client
    ) -> None:
        called: list[bytes] = []

        async def handler(message: Message) -> None:
            called.append(message.payload)
            await asyncio.sleep(1000)

        async def first(device: AsyncDevice, peer: Peer) -> None:
            device.client.subscribe("t", handler)
            await asyncio.to_thread(peer.expect_subscribe)
            peer.publish("t", b"1", 1, 1)
            await until(lambda: bool(called))
            device.client.unsubscribe("t")
            await asyncio.to_thread(peer.expect, UNSUBSCRIBE)

        async def second(device: AsyncDevice, peer: Peer) -> None:
            await acknowledged(peer, 1)

        client.first(first)
        client.collect()
        client.second(second)

    def test_is_called_for_what_has_arrived_between_the_loops(self, client: Client) -> None:
        got: list[bytes] = []

        async def first(device: AsyncDevice, peer: Peer) -> None:
            device.client.subscribe("t", lambda message: got.append(message.payload))
            await asyncio.to_thread(peer.expect_subscribe)
            peer.publish("t", b"1", 1, 1)
            await acknowledged(peer, 1)

        async def second(device: AsyncDevice, peer: Peer) -> None:
            peer.publish("t", b"3", 1, 3)
            await acknowledged(peer, 2, 3)

        client.first(first)
        client.peer.publish("t", b"2", 1, 2)
        asyncio.run(until(lambda: waiting(client.device, "t") == 1))
        client.second(second)

    def test_that_was_pending_does_not_hold_up_disconnect(self, client: Client) -> None:
        """Which is the first that the next loop does."""
        began = False

        async def handler(message: Message) -> None:
            nonlocal began
            began = True
            await asyncio.sleep(1000)

        async def first(device: AsyncDevice, peer: Peer) -> None:
            device.client.subscribe("t", handler)
            await asyncio.to_thread(peer.expect_subscribe)
            peer.publish("t", b"1", 1, 1)
            await until(lambda: began)

        client.first(first)
        run(lambda: client.device.end(client.peer))


async def be_shared(device: AsyncDevice, peer: Peer) -> None:
    """Let two tasks of a block have a message each, and one message wait."""
    got: list[bytes] = []

    async def read(messages: Messages) -> None:
        async for message in messages:
            got.append(message.payload)
            await asyncio.sleep(1000)

    async def share() -> None:
        async with device.client.messages("t") as messages:
            await asyncio.wait([asyncio.create_task(read(messages)) for _ in range(2)])

    task = asyncio.create_task(share())
    await asyncio.to_thread(peer.expect_subscribe)
    for identifier in (1, 2, 3):
        peer.publish("t", b"%d" % identifier, 1, identifier)
    await until(lambda: got == [b"1", b"2"] and waiting(device, "t") == 1)
    assert not task.done()


class TestABlock:
    def test_whose_task_was_pending_leaves_its_messages_to_the_next_one(self, client: Client) -> None:
        got: list[bytes] = []

        async def work(device: AsyncDevice) -> None:
            async with device.client.messages("t") as messages:
                async for message in messages:
                    got.append(message.payload)
                    if message.payload == b"2":
                        await asyncio.sleep(1000)

        async def wait(device: AsyncDevice) -> None:
            async with device.client.messages("waits") as messages:
                async for _message in messages:
                    pass

        async def first(device: AsyncDevice, peer: Peer) -> None:
            tasks = [asyncio.create_task(work(device))]
            await asyncio.to_thread(peer.expect_subscribe)
            tasks.append(asyncio.create_task(wait(device)))
            await asyncio.to_thread(peer.expect_subscribe)
            for identifier in (1, 2, 3):
                peer.publish("t", b"%d" % identifier, 1, identifier)
            await acknowledged(peer, 1)
            await until(lambda: got == [b"1", b"2"] and waiting(device, "t") == 1)

        async def second(device: AsyncDevice, peer: Peer) -> None:
            async with device.client.messages("t") as messages:
                await asyncio.to_thread(peer.expect_subscribe)
                async with device.client.messages("waits"):
                    await asyncio.to_thread(peer.expect_subscribe)
                stream = aiter(messages)
                assert [(await anext(stream)).payload for _ in range(2)] == [b"2", b"3"]

        client.first(first)
        client.second(second)

    def test_whose_tasks_are_collected_leaves_the_messages_of_all_of_them_to_the_next_one(self, client: Client) -> None:
        async def second(device: AsyncDevice, peer: Peer) -> None:
            async with device.client.messages("t") as messages:
                await asyncio.to_thread(peer.expect_subscribe)
                stream = aiter(messages)
                assert [(await anext(stream)).payload for _ in range(3)] == [b"1", b"2", b"3"]

        client.first(be_shared)
        client.collect()
        client.second(second)

    @pytest.mark.parametrize("collected", [False, True])
    def test_that_unsubscribe_has_ended_leaves_no_message_unacknowledged(self, client: Client, collected: bool) -> None:
        async def first(device: AsyncDevice, peer: Peer) -> None:
            await be_shared(device, peer)
            device.client.unsubscribe("t")
            await asyncio.to_thread(peer.expect, UNSUBSCRIBE)

        async def second(device: AsyncDevice, peer: Peer) -> None:
            await acknowledged(peer, 1, 2, 3)

        client.first(first)
        if collected:
            client.collect()
        client.second(second)

    def test_that_an_exception_has_left_ends_after_some_seconds(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def first(device: AsyncDevice, peer: Peer) -> None:
            with contextlib.suppress(ZeroDivisionError):
                async with device.client.messages("t"):
                    await asyncio.to_thread(peer.expect_subscribe)
                    raise ZeroDivisionError

        async def second(device: AsyncDevice, peer: Peer) -> None:
            await asyncio.to_thread(peer.expect_unsubscribe)

        client.first(first)
        monkeypatch.setattr(inboxes, "KEPT_SECONDS", 0.01)
        client.second(second)


class TestMessagesThatNobodyWants:
    @pytest.mark.parametrize("between", [False, True])
    def test_are_acknowledged_after_some_seconds(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, between: bool
    ) -> None:
        """``between`` the two loops is when the first of them arrives."""

        async def arrived(device: AsyncDevice, peer: Peer) -> None:
            peer.publish("t", b"1", 1, 1)
            await until(lambda: device.client.stats.received == 1)

        async def first(device: AsyncDevice, peer: Peer) -> None:
            if not between:
                await arrived(device, peer)
                await until(lambda: len(device.client._inboxes._unclaimed._kept) == 1)

        async def second(device: AsyncDevice, peer: Peer) -> None:
            peer.publish("t", b"2", 1, 2)
            await acknowledged(peer, 1, 2)

        client.first(first)
        if between:
            asyncio.run(arrived(client.device, client.peer))
        monkeypatch.setattr(unclaimed, "KEPT_SECONDS", 0.01)
        client.second(second)

    def test_wait_for_a_block_of_the_next_loop_as_long(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unclaimed, "KEPT_SECONDS", 0.0)

        async def first(device: AsyncDevice, peer: Peer) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(unclaimed, "KEPT_SECONDS", 1000.0)
                peer.publish("t", b"1", 1, 1)
                await until(lambda: len(device.client._inboxes._unclaimed._kept) == 1)
            ((_, number, message),) = device.client._inboxes._unclaimed._kept
            device.client._inboxes._unclaimed._kept[0] = (0.0, number, message)  # it has waited long

        async def second(device: AsyncDevice, peer: Peer) -> None:
            await asyncio.sleep(0)
            async with device.client.messages("t") as messages:
                assert (await anext(aiter(messages))).payload == b"1"

        client.first(first)
        monkeypatch.setattr(unclaimed, "KEPT_SECONDS", 1000.0)
        client.second(second)


def test_dropped_messages_are_reported_although_the_loop_has_ended_before(monkeypatch: pytest.MonkeyPatch) -> None:
    device = AsyncDevice()

    async def drop(number: int) -> None:
        peer = await device.start()
        device.client.subscribe("t", lambda _message: None, queue=1)
        await asyncio.to_thread(peer.expect_subscribe)
        queue = device.client._inboxes._inboxes["t"]
        with monkeypatch.context() as patch:
            patch.setattr(queue, "idle", False)  # the loop does not look at it
            for _ in range(3):
                peer.publish("t", b"")
            await until(lambda: queue._dropped == 2 * number)
        if number > 1:
            await device.event(MessagesDropped)
        await device.end(peer)

    with contextlib.closing(device.broker):
        monkeypatch.setattr(inbox, "_REPORT_AFTER", 1000.0)
        asyncio.run(drop(1))
        assert not [event for event in device.events if isinstance(event, MessagesDropped)]
        monkeypatch.setattr(inbox, "_REPORT_AFTER", 0.01)
        device._news = asyncio.Event()
        run(lambda: drop(2))


def test_what_was_processed_last_is_acknowledged() -> None:
    acknowledgements: list[list[object]] = []
    own_loop = OwnLoop()
    batch = AckBatch(own_loop, acknowledgements.append)
    message = Message("t", b"", 1, False, False)
    message.pending_ack = object()

    async def process() -> None:
        batch.add(message)
        asyncio.get_running_loop().stop()

    async def bind() -> None:
        own_loop.bind()

    loop = asyncio.new_event_loop()
    task = loop.create_task(process())
    loop.run_forever()
    loop.close()
    assert task.done()
    assert acknowledgements == []
    asyncio.run(bind())
    assert acknowledgements == [[message.pending_ack]]


@pytest.mark.parametrize("between", [0, 1])
def test_a_client_connects_whose_disconnect_was_pending(between: int) -> None:
    client = Client()

    async def first(device: AsyncDevice, peer: Peer) -> None:
        device.client.publish_nowait("t", b"", qos=1)
        await asyncio.to_thread(peer.expect, PUBLISH)
        task = asyncio.create_task(device.client.disconnect(timeout=1000))
        await until(lambda: device.client.state == "closed")
        assert not task.done()

    async def use() -> None:
        client.device.client.unsubscribe("t")

    async def second() -> None:
        connecting = asyncio.create_task(client.device.client.connect())
        while (await asyncio.to_thread(client.peer.packet)) is not None:
            """DISCONNECT, and perhaps others."""
        client.peer.close()
        peer = await client.device.answer()
        assert await connecting
        await client.device.end(peer)

    with contextlib.closing(client.device.broker):
        client.first(first)
        for _ in range(between):  # loops that end without a connect()
            asyncio.run(use())
        run(second)
    for task in client.left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_an_event_reaches_on_event_although_a_task_of_the_first_loop_has_waited_for_it(client: Client) -> None:
    async def read(device: AsyncDevice) -> list[Event]:
        return [event async for event in device.client.events()]

    async def first(device: AsyncDevice, peer: Peer) -> None:
        task = asyncio.create_task(read(device))
        await asyncio.sleep(0)
        assert not task.done()

    async def second(device: AsyncDevice, peer: Peer) -> None:
        device.events.clear()
        device.client._core.report(MessagesDropped("t", 1))
        await until(lambda: bool(device.events))

    client.first(first)
    client.second(second)


def test_a_client_does_not_keep_a_closed_loop_in_memory(client: Client) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def first(device: AsyncDevice, peer: Peer) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))

    async def second(device: AsyncDevice, peer: Peer) -> None:
        """The client goes on."""

    client.first(first)
    client.collect()
    assert loops[0]() is None
    client.second(second)


def test_a_thread_without_a_loop_may_ask_for_a_token_when_the_loop_of_the_source_is_gone() -> None:
    class Coroutine:
        async def fetch(self, previous: Token | None) -> Token:
            raise AssertionError

    adapter = on_loop.SourceOnLoop(Coroutine())

    async def use() -> None:
        adapter.use(asyncio.get_running_loop())

    asyncio.run(use())
    gc.collect()
    adapter.check_caller()


def test_a_source_whose_fetch_was_pending_does_not_hold_up_disconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_loop, "_LOOK_INTERVAL", 0.01)

    class Slow:
        began = False

        async def fetch(self, previous: Token | None) -> Token:
            self.began = True
            await asyncio.sleep(1000)
            raise AssertionError

    source = Slow()
    adapter = on_loop.SourceOnLoop(source)

    async def first() -> None:
        adapter.use(asyncio.get_running_loop())
        fetching.append(pool.submit(adapter.fetch, None))
        await until(lambda: source.began)

    async def second() -> None:
        adapter.use(asyncio.get_running_loop())
        async with asyncio.timeout(PATIENCE):
            await adapter.leave(1000)

    fetching: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        tasks = run_and_leave(first)
        with pytest.raises(TokenError, match="closed during fetch"):
            fetching[0].result(PATIENCE)
        run(second)
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
