"""TokenClient, and AsyncTokenClient behind the same methods, so that the same tests use both interfaces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from mqtt_token_client import AsyncTokenClient, Delivery, Message, Stats, TokenClient

_Result = TypeVar("_Result")

PATIENCE = 60.0  # seconds


class OnTheLoop:
    """The Delivery of a message that the event loop publishes.

    Args:
        published: has it when that is done.
    """

    def __init__(self, published: Future[Delivery]) -> None:
        self._published = published

    def wait(self, timeout: float) -> None:
        """As :meth:`.Delivery.wait`."""
        self._published.result(timeout).wait(timeout)


class LoopThread:
    """An event loop in a thread, for an application's clients."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        if self._thread is None:
            self._thread = threading.Thread(target=self.loop.run_forever, name="application")
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this loop."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE)
            self._thread = None
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def __del__(self) -> None:
        with suppress(RuntimeError):
            self.loop.close()


class AsyncInThread:
    """An AsyncTokenClient on an event loop in another thread, with the methods of TokenClient that the tests use. What
    it subscribes to is received by ``messages()``.

    Args:
        arguments: of the client.
        thread: has the loop; a client has one of its own, unless it is given one.
        options: of the client.
    """

    def __init__(self, *arguments: Any, thread: LoopThread | None = None, **options: Any) -> None:
        self._client = AsyncTokenClient(*arguments, **options)
        self._thread = thread or LoopThread()
        self._shared = thread is not None
        self._consumers: list[Future[None]] = []
        self._closed = False

    def subscribe(self, topic_filter: str, handler: Callable[[Message], object], *, qos: int = 1) -> None:
        entered = threading.Event()

        async def consume() -> None:
            async with self._client.messages(topic_filter, qos=qos) as messages:
                entered.set()
                async for message in messages:
                    handler(message)

        self._consumers.append(self._thread.run(consume()))
        assert entered.wait(PATIENCE)

    def connect(self, timeout: float | None = 30.0) -> bool:
        return self._thread.run(self._client.connect(timeout)).result(PATIENCE)

    def publish(self, topic: str, payload: bytes | str, *, qos: int = 0) -> Delivery | OnTheLoop:
        """Publish a message; on another thread, have the event loop do so, without waiting for it."""
        if self._thread.is_current:
            return self._client.publish_nowait(topic, payload, qos=qos)
        published: Future[Delivery] = Future()

        def publish() -> None:
            try:
                published.set_result(self._client.publish_nowait(topic, payload, qos=qos))
            except BaseException as error:  # noqa: BLE001 - raised where the delivery is awaited
                published.set_exception(error)

        self._thread.loop.call_soon_threadsafe(publish)
        return OnTheLoop(published)

    def rotate(self) -> None:
        self._thread.run(self._client.rotate()).result(PATIENCE)

    def disconnect(self, timeout: float = 5.0) -> None:
        if self._closed:
            return
        self._closed = True
        self._thread.run(self._client.disconnect(timeout)).result(PATIENCE)
        for consumer in self._consumers:
            consumer.result(PATIENCE)
        if not self._shared:
            self._thread.close()

    @property
    def state(self) -> str:
        return self._client.state

    @property
    def stats(self) -> Stats:
        return self._client.stats

    def block(self, function: Callable[[], object]) -> None:
        """Have the application block the event loop with a function."""
        self._thread.loop.call_soon_threadsafe(function)

    def __enter__(self) -> AsyncInThread:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()


AnyClient = TokenClient | AsyncInThread

INTERFACES: dict[str, Callable[..., AnyClient]] = {"blocking": TokenClient, "asyncio": AsyncInThread}


def through_both(check: Callable[[str], None]) -> None:
    """Check something through both interfaces at once; ``check`` gets the name of one."""
    with ThreadPoolExecutor(len(INTERFACES)) as pool:
        for checking in [pool.submit(check, interface) for interface in INTERFACES]:
            checking.result()
