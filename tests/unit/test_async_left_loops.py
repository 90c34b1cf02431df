"""Loops over messages() that are left before the block is: no message may stay unacknowledged for that, as the
acknowledgements of all later ones would wait for it. Nor may a loop leave anything behind, over messages() or events().
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest

from mqtt_token_client import AsyncTokenClient, ClientCredentials
from mqtt_token_client.aio import left_loops
from mqtt_token_client.aio.messages import Messages
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.async_device import AsyncDevice, connected, run, until, waiting
from tests.unit.packets import PUBACK
from tests.unit.scripted_broker import PATIENCE, Peer
from tests.unit.test_async_messages import expect, expect_nothing, publish, subscribed


@contextlib.asynccontextmanager
async def receiving(*identifiers: int) -> AsyncIterator[tuple[AsyncDevice, Peer, Messages]]:
    """A device, the broker's side, and a block that has these messages."""
    async with connected() as (device, peer), device.client.messages("t") as messages:
        await subscribed(peer)
        publish(peer, *identifiers)
        await until(lambda: waiting(device, "t") == len(identifiers))
        yield device, peer, messages


async def first(messages: Messages) -> bytes:
    """Leave a loop at its first message."""
    async for message in messages:
        return message.payload
    raise AssertionError


async def acknowledged(peer: Peer, *identifiers: int) -> None:
    assert [(await expect(peer, PUBACK)).packet_id for _ in identifiers] == list(identifiers)


class TestTheMessageAtWhichALoopWasLeft:
    def test_by_break_is_acknowledged_when_the_next_loop_begins(self) -> None:
        async def main() -> None:
            async with receiving(1, 2, 3) as (_, peer, messages):
                assert await first(messages) == b"1"
                await expect_nothing(peer)
                assert await first(messages) == b"2"
                await acknowledged(peer, 1)
                await expect_nothing(peer)
                assert await first(messages) == b"3"
                await acknowledged(peer, 2)

        run(main)

    def test_by_a_timeout_inside_its_body_is_acknowledged_when_the_next_loop_begins(self) -> None:
        async def main() -> None:
            async with receiving(1, 2) as (_, peer, messages):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        async for _message in messages:
                            await asyncio.sleep(PATIENCE)
                await expect_nothing(peer)
                assert await first(messages) == b"2"
                await acknowledged(peer, 1)

        run(main)

    def test_of_a_task_that_was_cancelled_is_acknowledged_when_the_next_loop_begins(self) -> None:
        async def main() -> None:
            async with receiving(1, 2) as (_, peer, messages):

                async def work() -> None:
                    async for _message in messages:
                        await asyncio.sleep(PATIENCE)

                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(work(), 0.01)  # in Python 3.11 a task of its own
                assert await first(messages) == b"2"
                await acknowledged(peer, 1)

        run(main)

    def test_whose_iterator_another_thread_collects_is_acknowledged_when_the_next_loop_begins(self) -> None:
        async def main() -> None:
            async with receiving(1, 2) as (_, peer, messages):
                cycle: list[object] = [aiter(messages)]
                assert (await anext(cycle[0])).payload == b"1"  # type: ignore[call-overload]
                cycle.append(cycle)
                del cycle
                await asyncio.to_thread(gc.collect)
                await expect_nothing(peer)
                assert await first(messages) == b"2"
                await acknowledged(peer, 1)

        run(main)

    def test_is_acknowledged_after_some_seconds_in_which_loops_of_other_tasks_go_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(left_loops, "KEPT_SECONDS", 0.05)

        async def main() -> None:
            async with receiving() as (_, peer, messages):
                other = aiter(messages)
                processed = asyncio.ensure_future(anext(other))
                await asyncio.sleep(0)
                leaving = asyncio.ensure_future(first(messages))
                publish(peer, 1, 2)
                await asyncio.wait([processed, leaving])
                assert {processed.result().payload, leaving.result()} == {b"1", b"2"}
                processed = asyncio.ensure_future(anext(other))
                await acknowledged(peer, 1, 2)
                processed.cancel()
                await asyncio.wait([processed])

        run(main)

    @pytest.mark.parametrize("kept", [0, 0.05])
    def test_of_a_task_that_has_failed_is_acknowledged_after_some_seconds_if_the_block_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, kept: float
    ) -> None:
        """They pass before another loop begins, or after that."""
        monkeypatch.setattr(left_loops, "KEPT_SECONDS", kept)

        async def main() -> None:
            async with receiving(1) as (_, peer, messages):

                async def fail() -> None:
                    async for _message in messages:
                        raise ZeroDivisionError

                failed = asyncio.create_task(fail())
                await asyncio.wait([failed])
                if not kept:
                    await expect_nothing(peer)
                going_on = asyncio.create_task(first(messages))
                await acknowledged(peer, 1)
                assert isinstance(failed.exception(), ZeroDivisionError)
                going_on.cancel()
                await asyncio.wait([going_on])

        run(main)

    def test_of_a_task_that_has_returned_is_acknowledged_when_the_next_loop_begins(self) -> None:
        async def main() -> None:
            async with receiving(1, 2) as (_, peer, messages):
                returned = asyncio.create_task(first(messages))
                assert await returned == b"1"
                assert await first(messages) == b"2"
                await acknowledged(peer, 1)

        run(main)

    @pytest.mark.parametrize(("gathered", "cancelled"), [(False, False), (True, False), (True, True)])
    def test_by_an_exception_is_kept_although_another_task_begins_a_loop_at_that_moment(
        self, gathered: bool, cancelled: bool
    ) -> None:
        async def main() -> None:
            async with connected() as (device, peer):

                async def fail(messages: Messages) -> None:
                    async for _message in messages:
                        took.set()
                        await failing.wait()
                        if cancelled:
                            raise asyncio.CancelledError
                        raise ZeroDivisionError

                async def begin(messages: Messages) -> None:
                    await failing.wait()  # goes on in the same turn of the event loop, after the other task
                    async for _message in messages:
                        raise AssertionError

                async def in_group(messages: Messages) -> None:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(fail(messages))
                        await took.wait()
                        group.create_task(begin(messages))
                        await asyncio.sleep(0)
                        failing.set()

                async def in_gather(messages: Messages) -> None:
                    failing_task = asyncio.create_task(fail(messages))
                    await took.wait()
                    going_on.append(asyncio.create_task(begin(messages)))
                    await asyncio.sleep(0)
                    failing.set()
                    await asyncio.gather(failing_task, *going_on)

                took, failing, going_on = asyncio.Event(), asyncio.Event(), list[asyncio.Task[None]]()
                with contextlib.suppress(ExceptionGroup, ZeroDivisionError, asyncio.CancelledError):
                    async with device.client.messages("t") as messages:
                        await subscribed(peer)
                        publish(peer, 1)
                        await (in_gather if gathered else in_group)(messages)
                await expect_nothing(peer)
                await asyncio.gather(*going_on)
                async with device.client.messages("t") as messages:
                    assert await first(messages) == b"1"

        run(main)

    def test_is_not_acknowledged_while_the_block_may_process_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(left_loops, "KEPT_SECONDS", 0)

        async def main() -> None:
            async with receiving(1, 2) as (_, peer, messages):
                assert await first(messages) == b"1"
                await expect_nothing(peer)

        run(main)

    def test_by_an_exception_is_kept_with_the_block_although_other_tasks_go_on(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):

                async def fail(messages: Messages) -> None:
                    async for _message in messages:
                        await asyncio.sleep(0)
                        raise ZeroDivisionError

                async def work(messages: Messages) -> None:
                    async for _message in messages:
                        await asyncio.sleep(0)

                with contextlib.suppress(ExceptionGroup):
                    async with device.client.messages("t") as messages:
                        await subscribed(peer)
                        publish(peer, *range(1, 10))
                        await until(lambda: waiting(device, "t") == 9)
                        async with asyncio.TaskGroup() as group:
                            group.create_task(fail(messages))
                            group.create_task(work(messages))
                await expect_nothing(peer)
                async with device.client.messages("t") as messages:
                    assert await first(messages) == b"1"

        run(main)

    def test_is_kept_in_the_order_of_arrival_if_an_exception_leaves_the_block(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                with contextlib.suppress(ZeroDivisionError):
                    async with device.client.messages("t") as messages:
                        await subscribed(peer)
                        publish(peer, 1, 2, 3, 4)
                        one, two = aiter(messages), aiter(messages)
                        assert [(await anext(stream)).payload for stream in (two, one)] == [b"1", b"2"]
                        assert await first(messages) == b"3"
                        raise ZeroDivisionError
                await expect_nothing(peer)
                async with device.client.messages("t") as messages:
                    stream = aiter(messages)
                    assert [(await anext(stream)).payload for _ in range(4)] == [b"1", b"2", b"3", b"4"]

        run(main)


def test_ten_thousand_loops_in_one_block_leave_nothing_behind() -> None:
    async def main() -> None:
        async with receiving(1, 2) as (_, _peer, messages):
            await first(messages)
            await first(messages)
            gc.collect()
            before = len(gc.get_objects())
            for _ in range(10_000):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await first(messages)
            gc.collect()
            assert len(gc.get_objects()) - before < 100

    run(main)


def test_ten_thousand_waits_for_an_event_leave_nothing_behind() -> None:
    async def main() -> None:
        async with connected() as (device, _peer):
            events = device.client.events()
            gc.collect()
            before = len(gc.get_objects())
            for _ in range(10_000):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await anext(events)
            gc.collect()
            assert len(gc.get_objects()) - before < 100

    run(main)


def test_more_loops_than_receive_maximum_get_their_messages(server: AuthorizationServer, broker: Broker) -> None:
    source = ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret)

    async def main() -> None:
        client = AsyncTokenClient(broker.url, source, client_id=server.client_id, receive_maximum=5)
        async with client, client.messages("down/#") as messages:
            await client.publish("ready", b"", qos=1)  # the broker has the subscription by then
            for number in range(20):
                broker.publish("down/t", b"%d" % number, qos=1)
            for number in range(20):
                assert await first(messages) == b"%d" % number

    run(main)
