"""Tokens for coroutines: sources whose ``fetch`` is a coroutine function, callers that must not block their loop."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from ..errors import ConfigurationError, MqttTokenError, TokenError
from ..oneshot import OneShot
from ..sources import AsyncTokenSource, TokenSource
from ..token import Token

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from concurrent.futures import Future

_Result = TypeVar("_Result")

_LOOK_INTERVAL = 1.0  # seconds: a loop that ends does not say so

_NEEDS_LOOP = (
    "source: fetch() is a coroutine function, which needs an event loop: use AsyncTokenClient, or "
    "`await keeper.get_async()`"
)


def _no_loop() -> None:
    return None


class SourceOnLoop:
    """A token source as a keeper calls it, on a thread that may block. If its ``fetch`` is a coroutine function, it
    runs on an event loop.

    Args:
        source: the application's.
    """

    def __init__(self, source: TokenSource | AsyncTokenSource) -> None:
        self._source = source
        self._loop: Callable[[], AbstractEventLoop | None] = _no_loop  # a weak reference
        self._task: Task[Any] | None = None
        self._uses_refresh_token = False  # the fetch that is under way does

    @property
    def salvage(self) -> Any:
        """The source's own, if it has one."""
        return getattr(self._source, "salvage", None)

    @property
    def scope(self) -> Any:
        """The scopes that the source requests, if it says so."""
        return getattr(self._source, "scope", None)

    @property
    def uses_refresh_tokens(self) -> bool:
        """Whether the source says that it does, and so may ask a person without one."""
        return bool(getattr(self._source, "uses_refresh_tokens", False))

    def fetch(self, previous: Token | None) -> Token:
        """Obtain a token. Blocks."""
        result: Any = self._source.fetch(previous)
        if not hasattr(result, "__await__"):
            token: Token = result
            return token
        self._uses_refresh_token = previous is not None and previous.refresh_token is not None
        loop = self._loop()
        if loop is None or loop.is_closed():
            _close(result)
            raise ConfigurationError(_NEEDS_LOOP)
        return _wait(self._begin(result, loop), result, loop)

    def _begin(self, result: Awaitable[Token], loop: AbstractEventLoop) -> Future[Token]:
        import concurrent.futures

        outcome: Future[Token] = concurrent.futures.Future()

        async def run() -> Token:
            return await result

        def start() -> None:
            outcome.set_running_or_notify_cancel()
            if self._loop() is not loop:  # no task then, as nobody would wait for its end
                _close(result)
                outcome.set_exception(TokenError("source: the client is disconnected, so fetch() was not called"))
            else:
                self._task = loop.create_task(run(), name="mqtt-token-fetch")
                self._task.add_done_callback(ended)

        def ended(task: Task[Token]) -> None:
            self._task = None
            if task.cancelled():
                outcome.set_exception(TokenError("source: fetch() was cancelled"))
            elif (error := task.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        loop.call_soon_threadsafe(start)
        return outcome

    def use(self, loop: AbstractEventLoop) -> None:
        """Run coroutines on this event loop from now on."""
        self._loop = ref(loop)

    async def leave(self, seconds: float) -> None:
        """Run no further coroutine. One that is under way gets so many seconds if it uses a refresh token, whose
        successor must not be lost; otherwise it is cancelled at once.
        """
        import asyncio

        self._loop = _no_loop
        task = self._task
        if task is not None and not task.get_loop().is_closed():  # else it does nothing any more
            await asyncio.wait([task], timeout=seconds if self._uses_refresh_token else 0)
            task.cancel()
            await asyncio.wait([task])

    def check_caller(self) -> None:
        """Raise if the caller is on the event loop that the source needs: it must not block it.

        Raises:
            ConfigurationError: it is.
        """
        if (loop := self._loop()) is not None:
            import asyncio
            import inspect

            if asyncio._get_running_loop() is loop and inspect.iscoroutinefunction(self._source.fetch):  # noqa: SLF001
                raise ConfigurationError("source: fetch() needs this event loop: use `await keeper.get_async()`")


def _wait(outcome: Future[Token], result: Awaitable[Token], loop: AbstractEventLoop) -> Token:
    """Wait for a fetch that was begun on a loop."""
    while True:
        try:
            return outcome.result(_LOOK_INTERVAL)
        except TimeoutError:
            if outcome.done():
                raise  # of the source
            if loop.is_closed():
                if not outcome.running():
                    _close(result)
                raise TokenError("source: the event loop was closed during fetch()") from None


def _close(awaitable: Awaitable[Token]) -> None:
    close = getattr(awaitable, "close", None)
    if callable(close):
        close()


async def in_thread(function: Callable[[], _Result]) -> _Result:
    """Call a function on a thread of its own, and return its result. The thread ends with the function, also if the
    caller is cancelled before that; it does not hold up the end of the process.

    Raises:
        BaseException: what the function raises.
        MqttTokenError: no thread could be started.
    """
    results = list[_Result]()
    errors = list[BaseException]()
    ended = OneShot()

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
            errors.append(error.with_traceback(None))  # the frames of this thread hold on to secrets
        ended.set()

    try:
        threading.Thread(target=run, name="token-renewal", daemon=True).start()
    except RuntimeError:
        raise MqttTokenError("no thread could be started: too little memory, or too many threads") from None
    await ended
    for error in errors:
        raise error
    return results[0]


class SharedCall:
    """Calls a function that blocks, on a thread: coroutines of one loop that ask at the same time share the call.

    Args:
        function: returns a token.
    """

    def __init__(self, function: Callable[[], Token]) -> None:
        self._function = function
        self._under_way: dict[AbstractEventLoop, Task[Token]] = {}

    async def result(self) -> Token:
        """Return what the function returns. If the caller is cancelled, the others get it all the same."""
        import asyncio

        loop = asyncio.get_running_loop()
        task = self._under_way.get(loop)
        if task is None:
            task = self._under_way[loop] = loop.create_task(in_thread(self._function), name="mqtt-token-get")
            task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: Task[Token]) -> None:
        del self._under_way[task.get_loop()]
        if not task.cancelled():
            task.exception()  # perhaps nobody waits for it any more
