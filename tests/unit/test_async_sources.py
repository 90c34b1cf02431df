"""Token sources whose fetch() is a coroutine function, and keepers that coroutines ask."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mqtt_token_client import (
    AsyncTokenClient,
    ConfigurationError,
    MqttTokenError,
    RenewalFailed,
    Rotated,
    Token,
    TokenClient,
    TokenError,
    TokenKeeper,
)
from mqtt_token_client.tokens.on_loop import SourceOnLoop
from tests.unit.async_device import AsyncDevice, run, threads, until
from tests.unit.device import Source, password
from tests.unit.scripted_broker import PATIENCE, ScriptedBroker


class AsyncSource(Source):
    """Like Source, on the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()  # while it is cleared, a request waits
        self.open.set()
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.previous: list[Token | None] = []

    async def fetch(self, previous: Token | None) -> Token:  # type: ignore[override]
        self.loops.append(asyncio.get_running_loop())
        self.previous.append(previous)
        await self.open.wait()
        return super().fetch(previous)


def device_with(source: AsyncSource) -> AsyncDevice:
    device = AsyncDevice(tokens=source)
    device.source = source
    return device


class TestASourceOfAClient:
    def test_runs_on_the_clients_loop_and_its_tokens_rotate(self) -> None:
        async def main() -> None:
            source = AsyncSource()
            device = device_with(source)
            with contextlib.closing(device.broker):
                first = await device.start()
                await device.client.rotate()
                second = await device.hand_over(first)
                await device.event(Rotated)
                await device.end(second)
            assert source.loops == [asyncio.get_running_loop()] * 2
            assert [previous and previous.value for previous in source.previous] == [None, password(1).decode()]

        run(main)

    @pytest.mark.parametrize("error", [TokenError("not today"), ValueError("the secret"), asyncio.CancelledError()])
    def test_that_raises_is_reported_without_its_text_unless_the_error_is_ours(self, error: BaseException) -> None:
        async def main() -> None:
            source = AsyncSource()
            device = device_with(source)
            with contextlib.closing(device.broker):
                first = await device.start()
                source.next = [error]
                with pytest.raises(TokenError):
                    await device.client.rotate()
                failed = await device.event(RenewalFailed)
                assert ("not today" in str(failed.error)) == isinstance(error, TokenError)
                assert "the secret" not in str(failed.error)
                await device.end(first)

        run(main)

    def test_is_cancelled_when_the_client_is_disconnected(self) -> None:
        async def main() -> None:
            source = AsyncSource()
            source.open.clear()
            device = device_with(source)
            with contextlib.closing(device.broker):
                assert not await device.client.connect(timeout=0.01)
                await until(lambda: len(source.loops) == 1)
                await device.client.disconnect(timeout=0)
                assert {task.get_name() for task in asyncio.all_tasks()} <= {asyncio.current_task().get_name()}  # type: ignore[union-attr]

        run(main)

    def test_that_uses_a_refresh_token_may_finish_when_the_client_is_disconnected(self) -> None:
        async def main() -> None:
            source = AsyncSource()
            source.next = [Token("first-token", 3600.0, refresh_token="first-refresh-token")]
            device = device_with(source)
            with contextlib.closing(device.broker):
                peer = await device.start()
                source.open.clear()
                rotating = asyncio.create_task(device.client.rotate())
                await until(lambda: len(source.loops) == 2)
                ending = asyncio.create_task(device.end(peer))
                await until(lambda: device.client.state == "closed")
                assert not ending.done()
                source.open.set()
                await ending
                await rotating

        run(main)

    def test_is_not_called_and_leaves_no_task_when_the_client_is_disconnected_just_before(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def main() -> None:
            loop, source, called = asyncio.get_running_loop(), AsyncSource(), threading.Event()
            on_loop = SourceOnLoop(source)
            on_loop.use(loop)
            original = loop.call_soon_threadsafe

            def call_soon_threadsafe(*arguments: Any, **options: Any) -> Any:
                try:
                    return original(*arguments, **options)
                finally:
                    called.set()

            monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
            fetching = pool.submit(on_loop.fetch, None)
            assert called.wait(PATIENCE)  # it blocks the loop, which cannot look at what it was given
            await on_loop.leave(0)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            with pytest.raises(TokenError, match=r"disconnected, so fetch\(\) was not called"):
                await asyncio.wrap_future(fetching)
            assert source.requests == 0

        with ThreadPoolExecutor(1) as pool:
            asyncio.run(main())


class TestAKeeper:
    def test_is_asked_by_many_coroutines_for_one_request(self) -> None:
        async def main() -> None:
            source = AsyncSource()
            source.open.clear()
            keeper = TokenKeeper(source)
            asking = [asyncio.create_task(keeper.get_async()) for _ in range(100)]
            await until(lambda: len(source.loops) == 1)
            assert len(threads()) <= 2
            source.open.set()
            assert {token.value for token in await asyncio.gather(*asking)} == {password(1).decode()}
            assert (await keeper.get_async()).value == password(1).decode()
            assert source.requests == 1
            keeper.close()

        run(main)

    def test_with_a_usual_source_does_not_block_the_loop(self) -> None:
        async def main() -> None:
            source = Source()
            source.gate.clear()
            keeper = TokenKeeper(source)
            asking = asyncio.create_task(keeper.get_async())
            await asyncio.to_thread(source.asked.acquire)
            assert not asking.done()
            source.gate.set()
            assert (await asking).value == password(1).decode()
            keeper.close()

        run(main)

    def test_does_not_wait_for_the_executor_of_the_loop(self) -> None:
        async def main() -> None:
            keeper, free = TokenKeeper(Source()), threading.Event()
            executor = ThreadPoolExecutor(1)
            asyncio.get_running_loop().set_default_executor(executor)
            executor.submit(free.wait)
            try:
                async with asyncio.timeout(PATIENCE):
                    assert (await keeper.get_async()).value
            finally:
                free.set()
                keeper.close()

        run(main)

    def test_raises_to_all_who_ask(self) -> None:
        async def main() -> None:
            source = AsyncSource()
            source.always = TokenError("not today")
            keeper = TokenKeeper(source)
            outcomes = await asyncio.gather(keeper.get_async(), keeper.get_async(), return_exceptions=True)
            assert [str(outcome) for outcome in outcomes] == ["not today"] * 2
            keeper.close()

        run(main)

    def test_gives_the_others_their_token_if_one_is_cancelled(self) -> None:
        async def main() -> None:
            source = AsyncSource()
            source.open.clear()
            keeper = TokenKeeper(source)
            first, second = (asyncio.create_task(keeper.get_async()) for _ in range(2))
            await until(lambda: len(source.loops) == 1)
            first.cancel()
            await asyncio.wait([first])
            source.open.set()
            assert (await second).value == password(1).decode()
            keeper.close()

        run(main)

    def test_raises_where_waiting_would_block_the_loop_that_the_source_needs(self) -> None:
        async def main() -> None:
            keeper = TokenKeeper(AsyncSource())
            await keeper.get_async()
            with pytest.raises(ConfigurationError, match="get_async"):
                keeper.renew()
            keeper.close()

        run(main)

    def test_renews_in_the_background_past_the_renewal_time(self) -> None:
        async def main() -> None:
            source = AsyncSource()
            keeper = TokenKeeper(source)
            first = await keeper.get_async()
            keeper._renewer.renewal_due = -math.inf
            assert await keeper.get_async() == first
            await until(lambda: keeper.current is not None and keeper.current.value == password(2).decode())
            assert source.loops == [asyncio.get_running_loop()] * 2
            keeper.close()

        run(main)

    def test_without_a_loop_says_what_the_source_needs(self) -> None:
        keeper = TokenKeeper(AsyncSource())
        with pytest.raises(ConfigurationError, match="needs an event loop"):
            _ = keeper.token
        keeper.close()

    def test_whose_loop_is_closed_says_so(self) -> None:
        keeper = TokenKeeper(AsyncSource())

        async def main() -> None:
            await keeper.get_async()

        asyncio.run(main())
        with pytest.raises(ConfigurationError, match="needs an event loop"):
            keeper.renew()
        keeper.close()


def test_the_blocking_client_reports_that_such_a_source_needs_an_event_loop() -> None:
    with contextlib.closing(ScriptedBroker()) as broker:
        client = TokenClient(broker.url, AsyncSource(), client_id="device")
        with pytest.raises(ConfigurationError, match="use AsyncTokenClient"):
            client.connect()


def test_a_thread_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        keeper = TokenKeeper(AsyncSource())
        with monkeypatch.context() as patch:

            def fail(_thread: threading.Thread) -> Any:
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(MqttTokenError, match="no thread could be started"):
                await keeper.get_async()
        keeper.close()

    run(main)


def test_a_source_with_a_coroutine_function_is_accepted_by_type() -> None:
    class OfHomeAssistant:
        async def fetch(self, previous: Token | None) -> Token:
            return Token("a-token", 60.0)

    client = AsyncTokenClient("mqtt://localhost", OfHomeAssistant(), client_id="device")
    assert client.token_expires_in is None
