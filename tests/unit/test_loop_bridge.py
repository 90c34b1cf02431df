"""What other threads call on an event loop, and what a coroutine can wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mqtt_token_client import DeliveryFailed
from mqtt_token_client.loop_bridge import LoopBridge, bridge_to
from mqtt_token_client.mqtt.runtime.thread import acquire_network_thread, release_network_thread
from mqtt_token_client.mqtt.session.delivery import Delivery
from mqtt_token_client.oneshot import OneShot


def elsewhere(function: Callable[[], object]) -> None:
    """Call a function on another thread, and return when it has returned."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_many_calls_of_a_thread_wake_the_loop_once_and_come_in_order() -> None:
    async def main() -> None:
        loop, called, wakes = asyncio.get_running_loop(), list[int](), list[object]()
        bridge = LoopBridge(loop)
        wake = loop.call_soon_threadsafe

        def counted(callback: Any, *arguments: Any, **options: Any) -> Any:
            wakes.append(callback)
            return wake(callback, *arguments, **options)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]

        def call() -> None:
            for number in range(100):
                bridge.call(called.append, number)

        elsewhere(call)
        assert called == []
        while not called:
            await asyncio.sleep(0)
        assert (called, len(wakes)) == (list(range(100)), 1)
        bridge.call(called.append, 100)
        await asyncio.sleep(0)
        assert (called[-1], len(wakes)) == (100, 2)

    asyncio.run(main())


def test_the_network_thread_wakes_the_loop_at_the_end_of_its_turn() -> None:
    async def main() -> None:
        loop, wakes, during_the_turn, done = asyncio.get_running_loop(), list[object](), list[int](), asyncio.Event()
        bridge, runtime = LoopBridge(loop), acquire_network_thread()
        wake = loop.call_soon_threadsafe

        def counted(callback: Any, *arguments: Any, **options: Any) -> Any:
            wakes.append(callback)
            return wake(callback, *arguments, **options)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]

        def turn() -> None:
            bridge.call(during_the_turn.append, 1)
            bridge.call(done.set)
            during_the_turn.append(len(wakes))

        runtime.call_soon(turn)
        await done.wait()
        release_network_thread()
        assert (during_the_turn, len(wakes)) == ([0, 1], 1)

    asyncio.run(main())


def test_one_that_raises_is_reported_by_the_loop_and_the_rest_is_called() -> None:
    async def main() -> None:
        loop, called, reported = asyncio.get_running_loop(), list[str](), list[dict[str, Any]]()
        loop.set_exception_handler(lambda _loop, context: reported.append(context))
        bridge = bridge_to(loop)
        bridge.call(lambda: 1 / 0)
        bridge.call(called.append, "the next one")
        while not called:
            await asyncio.sleep(0)
        assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]

    asyncio.run(main())


def test_a_call_for_a_loop_that_is_closed_or_gone_does_nothing() -> None:
    loop, called = asyncio.new_event_loop(), list[str]()
    bridge = bridge_to(loop)
    assert bridge_to(loop) is bridge
    loop.close()
    bridge.call(called.append, "too late")
    del loop
    bridge.call(called.append, "much too late")
    assert called == []


class TestDelivery:
    def test_is_awaited_until_another_thread_finishes_it(self) -> None:
        async def main() -> None:
            delivery = Delivery()
            waiting = asyncio.ensure_future(delivery)
            await asyncio.sleep(0)
            assert not waiting.done()
            elsewhere(delivery.finish)
            await waiting
            await delivery

        asyncio.run(main())

    def test_that_failed_raises_its_error_where_it_is_awaited(self) -> None:
        async def main() -> None:
            delivery = Delivery()
            waiting = asyncio.gather(delivery, delivery, return_exceptions=True)
            await asyncio.sleep(0)
            elsewhere(lambda: delivery.finish(DeliveryFailed("rejected")))
            assert [str(error) for error in await waiting] == ["rejected", "rejected"]
            with pytest.raises(DeliveryFailed, match="rejected"):
                await delivery

        asyncio.run(main())

    def test_is_not_changed_by_a_task_that_stops_waiting(self) -> None:
        async def main() -> None:
            delivery = Delivery()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.ensure_future(delivery), 0)
            assert not delivery.done
            elsewhere(delivery.finish)
            await delivery

        asyncio.run(main())


def test_a_one_shot_is_awaited() -> None:
    async def main() -> None:
        shot = OneShot()
        waiting = asyncio.ensure_future(shot)
        await asyncio.sleep(0)
        assert not waiting.done()
        elsewhere(shot.set)
        await waiting
        await shot

    asyncio.run(main())
